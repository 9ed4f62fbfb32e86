"""rtnetlink requests on one socket, encoded and decoded by pyroute2, its errors mapped here once.

Called by the modules of the agent that observe and change. A request is a system call that has been carried out when it
returns, so there is nothing to await: pyroute2's asyncio socket would add a queue and 3 MB to each agent, and hides
NLM_F_DUMP_INTR. Only the agent's own work waits meanwhile.
"""

import errno
import mmap
import os
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from pyroute2.netlink import nla_base_string, nlmsg, nlmsg_atoms
from pyroute2.netlink.rtnl import (
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_DELNEIGH,
    RTM_DELROUTE,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWNEIGH,
    RTM_NEWNSID,
    RTM_NEWROUTE,
    RTM_NEWRULE,
)
from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.nsidmsg import nsidmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from crossns import errors
from services.nsmanager.launcher import session

# linux/netlink.h
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x100, 0x200, 0x400, 0x800
_NLM_F_DUMP_INTR, _NLM_F_ACK_TLVS = 0x10, 0x200
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLMSGERR_ATTR_MSG = 1
_SOL_NETLINK = 270
_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK = 10, 11, 12

_HEADER, _SIZE = struct.Struct("IHHII"), struct.Struct("I")
HEADER_SIZE = _HEADER.size
_LAST = {_NLMSG_ERROR, _NLMSG_DONE}
_CLASSES = {RTM_NEWLINK: ifinfmsg, RTM_NEWADDR: ifaddrmsg, RTM_NEWROUTE: rtmsg, RTM_NEWRULE: fibmsg, RTM_NEWNEIGH: ndmsg}
_CLASSES |= {RTM_DELLINK: ifinfmsg, RTM_DELADDR: ifaddrmsg, RTM_DELROUTE: rtmsg, RTM_DELNEIGH: ndmsg}
_CLASSES |= {RTM_NEWNSID: nsidmsg}
# The kernel's dump messages are at most 32 KiB.
_BUFFER = 256 * 1024
# A dump that others keep changing under our hands: after that many tries it is a busy namespace, tried again later.
_DUMP_TRIES = 10

Attributes = list[tuple[str, Any]]
T = TypeVar("T")


