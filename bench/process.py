"""The suite's processes as the kernel accounts for them: memory that is theirs, and time on the processor.

Called by `bench.ground`, inside the sandbox, where every process that is named like one of ours is ours.
"""

import os
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from crossns.testing import device


def running() -> Mapping[str, list[int]]:
    """Pids by kind of process; the agents of all tables are of one kind."""
    found = defaultdict(list)
    for pid, name in device.processes().items():
        found["agent" if name.startswith("agent-") else name].append(pid)
    return found


def pss_mb(pid: int) -> float:
    """Proportional set size: shared pages counted by share (proc(5))."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    (kilobytes,) = re.findall(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return int(kilobytes) / 1024


def cpu_s(pid: int) -> float:
    """Seconds on a processor so far, of all threads. From schedstat, because stat counts in hundredths of a second."""
    spent_ns = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        spent_ns += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text(encoding="ascii").split()[0])
    return spent_ns / 1e9
