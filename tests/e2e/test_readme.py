"""The README's commands, run as they stand there: an operator who copies them gets what it says."""

import shlex
import subprocess

import pytest

from tests import readme

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


def _step(command: str) -> str:
    """A line of shell that runs a command and names it where it fails."""
    if command in readme.ENDLESS:
        command = f"timeout --preserve-status --signal=INT 2 {command} || [ $? -eq 130 ]"
    failed = shlex.quote(f"FAILED: {command}")
    return f"echo {shlex.quote(f'+ {command}')}; {{ {command}; }} </dev/null || {{ echo {failed}; exit 1; }}"


def test_every_command_that_needs_the_suite_succeeds() -> None:
    commands = [
        command for command in readme.commands(readme.README.read_text(encoding="utf-8")) if readme.needs_the_suite(command)
    ]
    script = "\n".join(_step(command) for command in commands)
    up = [".venv/bin/crossns", "up", "--quiet", "--", "sh", "-c", script]
    done = subprocess.run(up, cwd=readme.ROOT, capture_output=True, text=True, check=False)
    down = subprocess.run([".venv/bin/crossns", "down", "--purge"], cwd=readme.ROOT, capture_output=True, text=True, check=False)
    assert commands
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert down.returncode == 0, down.stderr
