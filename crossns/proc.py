"""Starts programs: the only place that does (import-linter holds that), with fixed argv and never a shell's interpretation.

Called by the supervisor, the lab and the command line. What is started leads a session of its own, so that a terminal's Ctrl-C
reaches only who asked, and what is run to its end never outlives the call: cancelled or out of time, its whole group is killed.
"""

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crossns import errors

__all__ = ["PIPE", "Completed", "Process", "foreground", "kill", "run", "start"]

TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Completed:
    """A program that has ended. `status` is its exit status, negative the signal that ended it."""

    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str

    def check(self) -> "Completed":
        """Itself if it succeeded; PermanentError with the program's last words otherwise."""
        if self.status != 0:
            lines = (self.stderr or self.stdout).strip().splitlines()
            words = errors.bounded(lines[-1]) if lines else f"status {self.status}"
            raise errors.PermanentError("KERNEL_REFUSED", f"{' '.join(self.argv[:6])}: {words}", status=self.status)
        return self


async def start(
    argv: Sequence[str],
    *,
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
    umask: int = -1,
    output: int | None = PIPE,
) -> Process:
    """A running program. Its stdout and stderr go to the file descriptor `output`; None leaves them the caller's."""
    return await asyncio.create_subprocess_exec(
        *argv,
        stdin=DEVNULL,
        stdout=output,
        stderr=output if output is None else STDOUT,
        env=environ,
        cwd=directory,
        umask=umask,
        start_new_session=True,
    )


async def run(
    argv: Sequence[str],
    *,
    stdin: str = "",
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Completed:
    """Run a program to its end; DeadlineExceeded when it takes longer than `timeout_s`."""
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environ, cwd=directory, start_new_session=True
    )
    try:
        async with asyncio.timeout(timeout_s):
            stdout, stderr = await process.communicate(stdin.encode())
    except TimeoutError as error:
        message = f"{' '.join(argv[:6])} was still running after {timeout_s:g} s"
        raise errors.DeadlineExceeded("DEADLINE_EXCEEDED", message) from error
    finally:
        kill(process)
    status = process.returncode if process.returncode is not None else -signal.SIGKILL
    return Completed(tuple(argv), status, stdout.decode(errors="replace"), stderr.decode(errors="replace"))


async def foreground(argv: Sequence[str], *, environ: Mapping[str, str] | None = None) -> int:
    """Run a program on the caller's terminal; its exit status as a shell has it, 127 where there is no such program."""
    try:
        process = await asyncio.create_subprocess_exec(*argv, env=environ)
    except FileNotFoundError:
        return 127
    try:
        status = await process.wait()
    except asyncio.CancelledError:
        process.terminate()
        raise
    return status if status >= 0 else 128 - status


def kill(process: Process, number: signal.Signals = signal.SIGKILL) -> None:
    """Signal a program that still runs, and what it has started in its session."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
