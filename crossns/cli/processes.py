"""The suite's processes on this device, as /proc shows them: who, since when, and what memory is theirs.

Called by `status`. Processes are known by the uid block of the layout and by what the privileged ones are called.
"""

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from crossns.layout import Layout
from crossns.supervisor import place

_PROC = Path("/proc")
_LAUNCHER, _AGENT = b"services.nsmanager.launcher", b"services.nsmanager.agent"
# Agents name themselves so (comm, prctl(2)), and while they wait for a table; the process that they are forked from does not.
_AGENT_NAME, _SPARE_NAME = "agent-", "spare"
_ORDER = ("supervisor", "etcd", "launcher", "zygote", "spare", "agent", "nsmanager", "proxy", "haproxy", "gateway")


@dataclass(frozen=True, slots=True)
class Process:
    """`pss_bytes` is its proportional share of memory; None where we may not look."""

    name: str
    pid: int
    up_s: float
    pss_bytes: int | None


def find(layout: Layout) -> list[Process]:
    """All of them, services after what they need."""
    tables = _tables(layout)
    supervisor = place.holder(layout)
    found = []
    for entry in _PROC.iterdir():
        if entry.name.isdecimal():
            try:
                name = "supervisor" if int(entry.name) == supervisor else _name(entry, layout, tables)
                if name:
                    found.append(Process(name, int(entry.name), _up_s(entry), _pss_bytes(entry)))
            except (FileNotFoundError, ProcessLookupError):
                # Ended while we looked.
                continue
    return sorted(found, key=lambda process: (_ORDER.index(process.name.partition(" ")[0]), process.name, process.pid))


def _tables(layout: Layout) -> Mapping[int, str]:
    """Namespace inode -> route table."""

    def pairs() -> Iterator[tuple[int, str]]:
        for path in layout.netns.iterdir() if layout.netns.is_dir() else ():
            yield path.stat().st_ino, path.name

    return dict(pairs())


def _name(entry: Path, layout: Layout, tables: Mapping[int, str]) -> str:
    """What the process is in the suite; "" for a stranger."""
    uid = entry.stat().st_uid
    if uid != 0:
        return layout.process_of(uid) or ""
    words = (entry / "cmdline").read_bytes().split(b"\0")
    if _LAUNCHER in words:
        return "launcher"
    if _AGENT not in words:
        return ""
    comm = (entry / "comm").read_text(encoding="utf-8", errors="replace").strip()
    if comm == _SPARE_NAME:
        return "spare"
    if not comm.startswith(_AGENT_NAME):
        return "zygote"
    try:
        return f"agent {tables.get((entry / 'ns/net').stat().st_ino, 'default')}"
    except PermissionError:
        return f"agent {comm.removeprefix(_AGENT_NAME)}"


def _up_s(entry: Path) -> float:
    """Field 22 of stat(5): when it started, in clock ticks after boot."""
    started = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(started) / os.sysconf("SC_CLK_TCK")


def _pss_bytes(entry: Path) -> int | None:
    try:
        lines = (entry / "smaps_rollup").read_text(encoding="ascii").splitlines()
    except PermissionError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), None)
