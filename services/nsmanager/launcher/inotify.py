"""Tells when entries of a directory come and go, for the launcher's loop: Python has no inotify(7)."""

import ctypes
import os
import struct
from collections.abc import Callable
from pathlib import Path

from services.nsmanager.launcher.loop import Reactor

# sys/inotify.h
_IN_CREATE = 0x100
_IN_DELETE = 0x200
_IN_MOVED_FROM = 0x40
_IN_MOVED_TO = 0x80
_IN_NONBLOCK = os.O_NONBLOCK
_IN_CLOEXEC = os.O_CLOEXEC
_HEADER = struct.Struct("iIII")
_BUFFER = 64 * 1024

_libc = ctypes.CDLL(None, use_errno=True)


def watch(reactor: Reactor, directory: Path, changed: Callable[[set[str]], None]) -> int:
    """Call `changed` with the names that were made or removed in `directory`; the descriptor, to be closed by the caller."""
    fd = _libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC)
    mask = _IN_CREATE | _IN_DELETE | _IN_MOVED_FROM | _IN_MOVED_TO
    if fd < 0 or _libc.inotify_add_watch(fd, os.fsencode(directory), mask) < 0:
        raise OSError(ctypes.get_errno(), f"inotify on {directory}")
    reactor.add_reader(fd, lambda: changed(_names(fd)))
    return int(fd)


def _names(fd: int) -> set[str]:
    events = os.read(fd, _BUFFER)
    names = set()
    start = 0
    while start < len(events):
        *_, length = _HEADER.unpack_from(events, start)
        start += _HEADER.size
        names.add(os.fsdecode(events[start : start + length].rstrip(b"\0")))
        start += length
    return names - {""}
