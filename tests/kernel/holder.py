"""Processes of the table `b` that hold something of the table `a`: `python -m tests.kernel.holder WHAT[:UID]...`.

Each way on which a process can be in two network namespaces, one process for each: it prints, as it is there, what it holds and
its pid. They go on until their session is killed.
"""

import fcntl
import os
import signal
import socket
import struct
import sys
import threading
import time

from crossns import netns
from crossns.layout import Layout

# linux/if_tun.h, linux/sched.h
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_CLONE_FILES = 0x400
_AF_XDP = 44


def go(table: str) -> None:
    """Of the calling thread only."""
    fd = os.open(Layout().netns / table, os.O_RDONLY)
    netns.setns(fd)
    os.close(fd)


def listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def tun(name: str) -> int:
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return fd


def abstract() -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.bind("\0leak")
    made.listen()
    return made


def in_a_thread(table: str, *, own_files: bool) -> object:
    """A thread that stays there; or one of its own files, with a socket of there, that comes back."""
    there = threading.Event()
    made: list[object] = []

    def run() -> None:
        if own_files:
            netns.unshare(_CLONE_FILES)
        go(table)
        if own_files:
            made.append(listener())
            go("b")
        there.set()
        time.sleep(60)

    threading.Thread(target=run, daemon=True).start()
    there.wait()
    return made


def held(what: str) -> object:
    match what:
        case "thread":
            go("b")
            return in_a_thread("a", own_files=False)
        case "files":
            go("b")
            return in_a_thread("a", own_files=True)
        case "flight":
            go("b")
            ends, passed = socket.socketpair(), listener()
            socket.send_fds(ends[0], [b"x"], [passed.fileno()])
            return ends
        case "both":
            found = []
            for table in ("a", "b"):
                go(table)
                found.append(tun(f"tun-{table}"))
            netns.unshare(netns.CLONE_NEWNET)
            return found
    go("a")
    made: object = {"tcp": listener, "tun": lambda: tun("tun-x"), "abstract": abstract, "xdp": xdp}[what]()
    go("b")
    return made


def xdp() -> socket.socket:
    return socket.socket(_AF_XDP, socket.SOCK_RAW)


def begin(what: str, uid: int) -> None:
    """In a process of its own."""
    if os.fork():
        return
    kept = held(what)
    os.setuid(uid)
    # In one write: several do it at once.
    os.write(1, f"{what} {os.getpid()}\n".encode())
    signal.pause()
    del kept


if __name__ == "__main__":
    for each in sys.argv[1:]:
        name, _, owner = each.partition(":")
        begin(name, int(owner or 0))
    signal.pause()
