"""One netlink socket that hears some kinds of changes, so that a storm of what it hears hides nothing that others hear.

Called by `events`. Whoever hears more of a kind than it may tell counts the rest; in a storm it reads so much at a time only and
lets the kernel drop, which counts, too (netlink(7), ENOBUFS): so a storm costs a small part of a core, whatever its height.
"""

import errno
import socket
import struct
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pyroute2.netlink import rtnl

from services.nsmanager.agent import bpf
from services.nsmanager.launcher.loop import Reactor

# One turn of the loop reads at most this many messages: answers come in between.
_TURN = 64
_BUFFER = 64 * 1024
# What may be told at once of a kind, and how much of it comes back each second. A link takes 1 ms to decode, the others a tenth.
BURST, RATE = 512, 100
# In a storm a turn is followed by so much rest.
_REST_S = 0.05
# asm-generic/socket.h; the last of nine numbers is what was dropped (SK_MEMINFO_DROPS in linux/sock_diag.h).
_SO_MEMINFO, _MEMINFO, _DROPS_AT = 55, 36, 32
_LENGTH_TYPE = struct.Struct("IH")
# All ears of a process read one after the other.
_buffer = bytearray(_BUFFER)


Kind = Literal["link", "address", "route", "rule", "neighbor"]
# Of the four types of a kind (new, del, get, set) two are heard: RTM_FAM in linux/rtnetlink.h.
_KINDS: dict[int, Kind] = {
    rtnl.RTM_NEWLINK >> 2: "link",
    rtnl.RTM_NEWADDR >> 2: "address",
    rtnl.RTM_NEWROUTE >> 2: "route",
    rtnl.RTM_NEWRULE >> 2: "rule",
    rtnl.RTM_NEWNEIGH >> 2: "neighbor",
}


@dataclass(frozen=True, slots=True)
class Heard:
    """Of one turn. `messages`: those that may be told; `missed`: how many more there were; `overrun`: the kernel dropped some,
    so many as `dropped`, and of which kind is not known."""

    messages: list[tuple[Kind, bytes]]
    missed: Counter[Kind]
    dropped: int
    overrun: bool


class _Budget:
    """What may be told of one kind."""

    def __init__(self) -> None:
        self._left, self._filled_at = float(BURST), time.monotonic()

    def take(self) -> bool:
        now = time.monotonic()
        self._left, self._filled_at = min(float(BURST), self._left + (now - self._filled_at) * RATE), now
        if self._left < 1:
            return False
        self._left -= 1
        return True


def listener(groups: int, *, learned: bool) -> socket.socket:
    """For an ear, of the calling thread's namespace. `learned`: also neighbours that the kernel knows by itself."""
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    if not learned:
        bpf.attach(made)
    made.bind((0, groups))
    return made


class Ear:
    """`ready` is called when `read` would find something. Owns the socket."""

    def __init__(self, loop: Reactor, hears: socket.socket, ready: Callable[[], None]) -> None:
        self._loop = loop
        self._ready = ready
        self._socket = hears
        self._socket.settimeout(0)
        self._budgets: defaultdict[Kind, _Budget] = defaultdict(_Budget)
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
        messages: list[tuple[Kind, bytes]] = []
        missed: Counter[Kind] = Counter()
        was_overrun = self._is_overrun
        for _ in range(_TURN):
            size = self._receive()
            if size is None:
                self._is_overrun = False
                break
            kind = _kind(size)
            if kind is not None and self._budgets[kind].take():
                messages.append((kind, bytes(_buffer[:size])))
            elif kind is not None:
                missed[kind] += 1
        else:
            if missed:
                self._rests = True
                self._loop.remove_reader(self._socket.fileno())
                self._loop.call_later(_REST_S, self._listen)
        overrun = self._is_overrun or was_overrun
        dropped = self._newly_dropped() if overrun else 0
        return Heard(messages, missed, dropped, overrun) if messages or missed or dropped else None

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

    def _newly_dropped(self) -> int:
        """By the kernel, since it was asked last."""
        (dropped,) = struct.unpack_from("I", self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO), _DROPS_AT)
        newly: int = (dropped - self._dropped) & 0xFFFFFFFF
        self._dropped = dropped
        return newly


def _kind(size: int) -> Kind | None:
    """Of the message in the buffer; None for the word that some were dropped."""
    return _KINDS.get(_LENGTH_TYPE.unpack_from(_buffer)[1] >> 2) if size >= _LENGTH_TYPE.size else None
