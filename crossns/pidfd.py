"""Processes that are not our children, told from later ones of the same pid: pid with start time, held by a pidfd.

Called by the launcher, which re-adopts what it started in an earlier life, and by whoever must know whether it lives.
"""

import os
import signal
from pathlib import Path


def start_time(pid: int) -> int | None:
    """Start time in clock ticks since boot (proc(5), stat field 22); None for a process that is gone or a zombie."""
    try:
        # The command name may hold blanks and parentheses: fields are counted behind the last one.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def open_process(pid: int, started: int) -> int | None:
    """A pidfd of the very process; None when it is gone, also when its pid is another's by now."""
    if pid <= 0:
        return None
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return None
    # Read behind the open: the pidfd pins whoever has the pid now.
    if start_time(pid) == started:
        return fd
    os.close(fd)
    return None


def send(fd: int, number: signal.Signals) -> bool:
    """Signal the process; False when it has ended."""
    try:
        signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        return False
    return True


def reap(fd: int) -> int:
    """The exit status of an ended process as `waitstatus_to_exitcode` gives it; -1 unless it was our child."""
    try:
        result = os.waitid(os.P_PIDFD, fd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return -1
    if result is None:
        return -1
    return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status
