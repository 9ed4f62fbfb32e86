"""Breaks the code in known ways and demands that the named test notices: a test that cannot fail proves nothing.

Called by `make mutants`, as `python -m tools.mutants [PART]` (only mutants of files whose path contains PART). The tables are
tests/mutants/*.toml. Only a copy of the tree is changed, below build/, never the tree itself; the same test must pass on the
unchanged copy first.
"""

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parent.parent
TABLES = ROOT / "tests/mutants"
BUILD = ROOT / "build"
# Generous: a mutant may make a test wait for its own deadline.
TIMEOUT_S = 300
# What a run needs; `.venv` comes as hard links, since a link that points out of the copy leads nowhere for the services' uids.
_CODE = ("crossns", "services", "gateway", "bench", "tools", "tests")
_FOLDERS = (*_CODE, "protos", "examples", "docs", "deploy", ".ci", "build/googleapis")
_CONFIGURATION = ("pyproject.toml", ".importlinter", "buf.yaml", "Makefile", "requirements.txt", "requirements-dev.txt")
_FILES = (*_CONFIGURATION, "README.md", "CHANGELOG.md")


@dataclass(frozen=True, slots=True)
class Mutant:
    """In `file`, the only place that reads `replace` becomes `by`; `caught_by` is a pytest node id, or `lint-imports`."""

    file: str
    replace: str
    by: str
    caught_by: str

    def __str__(self) -> str:
        return f"{self.file}: {' '.join(self.replace.split())[:50]!r} -> {' '.join(self.by.split())[:50]!r}"


def parse(text: str) -> list[Mutant]:
    """The mutants of one table; TypeError for a row with other fields."""
    return [Mutant(**row) for row in tomllib.loads(text)["mutant"]]


def mutated(text: str, mutant: Mutant) -> str:
    """The file's text after the mutation; ValueError where it does not fit exactly once."""
    places = text.count(mutant.replace)
    if places != 1 or mutant.replace == mutant.by:
        raise ValueError(f"{mutant}: the text stands {places} times in the file, once is wanted, and must change")
    return text.replace(mutant.replace, mutant.by)


@contextmanager
def copied() -> Iterator[Path]:
    """A copy of the tree for this run alone; below build/, since hard links do not leave a file system."""
    with TemporaryDirectory(dir=BUILD, prefix="mutants-") as folder:
        copy = Path(folder) / "crossns"
        for name in _FOLDERS:
            if (ROOT / name).exists():
                shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        for name in _FILES:
            if (ROOT / name).exists():
                shutil.copy2(ROOT / name, copy / name)
        shutil.copytree(ROOT / ".venv", copy / ".venv", symlinks=True, copy_function=os.link)
        yield copy


def is_caught(copy: Path, tests: Sequence[str]) -> tuple[bool, str]:
    """Whether one of the tests fails in the copy, and the output."""
    python = str(copy / ".venv/bin/python")
    checks = [[str(copy / ".venv/bin" / test), "--no-cache"] for test in tests if test == "lint-imports"]
    nodes = [test for test in tests if test != "lint-imports"]
    if nodes:
        checks.append([python, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *nodes])
    # Bytecode is compared by second and size: that of one mutant could stand in for the next.
    environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(copy)}
    output = ""
    for argv in checks:
        try:
            done = subprocess.run(argv, cwd=copy, env=environ, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            return True, f"{argv[0]}: no end within {TIMEOUT_S} s"
        output += done.stdout + done.stderr
        if done.returncode != 0:
            return True, output
    return False, output


def survives(copy: Path, mutant: Mutant) -> bool:
    """Whether nothing notices the mutation. A test that is not there, or was skipped, notices nothing."""
    path = copy / mutant.file
    original = path.read_text(encoding="utf-8")
    path.write_text(mutated(original, mutant), encoding="utf-8")
    try:
        caught, _ = is_caught(copy, [mutant.caught_by])
    finally:
        path.write_text(original, encoding="utf-8")
    return not caught


def main(part: str) -> int:
    mutants = [mutant for path in sorted(TABLES.glob("*.toml")) for mutant in parse(path.read_text(encoding="utf-8"))]
    chosen = [mutant for mutant in mutants if part in mutant.file]
    for mutant in chosen:
        mutated((ROOT / mutant.file).read_text(encoding="utf-8"), mutant)
    print(f"{len(chosen)} mutants; first the unchanged copy ...", flush=True)
    with copied() as copy:
        failed, output = is_caught(copy, sorted({mutant.caught_by for mutant in chosen}))
        if failed:
            print(output, "the unchanged tree fails already: nothing can be said about mutants", sep="\n")
            return 1
        survivors = 0
        for mutant in chosen:
            alive = survives(copy, mutant)
            survivors += alive
            print(f"{'SURVIVED' if alive else 'caught  '}  {mutant}  by {mutant.caught_by}", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} mutants caught")
    return 1 if survivors else 0


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:2] or [""]))
    except (ValueError, OSError) as error:
        sys.exit(f"mutants: {error}")
