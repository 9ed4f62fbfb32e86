"""What a test may not leave behind: processes, network namespaces, mounts, file descriptors.

Called by conftest around every test that runs in the sandbox, around its module and around the whole run. Things are counted
by what they are, not by their ids: an engine that was started again is no leak, a second one is.
"""

import gc
import os
import re
import time
from collections import Counter
from pathlib import Path

# The kernel takes namespaces and processes away a little after their last user has gone.
SETTLE_S = 5.0
_POLL_S = 0.02

Census = Counter[str]


def census() -> Census:
    """Everything of this sandbox that can leak, as counts of words for people."""
    return _processes() + _namespaces() + _mounts() + _descriptors()


def left_since(before: Census) -> Census:
    """What there is more of than `before`, once things have settled; empty as soon as nothing is."""
    deadline = time.monotonic() + SETTLE_S
    while left := census() - before:
        if time.monotonic() > deadline:
            return left
        gc.collect()
        time.sleep(_POLL_S)
    return left


def _pids() -> list[Path]:
    return [path for path in Path("/proc").iterdir() if path.name.isdecimal() and not _is_kept_by_its_zygote(path)]


def _is_kept_by_its_zygote(path: Path) -> bool:
    """A spare: there are as many as the zygote has had time for. One that has lost its zygote is a leak as any other."""
    try:
        if (path / "comm").read_text() != "spare\n":
            return False
        parent = (path / "stat").read_text().rpartition(")")[2].split()[1]
        return (path / "cmdline").read_bytes() == Path(f"/proc/{parent}/cmdline").read_bytes()
    except OSError:
        return False


def _processes() -> Census:
    found: Census = Counter()
    for path in _pids():
        try:
            command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            name, _, rest = (path / "stat").read_text().partition("(")[2].rpartition(")")
            state = rest.split()[0]
        except OSError:
            continue
        # One that nobody has reaped has no command line; neither has one that is just being executed.
        # By name too: what a zygote forks has its command line.
        found[f"process: {f'{name}: {command[:120]}' if command else 'zombie' if state == 'Z' else 'starting'}"] += 1
    return found


def _namespaces() -> Census:
    """Network namespaces that a process is in, or that are mounted somewhere."""
    seen = set()
    for path in _pids():
        try:
            seen.add(os.readlink(path / "ns/net"))
        except OSError:
            continue
    mounted = re.findall(r"(net:\[\d+\])", Path("/proc/self/mountinfo").read_text())
    return Counter({"network namespace": len(seen | set(mounted))})


def _mounts() -> Census:
    points = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    # A table's second mount has the namespace's cookie in its name. `ip netns` makes /run/netns a mount and leaves it so.
    return Counter(f"mount: {re.sub('[.][0-9]+$', '', point)}" for point in points if point != "/run/netns")


def _descriptors() -> Census:
    found: Census = Counter()
    for path in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(path)
        except OSError:
            continue
        # The listing's own descriptor, and numbers that never repeat. gRPC lets go of a poller (these two) when it next polls; an
        # event loop that was left open shows by its sockets.
        if not target.startswith("/proc/") and target not in ("anon_inode:[eventpoll]", "anon_inode:[eventfd]"):
            found[f"file descriptor: {target.split(':[')[0]}"] += 1
    return found
