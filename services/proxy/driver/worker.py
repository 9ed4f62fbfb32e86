"""Which processes HAProxy has, as its master says: the worker that accepts connections, and those that a reload replaced.

Called by `counting`, which tells `retirement`, and by `ending`. Without a current worker it is not said which were replaced: one
that still serves alone must never be taken for one of them.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from crossns import errors
from services.proxy.driver import master

_PROCESS = re.compile(r"^(\d+)\s+(master|worker)\s+\d.*?\s(\d+)d(\d+)h(\d+)m(\d+)s", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Processes:
    """Pids. The current worker started `age_s` ago; `old` are the workers from before reloads, which have not ended yet."""

    master: int
    current: int
    old: tuple[int, ...]
    age_s: float


async def look(path: Path) -> Processes:
    return parse(await master.ask(path, ["show proc"]))


async def look_at_all(path: Path) -> tuple[int, ...]:
    """The pids of all workers, whichever is the current one: behind a reload that was refused there is none."""
    return tuple(int(pid) for pid, kind, *_ in _PROCESS.findall(await master.ask(path, ["show proc"])) if kind == "worker")


def parse(text: str) -> Processes:
    """`show proc`; EngineUnavailable where there is no current worker."""
    now, _, before = text.partition("# old workers")
    found = {kind: (int(pid), [int(each) for each in age]) for pid, kind, *age in reversed(_PROCESS.findall(now))}
    if "worker" not in found or "master" not in found:
        raise errors.EngineUnavailable("ENGINE_UNAVAILABLE", "HAProxy has no worker")
    current, (days, hours, minutes, seconds) = found["worker"]
    age_s = float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
    old = tuple(int(pid) for pid, kind, *_ in _PROCESS.findall(before) if kind == "worker")
    return Processes(found["master"][0], current, old, age_s)
