"""The processes of the device, and sockets that they hold in other network namespaces than their own.

Called by `survey`, which may look into every process. A socket tells its namespace itself (SO_NETNS_COOKIE): each is shared for a
moment (pidfd_getfd(2)) and let go, neither read from nor written to.
"""

import ctypes
import os
import socket
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from crossns import netns, proof

# The same on all architectures (asm-generic/unistd.h).
_PIDFD_GETFD = 438
# Those whose power ends with the namespace. A unix socket's does not.
_FAMILIES = {socket.AF_INET: "IPv4", socket.AF_INET6: "IPv6", socket.AF_PACKET: "packet", socket.AF_NETLINK: "netlink"}
_KINDS = {socket.SOCK_STREAM: "TCP", socket.SOCK_DGRAM: "UDP", socket.SOCK_RAW: "raw"}
# As what an open namespace shows: of itself, or the place where it is, or was ("/"), mounted.
_NAMED_AS = ("net:[", "/run/", "/var/run/")
_OWN = Path("/proc/self/ns/net")
# So many sockets of one namespace are told of a process.
_TOLD_MAX = 3

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Process:
    """`namespace` and `mounts` are the inodes of its network and mount namespaces."""

    pid: int
    name: str
    uid: int
    namespace: int
    mounts: int


@dataclass(slots=True)
class Held:
    """`sockets`: pid -> cookie of a namespace -> what is held there; `namespaces`: those that a process holds open, by inode."""

    sockets: dict[int, dict[int, list[str]]] = field(default_factory=dict)
    namespaces: dict[int, Path] = field(default_factory=dict)
    hidden: set[int] = field(default_factory=set)


def processes() -> Iterator[Process]:
    for path in Path("/proc").iterdir():
        if not path.name.isdecimal():
            continue
        try:
            status = dict(
                line.split(":\t", 1) for line in (path / "status").read_text(errors="replace").splitlines() if ":\t" in line
            )
            inodes = [(path / "ns" / kind).stat().st_ino for kind in ("net", "mnt")]
        except (FileNotFoundError, ProcessLookupError):
            continue
        except PermissionError:
            inodes = [0, 0]
        yield Process(int(path.name), status["Name"], int(status["Uid"].split()[1]), *inodes)


def look(found: list[Process]) -> Held:
    held = Held()
    for each in found:
        try:
            _look_into(each.pid, held)
        except (FileNotFoundError, ProcessLookupError):
            continue
        except PermissionError:
            held.hidden.add(each.pid)
    return held


def holder(process: Process, held: Held, by_cookie: dict[int, int]) -> proof.Holder | None:
    """What of `held` is the process's in other namespaces than its own; None where nothing is. `by_cookie`: cookie -> inode."""
    sockets = {
        by_cookie[cookie]: tuple(words)
        for cookie, words in held.sockets.get(process.pid, {}).items()
        if by_cookie.get(cookie, process.namespace) != process.namespace
    }
    if not sockets:
        return None
    return proof.Holder(pid=process.pid, name=process.name, namespace=process.namespace, sockets=sockets)


def _look_into(pid: int, held: Held) -> None:
    directory = Path(f"/proc/{pid}/fd")
    pidfd = -1
    by_cookie: defaultdict[int, list[str]] = defaultdict(list)
    try:
        for number in os.listdir(directory):
            target = _target(directory / number)
            if target == "/" or target.startswith(_NAMED_AS):
                _note_namespace(directory / number, held)
            elif target.startswith("socket:["):
                pidfd = os.pidfd_open(pid) if pidfd < 0 else pidfd
                _note(pidfd, int(number), by_cookie)
    finally:
        if pidfd >= 0:
            os.close(pidfd)
    held.sockets[pid] = by_cookie


def _target(path: Path) -> str:
    try:
        return os.readlink(path)
    except FileNotFoundError:
        # Closed meanwhile.
        return ""


def _note_namespace(path: Path, held: Held) -> None:
    try:
        seen, own = path.stat(), _OWN.stat()
    except OSError:
        # Closed meanwhile.
        return
    # Those of other kinds are in the same file system, and told apart where they are opened.
    if seen.st_dev == own.st_dev:
        held.namespaces.setdefault(seen.st_ino, path)


def _note(pidfd: int, number: int, by_cookie: dict[int, list[str]]) -> None:
    fd = _libc.syscall(_PIDFD_GETFD, pidfd, number, 0)
    if fd < 0:
        code = ctypes.get_errno()
        error = OSError(code, f"pidfd_getfd: {os.strerror(code)}")
        if isinstance(error, PermissionError | ProcessLookupError):
            raise error
        # Closed meanwhile.
        return
    with socket.socket(fileno=fd) as taken:
        if taken.family in _FAMILIES:
            words = by_cookie[netns.cookie_of(taken)]
            if len(words) < _TOLD_MAX:
                words.append(_words(taken))


def _words(taken: socket.socket) -> str:
    """`TCP 10.0.0.1:80`, `UDP [::]:53`, `netlink`."""
    if taken.family not in (socket.AF_INET, socket.AF_INET6):
        return _FAMILIES[taken.family]
    kind = _KINDS.get(taken.type, str(taken.type))
    address, port = taken.getsockname()[:2]
    return f"{kind} [{address}]:{port}" if ":" in address else f"{kind} {address}:{port}"
