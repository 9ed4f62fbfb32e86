"""The suite's place on the device: its directories, and who runs it at present.

Called by the supervisor before anything starts, and by `crossns down` after everything has ended.
"""

import fcntl
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from crossns import errors
from crossns.etcd import embedded
from crossns.layout import Layout
from crossns.supervisor import jail, stack

# Held by the supervisor as long as it runs, and by `down`; its text is the holder's pid.
_LOCK = "supervisor.lock"


def prepare(wanted: stack.Stack, layout: Layout) -> None:
    """Make the directories with owners and modes. Idempotent."""
    for path in (layout.run, layout.state):
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
    if any(process.embedded for process in wanted.processes):
        embedded.prepare(layout)
    for directory in wanted.directories:
        directory.path.mkdir(parents=True, exist_ok=True)
        uid = layout.uid(directory.user) if directory.user else 0
        os.chown(directory.path, uid, jail.gid(directory.group, layout) if directory.group else 0)
        directory.path.chmod(directory.mode)


@contextmanager
def held(layout: Layout) -> Iterator[None]:
    """Be the only one to run or take down the suite here; FailedPrecondition names the process that is."""
    if os.geteuid() != 0:
        raise errors.PermissionDenied(
            "PERMISSION_DENIED", "it makes namespaces and starts processes under their own uids: run it as root"
        )
    layout.run.mkdir(mode=0o755, parents=True, exist_ok=True)
    with open(layout.run / _LOCK, "a+", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = holder(layout)
            message = f"crossns runs here already (pid {pid}): stop it with Ctrl-C there, or with `crossns down`"
            raise errors.FailedPrecondition("ALREADY_EXISTS", message, pid=pid) from error
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def holder(layout: Layout) -> int:
    """Pid of the supervisor that runs here; 0 where none does."""
    try:
        with open(layout.run / _LOCK, encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return 0
    except BlockingIOError:
        return int((layout.run / _LOCK).read_text(encoding="ascii") or 0)
    return 0


def end(pid: int) -> None:
    """Ask a supervisor to stop."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)


def remove(layout: Layout, *, purge: bool) -> None:
    """Remove the run directory, and with `purge` the state too. Nothing of the suite may run any more."""
    shutil.rmtree(layout.run, ignore_errors=True)
    if purge:
        shutil.rmtree(layout.state, ignore_errors=True)
