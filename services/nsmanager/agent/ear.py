"""One netlink socket that hears one kind of change, so that a storm of one kind neither hides nor delays another.

Called by `events`. Whoever hears more than it may tell counts the rest; in a storm it reads so much at a time only and lets the
kernel drop, which counts, too (netlink(7), ENOBUFS): so a storm costs a small part of a core, whatever its height.
"""

import errno
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from services.nsmanager.agent import bpf
from services.nsmanager.launcher.loop import Reactor

# One turn of the loop reads at most this many messages: answers come in between.
_TURN = 64
_BUFFER = 64 * 1024
# What may be told at once, and how much of it comes back each second. One link costs 1 ms to decode, anything else a tenth.
BURST, RATE = 512, 100
# In a storm a turn is followed by so much rest.
_REST_S = 0.05
# asm-generic/socket.h; the last of nine numbers is what was dropped (SK_MEMINFO_DROPS in linux/sock_diag.h).
_SO_MEMINFO, _MEMINFO, _DROPS_AT = 55, 36, 32
# All ears of a process read one after the other.
_buffer = bytearray(_BUFFER)


@dataclass(frozen=True, slots=True)
class Heard:
    """Of one turn. `messages`: those that may be told; `missed`: how many more there were; `overrun`: the kernel dropped some."""

    messages: list[bytes]
    missed: int
    overrun: bool


class Ear:
    """`ready` is called when `read` would find something. `learned`: also neighbours that the kernel knows by itself."""

    def __init__(self, loop: Reactor, groups: int, ready: Callable[[], None], *, learned: bool) -> None:
        self._loop = loop
        self._ready = ready
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.settimeout(0)
        if not learned:
            bpf.attach(self._socket)
        self._socket.bind((0, groups))
        self._left, self._filled_at = float(BURST), time.monotonic()
        self._dropped = 0
        # From the first drop until everything before it is read.
        self._is_overrun = False
        self._rests = False
        self._listen()

    def close(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()

    def _listen(self) -> None:
        self._rests = False
        if self._socket.fileno() >= 0:
            self._loop.add_reader(self._socket.fileno(), self._ready)

    def read(self) -> Heard | None:
        """What has come; None where there is nothing, or nothing is read now."""
        if self._rests:
            return None
        messages: list[bytes] = []
        missed = 0
        was_overrun = self._is_overrun
        self._refill()
        for _ in range(_TURN):
            size = self._receive()
            if size is None:
                self._is_overrun = False
                break
            if self._left >= 1 and size:
                self._left -= 1
                messages.append(bytes(_buffer[:size]))
            elif size:
                missed += 1
        else:
            if missed:
                self._rests = True
                self._loop.remove_reader(self._socket.fileno())
                self._loop.call_later(_REST_S, self._listen)
        overrun = self._is_overrun or was_overrun
        missed += self._newly_dropped() if overrun else 0
        return Heard(messages, missed, overrun) if messages or missed else None

    def _receive(self) -> int | None:
        """The size of the next message; 0 for the word that the kernel dropped some, None when there is nothing."""
        try:
            return self._socket.recv_into(_buffer)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            self._is_overrun = True
            return 0

    def _refill(self) -> None:
        now = time.monotonic()
        self._left = min(float(BURST), self._left + (now - self._filled_at) * RATE)
        self._filled_at = now

    def _newly_dropped(self) -> int:
        """By the kernel, since it was asked last."""
        (dropped,) = struct.unpack_from("I", self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO), _DROPS_AT)
        newly: int = (dropped - self._dropped) & 0xFFFFFFFF
        self._dropped = dropped
        return newly
