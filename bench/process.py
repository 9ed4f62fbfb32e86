"""The suite's processes as the kernel accounts for them: memory that is theirs, and time on the processor.

Called by `bench.ground`, inside the sandbox: every process there that looks like one of ours is ours.
"""

import os
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

# Name -> what its command line matches; the first that does. An agent is a forked child: it keeps its parent's command line.
_KINDS = {
    "etcd": r"^\S*etcd ",
    "haproxy": r"^\S*haproxy ",
    "launcher": r"services\.nsmanager\.launcher",
    "agent": r"services\.nsmanager\.agent",
    "nsmanager": r"services\.nsmanager(\s|$)",
    "proxy": r"services\.proxy(\s|$)",
    "gateway": r"-m gateway(\s|$)",
}


def running() -> Mapping[str, list[int]]:
    """Pids by kind of process."""
    found = defaultdict(list)
    for path in Path("/proc").iterdir():
        if path.name.isdecimal() and (kind := _kind(path)):
            found[kind].append(int(path.name))
    return found


def _kind(process: Path) -> str | None:
    try:
        command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return None
    # `unshare ... setpriv ... python -m services.x` execs on; what is seen is the last one. A shell that waits is none of ours.
    return next((kind for kind, pattern in _KINDS.items() if re.search(pattern, command)), None)


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
