"""Small files that survive the launcher: written whole or not at all, private to root.

Called by whatever must be found again after a crash: the fence, agents, engines, an unfinished mount.
"""

import contextlib
import fcntl
import os
from pathlib import Path
from typing import TypeVar

import msgspec

from crossns import pidfd

_CLAIM_SIZE = 64
R = TypeVar("R")


def write(path: Path, record: msgspec.Struct) -> None:
    """Put `record` in place of what stood there; a crash leaves the old or the new one. Survives processes, not the machine."""
    write_bytes(path, msgspec.json.encode(record))


def write_bytes(path: Path, content: bytes, *, mode: int = 0o600, gid: int = 0) -> None:
    """The same for any content; `gid` may read it where `mode` says so."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(fd, "wb") as file:
        file.write(content)
        os.fchown(fd, 0, gid)
        os.fchmod(fd, mode)
    fresh.replace(path)


def read(path: Path, kind: type[R]) -> R | None:
    """The record; None where there is none. A file that is none of ours raises: it is not ours to throw away."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    # An agent that was killed before it wrote.
    return msgspec.json.decode(content, type=kind) if content else None


def remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


class Process(msgspec.Struct, frozen=True):
    """A process as `pidfd` finds it again; `restarts`: how many stood in its place before, where somebody counts them."""

    pid: int
    started: int
    restarts: int = 0


def claim(path: Path, restarts: int = 0) -> Process | None:
    """Record this process in `path` and hold it for as long as the process lives; None where another living one does."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    process = Process(os.getpid(), pidfd.start_time(os.getpid()) or 0, restarts)
    # In place, for the lock is on this file, and at one size, so that a reader sees the old record or the new one.
    os.pwrite(fd, msgspec.json.encode(process).ljust(_CLAIM_SIZE), 0)
    return process


def find(path: Path) -> tuple[Process, int] | None:
    """The living process that a record names, with a pidfd of it."""
    known = read(path, Process)
    fd = pidfd.open_process(known.pid, known.started) if known else None
    return (known, fd) if known and fd is not None else None
