"""Holds the sizes of the house style: a file or function that outgrows them holds two ideas.

Called by `make verify` as `python -m tools.sizes`. Every module opens with a docstring; generated code does not count.
"""

import ast
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDERS = ("crossns", "services", "gateway", "bench", "tools", "tests")
GENERATED = Path("crossns/v1")
MODULE_LINES = 400
FUNCTION_LINES = 50
PARAMETERS = 6
# What the middle one may have at most, over all but the tests.
MEDIAN_MODULE_LINES = 150
MEDIAN_FUNCTION_LINES = 10


@dataclass(frozen=True, slots=True)
class Function:
    name: str
    line: int
    lines: int
    parameters: int


def functions(tree: ast.Module) -> Iterator[Function]:
    """Every function of a module, nested ones too; `self` and `cls` are no parameters."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names = [arg.arg for arg in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            variadic = (node.args.vararg is not None) + (node.args.kwarg is not None)
            own = names[1:] if names[:1] in (["self"], ["cls"]) else names
            yield Function(node.name, node.lineno, (node.end_lineno or node.lineno) - node.lineno + 1, len(own) + variadic)


def complaints(path: Path, text: str) -> Iterator[str]:
    """What is wrong with one module, a line each."""
    tree = ast.parse(text, str(path))
    lines = len(text.splitlines())
    if lines > MODULE_LINES:
        yield f"{path}:1: {lines} lines, at most {MODULE_LINES}: find the seam"
    if text.strip() and ast.get_docstring(tree) is None:
        yield f"{path}:1: no docstring: say why the module exists, who calls it, what it keeps true"
    for function in functions(tree):
        if function.lines > FUNCTION_LINES:
            yield f"{path}:{function.line}: {function.name} has {function.lines} lines, at most {FUNCTION_LINES}"
        if function.parameters > PARAMETERS:
            yield f"{path}:{function.line}: {function.name} has {function.parameters} parameters, at most {PARAMETERS}"


def medians(texts: list[str]) -> tuple[float, float]:
    """Lines of the median module and of the median function; empty modules do not count."""
    sizes = [len(text.splitlines()) for text in texts if text.strip()]
    functions_lines = [function.lines for text in texts for function in functions(ast.parse(text))]
    return statistics.median(sizes or [0]), statistics.median(functions_lines or [0])


def main(root: Path) -> int:
    paths = [
        path.relative_to(root)
        for folder in FOLDERS
        for path in sorted((root / folder).rglob("*.py"))
        if GENERATED not in path.relative_to(root).parents
    ]
    texts = {path: (root / path).read_text(encoding="utf-8") for path in paths}
    wrong = [complaint for path, text in texts.items() for complaint in complaints(path, text)]
    module, function = medians([text for path, text in texts.items() if path.parts[0] != "tests"])
    if module > MEDIAN_MODULE_LINES:
        wrong.append(f"the median module has {module:g} lines, at most {MEDIAN_MODULE_LINES}")
    if function > MEDIAN_FUNCTION_LINES:
        wrong.append(f"the median function has {function:g} lines, at most {MEDIAN_FUNCTION_LINES}")
    print("\n".join(wrong) or f"{len(paths)} modules; the median module has {module:g} lines, the median function {function:g}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(Path(__file__).parent.parent))
