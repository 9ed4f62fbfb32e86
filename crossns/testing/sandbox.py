"""A machine within the machine: private network, mounts and processes, in which even the route table `default` is a throwaway.

`python -m crossns.testing.sandbox COMMAND...` runs COMMAND there; the CLI and the tests call `enter`. Nothing outside
changes: /run is a tmpfs, directories that the suite writes to lie on overlays in memory, the only link is `lo`. The process
that called `enter` waits outside; when it dies, by SIGKILL too, the kernel ends everything inside with it.
"""

import ctypes
import fcntl
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from crossns import errors
from crossns.layout import Layout

# Tells those inside where they are: the mount namespace, so that a variable that leaked out of a sandbox proves nothing.
VARIABLE = "CROSSNS_SANDBOX"
# What could lead from the sandbox back to a real device.
_LEADING_OUT = ("CROSSNS_RUN_DIR", "CROSSNS_STATE_DIR", "CROSSNS_NETNS_DIR", "CROSSNS_ETCD", "CROSSNS_SERVER")
# Written to by the suite, and not below /run.
_PRIVATE = (Layout().state, Path("/etc/netns"))

_CLONE_NEWNS, _CLONE_NEWPID, _CLONE_NEWNET = 0x00020000, 0x20000000, 0x40000000
_MS_REC, _MS_PRIVATE, _MNT_DETACH = 0x4000, 0x40000, 0x2
_PR_SET_PDEATHSIG = 1
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1
# A signal that the terminal sent has reached every process of the foreground group already (sigaction(2)).
_SI_KERNEL = 0x80
_FORWARDED = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT}

_libc = ctypes.CDLL(None, use_errno=True)


def is_inside() -> bool:
    """Whether this process runs in a sandbox."""
    try:
        return VARIABLE in os.environ and os.environ[VARIABLE] == os.readlink("/proc/1/ns/mnt")
    except PermissionError:
        # The machine's own first process, which not even root may look at everywhere.
        return False


def enter(argv: Sequence[str]) -> NoReturn:
    """Run `argv` in a new sandbox and exit with its status. Call it from the main thread, before others exist."""
    if os.geteuid() != 0:
        raise errors.PermissionDenied("PERMISSION_DENIED", "the sandbox makes namespaces: run it as root")
    sys.stdout.flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED | {signal.SIGCHLD})
    _call("unshare", _CLONE_NEWPID)
    os._exit(_wait(_fork(lambda: _init(argv))))


def _init(argv: Sequence[str]) -> int:
    """The first process inside: prepares the place, then reaps whatever is orphaned until the command ends."""
    _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL)
    _call("unshare", _CLONE_NEWNS | _CLONE_NEWNET)
    _make_mounts()
    _bring_up_loopback()
    return _wait(_fork(lambda: _exec(argv)))


def _exec(argv: Sequence[str]) -> NoReturn:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED | {signal.SIGCHLD})
    # Python ignores it, and what is ignored stays so across exec.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    environ = {key: value for key, value in os.environ.items() if key not in _LEADING_OUT}
    os.execvpe(argv[0], list(argv), environ | {VARIABLE: os.readlink("/proc/1/ns/mnt")})


def _wait(child: int) -> int:
    """Pass signals on to `child` and reap until it has ended; its exit status as a shell has it."""
    while True:
        received = signal.sigwaitinfo(_FORWARDED | {signal.SIGCHLD})
        if received.si_signo != signal.SIGCHLD:
            if received.si_code != _SI_KERNEL:
                os.kill(child, received.si_signo)
            continue
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
            if pid == 0:
                break


def _make_mounts() -> None:
    _mount("none", "/", "", _MS_REC | _MS_PRIVATE)
    _mount("proc", "/proc", "proc")
    _cover(Path("/run"))
    for path in _PRIVATE:
        if not path.is_dir():
            _overlay(path.parent)
            path.mkdir()
        _cover(path)


def _cover(directory: Path) -> None:
    """Put an empty file system in the place of `directory`. Mounts of the machine's own suite below it would still be listed, and
    taken for ours, so they go first; here only, because nothing propagates from here."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()]
    for point in reversed(points):
        if Path(point).is_relative_to(directory):
            _call("umount2", point.encode(), _MNT_DETACH)
    _mount("tmpfs", str(directory), "tmpfs", data="mode=755")


def _overlay(directory: Path) -> None:
    """Let `directory` be written to without a trace."""
    layers = Path("/run/overlay") / directory.name
    for layer in ("upper", "work"):
        (layers / layer).mkdir(parents=True)
    _mount("overlay", str(directory), "overlay", data=f"lowerdir={directory},upperdir={layers}/upper,workdir={layers}/work")


def _bring_up_loopback() -> None:
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))


def _mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    _call("mount", source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), data.encode() or None)


def _call(function: str, *arguments: object) -> None:
    if _libc[function](*arguments) != 0:
        number = ctypes.get_errno()
        shown = " ".join(str(argument) for argument in arguments)
        raise OSError(number, f"{function} {shown}: {os.strerror(number)}")


def _fork(run: Callable[[], int]) -> int:
    """Pid of a child that exits with what `run` returns; nothing of it comes back up the caller's stack."""
    child = os.fork()
    if child:
        return child
    status = 126
    try:
        status = run()
    except OSError as error:
        sys.stderr.write(f"crossns: sandbox: {error}\n")
    finally:
        os._exit(status)


if __name__ == "__main__":
    enter(sys.argv[1:])
