"""The processes of the device, thread by thread: each may be in namespaces of its own, and have files of its own.

Called by `survey` and `holders`. Whatever ends while it is looked at is left out.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Thread:
    """`namespace` and `mounts` are the inodes of its network and mount namespaces, 0 where they may not be known."""

    id: int
    namespace: int
    mounts: int


@dataclass(frozen=True, slots=True)
class Process:
    """`threads`: those that live, the oldest first: it may have ended before the others."""

    pid: int
    name: str
    uid: int
    threads: tuple[Thread, ...]

    @property
    def namespace(self) -> int:
        return self.threads[0].namespace


def processes() -> Iterator[Process]:
    for entry in os.listdir("/proc"):
        if entry.isdecimal() and (found := _process(int(entry))) is not None:
            yield found


def _process(pid: int) -> Process | None:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
        ids = map(int, os.listdir(f"/proc/{pid}/task"))
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    ordered = sorted(ids, key=lambda thread: (thread != pid, thread))
    threads = tuple(thread for each in ordered if (thread := _thread(pid, each)) is not None)
    return Process(pid, fields["Name"], int(fields["Uid"].split()[1]), threads) if threads else None


def _thread(pid: int, thread: int) -> Thread | None:
    directory = Path(f"/proc/{pid}/task/{thread}/ns")
    try:
        return Thread(thread, *((directory / kind).stat().st_ino for kind in ("net", "mnt")))
    except (FileNotFoundError, ProcessLookupError):
        return None
    except PermissionError:
        return Thread(thread, 0, 0)
