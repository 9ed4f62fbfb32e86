"""The suite's processes as the kernel accounts for them: memory that is theirs, and time on the processor.

Called by `bench.ground`, `bench.tables` and `bench.vservice`, inside the sandbox.
"""

import contextlib
import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from crossns import settings
from crossns.cli import processes


def by_kind() -> Mapping[str, list[processes.Process]]:
    """The processes of the suite here; the agents of all tables are of one kind, the supervisor is left out."""
    found = defaultdict(list)
    for process in processes.find(settings.from_environ(os.environ).layout):
        kind = process.name.partition(" ")[0]
        if kind != "supervisor":
            found[kind].append(process)
    return found


def service_pid(service: str) -> int | None:
    """The process of a service, found without a look at anybody's memory; None while there is none."""
    uid = settings.from_environ(os.environ).layout.uid(service)
    for entry in os.scandir("/proc"):
        with contextlib.suppress(FileNotFoundError):
            if entry.name.isdecimal() and entry.stat().st_uid == uid:
                return int(entry.name)
    return None


def cpu_s(pid: int) -> float:
    """Seconds on a processor so far, of all threads. From schedstat, because stat counts in hundredths of a second."""
    spent_ns = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        spent_ns += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text(encoding="ascii").split()[0])
    return spent_ns / 1e9
