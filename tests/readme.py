"""The commands of README.md, and where each is tested: a command that nobody runs is a promise that nobody keeps.

Called by tests/unit/test_readme.py, which demands that every command has its place, and tests/e2e/test_readme.py, which runs
those that need the suite, in the order in which they stand.
"""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
# Begins a command that is run in the sandbox with the suite up.
COMMAND = ".venv/bin/crossns "
# What brings the suite up in the foreground: the runner has done that before.
UP = ("make up", ".venv/bin/crossns up")
# Run until they are stopped.
ENDLESS = (".venv/bin/crossns watch",)
# Command -> the test that runs it elsewhere.
ELSEWHERE = {
    "make": "tests/e2e/test_setup.py::test_make_prints_help",
    "make setup": "tests/e2e/test_setup.py::test_second_set_up_does_nothing_and_is_quick",
    "make demo": "tests/e2e/test_demo.py",
    ".venv/bin/crossns demo": "tests/e2e/test_demo.py",
    # Those that this very run is made of, and those that would run it again: continuous integration has them.
    "make test": ".ci/run",
    "make verify": ".ci/run",
    "make test-long": "Makefile",
    "make bench": "Makefile",
    "make mutants": "Makefile",
}


def commands(text: str) -> list[str]:
    """Every command of the blocks marked `console` (after `$ ` or `# `) and `sh` (every line but comments)."""
    found = []
    for kind, block in re.findall(r"^ *```(console|sh)\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            prompt = re.match(r"\s*[$#] (.*)", line) if kind == "console" else re.match(r"\s*([^#\s].*)", line)
            if prompt:
                found.append(" ".join(re.sub(r"\s#.*", "", prompt[1]).split()))
    return found


def needs_the_suite(command: str) -> bool:
    return command.startswith(COMMAND) and command not in (*UP, *ELSEWHERE)


def uncovered(text: str) -> list[str]:
    """Commands that no test runs."""
    return [command for command in commands(text) if not needs_the_suite(command) and command not in (*UP, *ELSEWHERE)]