class Refused(Exception):
    """The kernel's answer to a change: `code` is an errno, `words` what it says beside it ("" on many)."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(code, words)
        self.code = code
        self.words = words

    def explained(self) -> str:
        return errors.bounded(self.words or os.strerror(self.code))


class Rtnl:
    """One socket, bound to the namespace in which it was made. `tally.writes` counts the changes that the kernel carried out."""

    def __init__(self, tally: session.Tally) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))
        for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        self._sequence = 0
        # One for all: a new one for each answer would be new pages each time. Of this one only those are there that were used.
        self._buffer = mmap.mmap(-1, _BUFFER, mmap.MAP_PRIVATE)
        # Of dumps: kind of request -> bytes of a message -> what was made of it.
        self._memory: dict[int, dict[bytes, Any]] = {}
        self.tally = tally

    def close(self) -> None:
        self._socket.close()
        self._buffer.close()

    def change(self, kind: int, message: nlmsg, flags: int = 0) -> None:
        """Carry out one change; raises Refused."""
        self.change_bytes(kind, encoded(message), flags)

    def change_bytes(self, kind: int, body: bytes, flags: int) -> None:
        """The same, of a message whose body is encoded already."""
        self._send(kind, body, NLM_F_REQUEST | NLM_F_ACK | flags)
        for _ in self._replies(_decoded):
            pass
        self.tally.writes += 1

    def get(self, kind: int, message: nlmsg) -> list[nlmsg]:
        """What the kernel answers to one question; raises Refused."""
        self._send(kind, encoded(message), NLM_F_REQUEST | NLM_F_ACK)
        return [reply for _, reply in self._replies(_decoded) if reply is not None]

    def dump(self, kind: int, message: nlmsg, holding: bytes = b"") -> list[nlmsg]:
        """A consistent dump (NLM_F_DUMP_INTR means that it was not); AgentUnavailable when there is none to be had.

        `holding`: only messages in whose bytes this is found are decoded and returned, where the kernel does not filter."""
        return self._dump(kind, encoded(message), lambda reply: _decoded(reply) if holding in reply else None)

    def dump_bytes(self, kind: int, body: bytes, holding: bytes = b"") -> list[bytes]:
        """The same, of a request that is encoded already; the messages as they came, with their headers."""
        return self._dump(kind, body, lambda reply: reply if holding in reply else None)

    def dump_remembered(self, kind: int, message: nlmsg, make: Callable[[nlmsg], T]) -> list[T]:
        """The same, as what `make` makes of each message. What it made of the same bytes the last time is taken once more, for to
        decode them takes longer than all else. Of each kind one and the same request only."""
        memory = self._memory.get(kind, {})
        seen: dict[bytes, Any] = {}

        def remembered(reply: bytes) -> T:
            content = reply[_HEADER.size :]
            seen[content] = made = memory[content] if content in memory else make(_decoded(reply))
            return made

        found = self._dump(kind, encoded(message), remembered)
        self._memory[kind] = seen
        return found

    def _dump(self, kind: int, body: bytes, make: Callable[[bytes], T | None]) -> list[T]:
        for _ in range(_DUMP_TRIES):
            self._send(kind, body, NLM_F_REQUEST | NLM_F_DUMP)
            found: list[T] = []
            interrupted = False
            for flags, reply in self._replies(make):
                interrupted = interrupted or bool(flags & _NLM_F_DUMP_INTR)
                if reply is not None:
                    found.append(reply)
            if not interrupted:
                return found
        raise errors.AgentUnavailable("AGENT_UNAVAILABLE", "the namespace changes faster than it can be read: try again")

    def _send(self, kind: int, body: bytes, flags: int) -> None:
        self._sequence += 1
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, self._sequence, 0) + body)

    def scan(self, kind: int, message: nlmsg) -> Iterator[tuple[bytes, int]]:
        """The messages of one dump as they come, consistent or not: bytes, and where in them the message begins."""
        self._send(kind, encoded(message), NLM_F_REQUEST | NLM_F_DUMP)
        for _, reply, received, offset in self._messages():
            if reply not in _LAST:
                yield received, offset

    def _replies(self, make: Callable[[bytes], T | None]) -> Iterator[tuple[int, T | None]]:
        """Flags of each reply and what `make` makes of it; None for the one that ends them."""
        for flags, kind, received, offset in self._messages():
            (size,) = _SIZE.unpack_from(received, offset)
            yield flags, None if kind in _LAST else make(received[offset : offset + size])

    def _messages(self) -> Iterator[tuple[int, int, bytes, int]]:
        """Flags and kind of each reply up to the one that ends them, that one included, and where it is; raises Refused."""
        while True:
            received = self._buffer[: self._socket.recv_into(self._buffer)]
            offset = 0
            while offset + _HEADER.size <= len(received):
                size, kind, flags, sequence, _ = _HEADER.unpack_from(received, offset)
                # What is left of a dump that was given up.
                if sequence == self._sequence:
                    if kind in _LAST:
                        _check(received[offset : offset + size], flags)
                    yield flags, kind, received, offset
                    if kind in _LAST:
                        return
                offset += (size + 3) & ~3


def _decode_text(atom: Any) -> None:
    """Any text of the kernel's as text that can be shown and sent. In a link's name the kernel takes all bytes but slash, colon
    and white space (dev_valid_name in net/core/dev.c); pyroute2 would leave bytes where they are no UTF-8."""
    nla_base_string.decode(atom)
    text = bytes(atom["value"] or b"").decode(errors="backslashreplace")
    atom.value = text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


nlmsg_atoms.string.decode = _decode_text


def decoded(kind: int, received: bytes, offset: int = 0) -> nlmsg:
    """The message of that kind that begins there."""
    message = _CLASSES[kind](received, offset=offset)
    message.decode()
    return message


def encoded(message: nlmsg) -> bytes:
    """The body of the message."""
    message["header"] = {"type": 0, "flags": 0, "sequence_number": 0, "pid": 0}
    message.reset()
    message.encode()
    return bytes(message.data[_HEADER.size :])


def _decoded(reply: bytes) -> nlmsg:
    return decoded(_HEADER.unpack_from(reply)[1], reply)


def _check(reply: bytes, flags: int) -> None:
    """Raises what an NLMSG_ERROR or NLMSG_DONE says, unless it says success."""
    (code,) = struct.unpack_from("i", reply, _HEADER.size)
    if code == 0:
        return
    words = ""
    kind = _HEADER.unpack_from(reply)[1]
    # Behind the errno an error repeats the header of the request (NETLINK_CAP_ACK).
    at = _HEADER.size + 4 + (_HEADER.size if kind == _NLMSG_ERROR else 0)
    while flags & _NLM_F_ACK_TLVS and at + 4 <= len(reply):
        size, attribute = struct.unpack_from("HH", reply, at)
        if attribute == _NLMSGERR_ATTR_MSG:
            words = reply[at + 4 : at + size].rstrip(b"\0").decode(errors="replace")
        at += max(4, (size + 3) & ~3)
    raise Refused(-code, words)


def fault(refused: Refused, what: str, **metadata: object) -> errors.CrossnsError:
    """A refusal as the error that it is for whoever asked for `what`."""
    said = refused.explained()
    if refused.code in {errno.EAGAIN, errno.EBUSY, errno.ENOBUFS, errno.ENOMEM, errno.EINTR}:
        return errors.AgentUnavailable("AGENT_UNAVAILABLE", f"the kernel is busy and did not {what}: {said}", **metadata)
    return errors.PermanentError("KERNEL_REFUSED", f"the kernel refused to {what}: {said}", **metadata)
