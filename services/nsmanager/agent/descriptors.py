"""What a descriptor of some process is to the network: the namespace that it works in, and what it is, for people.

Called by `holders`. Whatever belongs to a network namespace tells so itself: a socket of any family (SIOCGSKNS), an open
/dev/net/tun (TUNGETDEVNETNS). It is shared for a moment and let go, neither read from nor written to.
"""

import ctypes
import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from services.nsmanager.agent.processes import Thread

# The same on all architectures (asm-generic/unistd.h).
_PIDFD_GETFD = 438
# Of one thread, which may have files of its own; since Linux 6.9 (linux/pidfd.h).
_PIDFD_THREAD = os.O_EXCL
# linux/sockios.h, linux/if_tun.h
_SIOCGSKNS, _TUNGETDEVNETNS = 0x894C, 0x54E3
# asm-generic/socket.h
_SO_PROTOCOL, _SO_DOMAIN = 38, 39
_FAMILIES = {socket.AF_PACKET: "packet", socket.AF_NETLINK: "netlink", 44: "AF_XDP"}
# linux/in.h
_PROTOCOLS = {1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPv6", 132: "SCTP", 262: "MPTCP"}

_libc = ctypes.CDLL(None, use_errno=True)


class Files:
    """The file table of a thread, as (number, what it shows). Close it."""

    def __init__(self, pid: int, thread: Thread) -> None:
        self._directory = Path(f"/proc/{pid}/task/{thread.id}")
        self._pid, self._thread = pid, thread.id
        self._pidfd = -1

    def close(self) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)

    def listed(self) -> Iterator[tuple[str, str]]:
        for number in os.listdir(self._directory / "fd"):
            try:
                yield number, os.readlink(self.path(number))
            except FileNotFoundError:
                # Closed meanwhile.
                continue

    def path(self, number: str) -> Path:
        return self._directory / "fd" / number

    def tun(self, number: str) -> str | None:
        """The name of the device that an open /dev/net/tun, wherever its node is, is attached to; None for other files."""
        return self._shown(number, "iff:")

    def in_flight(self, number: str) -> int:
        """How many descriptors wait in a unix socket for somebody to receive them (SCM_RIGHTS)."""
        return int(self._shown(number, "scm_fds:") or 0)

    def _shown(self, number: str, field: str) -> str | None:
        """proc_pid_fdinfo(5)"""
        for line in (self._directory / "fdinfo" / number).read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(field):
                return line.removeprefix(field).strip()
        return None

    def taken(self, number: str) -> int:
        """The same open file, to be closed by the caller; raises OSError."""
        if self._pidfd < 0:
            self._pidfd = os.pidfd_open(self._thread, 0 if self._thread == self._pid else _PIDFD_THREAD)
        fd = _libc.syscall(_PIDFD_GETFD, self._pidfd, int(number), 0)
        if fd < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return int(fd)


def opened(fd: int) -> socket.socket:
    """Takes the socket `fd` over. `socket` would find its family by its name, which not every socket has."""
    with socket.socket(0, 0, 0, fileno=fd) as plain:
        family = plain.getsockopt(socket.SOL_SOCKET, _SO_DOMAIN)
        return socket.socket(family, 0, 0, fileno=plain.detach())


def namespace_of(made: socket.socket) -> int:
    """An open namespace; raises OSError."""
    return fcntl.ioctl(made, _SIOCGSKNS)


def namespace_of_tun(fd: int) -> int:
    """That of its device, which may have been moved; without one it would make one in the namespace in which it was opened."""
    try:
        return fcntl.ioctl(fd, _TUNGETDEVNETNS)
    except OSError as error:
        if error.errno != errno.EBADFD:
            raise
    return fcntl.ioctl(fd, _SIOCGSKNS)


def is_of_network(made: socket.socket) -> bool:
    """A unix socket has to do with a network namespace by abstract names only: its own, or that which it talks to (unix(7))."""
    return made.family != socket.AF_UNIX or bool(_abstract(made))


def unix_name(made: socket.socket) -> str:
    """The path that it is bound to; "" for any other socket."""
    name = made.getsockname() if made.family == socket.AF_UNIX else ""
    return name if isinstance(name, str) else ""


def words(made: socket.socket) -> str:
    """`TCP 10.0.0.1:80`, `UDP [::]:53`, `netlink`, `unix @name`."""
    if made.family == socket.AF_UNIX:
        return f"unix @{_abstract(made)[1:].decode(errors='replace')}"
    if made.family not in (socket.AF_INET, socket.AF_INET6):
        return _FAMILIES.get(made.family, f"a socket of family {made.family}")
    protocol = made.getsockopt(socket.SOL_SOCKET, _SO_PROTOCOL)
    kind = _PROTOCOLS.get(protocol, f"raw {protocol}")
    address, port = made.getsockname()[:2]
    return f"{kind} [{address}]:{port}" if ":" in address else f"{kind} {address}:{port}"


def _abstract(made: socket.socket) -> bytes:
    for ask in (made.getsockname, made.getpeername):
        try:
            name = ask()
        except OSError:
            continue
        if isinstance(name, bytes):
            return name
    return b""
