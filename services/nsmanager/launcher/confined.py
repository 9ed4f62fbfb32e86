"""Starts programs under a uid of their own, in no route table, with a /run/netns that shows each namespace by incarnation.

Called by `engine` and `check`. The child keeps two ambient capabilities, what `seccomp` leaves of them, and can gain nothing;
it records itself before it turns into the program, so that a launcher that dies in between finds it again.
"""

import contextlib
import os
import re
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from crossns import netns, pidfd
from crossns.layout import Layout
from services.nsmanager.launcher import records, seccomp

_SETPRIV = "/usr/bin/setpriv"
# HAProxy looks up `namespace NAME` here, a symbolic link on most machines.
_LOOKED_UP = Path("/var/run/netns")
_CAPABILITIES = ("sys_admin", "net_bind_service")
_ENVIRON = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
# Exit status where it did not come to the program.
FAILED = 127


@dataclass(frozen=True, slots=True)
class Program:
    """What to run and where it is recorded (None: it is short-lived, we reap it). `output` takes stdout and stderr."""

    argv: Sequence[str]
    uid: int
    record: Path | None = None
    output: int | None = None


def start(program: Program, layout: Layout) -> int:
    """The pid of the program's process, which leads a session of its own."""
    launcher = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        _become(program, layout, launcher)
    except BaseException as error:  # noqa: BLE001 - nothing may return into the launcher's code from here
        with contextlib.suppress(OSError):
            os.write(program.output or 2, f"cannot start {program.argv[0]}: {error}\n".encode())
    os._exit(FAILED)


def _become(program: Program, layout: Layout, launcher: int) -> None:
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for standard in (1, 2):
        os.dup2(2 if program.output is None else program.output, standard)
    os.chdir("/")
    # A network of its own that leads nowhere: what an engine opens outside of the route tables reaches nobody.
    netns.unshare(netns.CLONE_NEWNS | netns.CLONE_NEWNET)
    # What the launcher mounts later still appears; nothing goes the other way.
    netns.mount(None, Path("/"), netns.MS_REC | netns.MS_SLAVE)
    netns.mount(layout.incarnations, _LOOKED_UP.resolve(), netns.MS_BIND | netns.MS_REC)
    if program.record:
        started = pidfd.start_time(os.getpid())
        records.write(program.record, records.Process(os.getpid(), started or 0))
    if os.getppid() != launcher:
        # Its next life knows nothing of this process, or is about to start one of its own.
        sys.exit(FAILED)
    seccomp.confine()
    os.execve(_SETPRIV, [*_privileges(program.uid), *program.argv], _ENVIRON)


def _privileges(uid: int) -> list[str]:
    kept = ",".join(f"+{name}" for name in _CAPABILITIES)
    return [
        *(_SETPRIV, f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--no-new-privs"),
        *(f"--inh-caps=-all,{kept}", f"--ambient-caps=-all,{kept}", f"--bounding-set=-all,{kept}", "--"),
    ]


def session_members(leader: records.Process, uid: int) -> list[records.Process]:
    """`leader`, and the processes of `uid` in the session that it began: workers may outlive their master."""
    found = (_member(int(entry), leader, uid) for entry in os.listdir("/proc") if entry.isdecimal())
    return [leader, *(member for member in found if member)]


def _member(pid: int, leader: records.Process, uid: int) -> records.Process | None:
    try:
        session = os.getsid(pid)
        owner = re.search(r"^Uid:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(errors="replace"), re.MULTILINE)
    except (FileNotFoundError, ProcessLookupError):
        return None
    started = pidfd.start_time(pid)
    # A session's id is not given away while a member lives, but it is once none does.
    if session != leader.pid or not owner or int(owner[1]) != uid or started is None or started < leader.started:
        return None
    return records.Process(pid, started)
