"""Network namespaces and mounts by their system calls: Python 3.11 has neither `os.unshare` nor `os.setns`.

Called by the privileged tree and by the lab. setns and unshare act on one thread: whatever is done in another network
namespace is done here in a thread of its own that ends afterwards, so that nobody ever goes on in the wrong one.
"""

import ctypes
import fcntl
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

# linux/sched.h, sys/mount.h
CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MNT_DETACH = 2

# asm-generic/socket.h; since Linux 5.14.
_SO_NETNS_COOKIE = 71
# linux/nsfs.h: the CLONE_NEW* flag of the namespace behind a file descriptor.
_NS_GET_NSTYPE = 0xB703
# linux/if.h, linux/sockios.h
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1

_THIS_THREAD = Path("/proc/thread-self/ns/net")
_libc = ctypes.CDLL(None, use_errno=True)

T = TypeVar("T")


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def unshare(flags: int) -> None:
    """Put the calling thread into new namespaces."""
    _check(_libc.unshare(flags), "unshare")


def setns(fd: int) -> None:
    """Put the calling thread into the network namespace behind `fd`."""
    _check(_libc.setns(fd, CLONE_NEWNET), "setns")


def open_current() -> int:
    """A descriptor of the calling thread's network namespace, which lives as long as that is open."""
    return os.open(_THIS_THREAD, os.O_RDONLY | os.O_CLOEXEC)


def mount(source: Path | None, target: Path, flags: int) -> None:
    """Bind mounts and changes of propagation: no file system type, no options."""
    origin = os.fsencode(source) if source else None
    _check(_libc.mount(origin, os.fsencode(target), None, ctypes.c_ulong(flags), None), f"mount {target}")


def umount(target: Path) -> None:
    """Detach the topmost mount on `target`; what still uses it keeps it."""
    _check(_libc.umount2(os.fsencode(target), MNT_DETACH), f"umount {target}")


def bind_here(target: Path) -> None:
    """Mount the calling thread's network namespace on the file `target`: it then lives as long as the mount."""
    mount(_THIS_THREAD, target, MS_BIND)


def is_namespace(path: Path) -> bool:
    """Whether `path` shows a network namespace. An entry whose mount is not visible here is a plain file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return fcntl.ioctl(fd, _NS_GET_NSTYPE) == CLONE_NEWNET
    except OSError:
        return False
    finally:
        os.close(fd)


def is_same(one: Path, other: Path) -> bool:
    """Whether both show the same living namespace; inodes are told apart only among the living."""
    try:
        return os.path.samestat(one.stat(), other.stat()) and is_namespace(one)
    except OSError:
        return False


def cookie() -> int:
    """SO_NETNS_COOKIE of the calling thread's namespace: never used twice within one boot."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        return cookie_of(probe)


def cookie_of(made: socket.socket) -> int:
    """SO_NETNS_COOKIE of the namespace that the socket is in."""
    return int.from_bytes(made.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), "little")


def raise_loopback() -> None:
    """Set `lo` of the calling thread's namespace up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        request = bytearray(b"lo".ljust(40, b"\0"))
        fcntl.ioctl(probe, _SIOCGIFFLAGS, request)
        flags = int.from_bytes(request[16:18], "little") | _IFF_UP
        request[16:18] = flags.to_bytes(2, "little")
        fcntl.ioctl(probe, _SIOCSIFFLAGS, request)


def inside(fd: int, function: Callable[[], T]) -> T:
    """The result of `function`, called in the network namespace behind `fd`."""
    return _in_thread(lambda: setns(fd), function)


def inside_new(function: Callable[[], T]) -> T:
    """The result of `function`, called in a new network namespace that ends with it unless it was mounted."""
    return _in_thread(lambda: unshare(CLONE_NEWNET), function)


def _in_thread(enter: Callable[[], None], function: Callable[[], T]) -> T:
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            enter()
            results.append(function())
        except BaseException as failure:  # noqa: BLE001 - it is raised again in the caller's thread
            failures.append(failure)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]
