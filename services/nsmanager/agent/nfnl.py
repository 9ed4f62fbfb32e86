"""Questions to nf_tables over nfnetlink: what there is, read without libnftables, so that looking costs an agent nothing.

Called by the agent's `budgets` and `traces`. Messages are those of linux/netfilter/nf_tables.h; an answer is its attributes by
number.
"""

import contextlib
import errno
import socket
import struct
from collections.abc import Iterator, Mapping

from services.nsmanager.agent.rtnl import NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, Refused

# linux/netlink.h
NETLINK_NETFILTER = 12
_SUBSYSTEM = 10 << 8
_GET_TABLE, GET_CHAIN, GET_RULE, _GET_OBJECT = (_SUBSYSTEM | number for number in (1, 4, 7, 19))
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_DUMP_INTR = 0x10
_DUMP_TRIES = 10
_BUFFER = 64 * 1024
_HEADER = struct.Struct("IHHII")
# struct nfgenmsg: NFPROTO_INET, version, resource id.
_FAMILY = struct.pack("=BBH", 1, 0, 0)
_ATTRIBUTE = struct.Struct("HH")
# Of all messages but those about tables, where it is the name.
_TABLE = 1
_OBJECT_NAME, _OBJECT_TYPE, _OBJECT_DATA, _COUNTER_PACKETS = 2, 3, 4, 2
# NFT_OBJECT_COUNTER
_COUNTER = (1).to_bytes(4, "big")
# NLA_F_NESTED and NLA_F_NET_BYTEORDER stand above the number.
_NUMBER = 0x3FFF
# A kernel without nf_tables has no such subsystem of nfnetlink.
_UNSUPPORTED = {errno.EINVAL, errno.EOPNOTSUPP}

Attributes = Mapping[int, bytes]


class Nfnl:
    """One socket, for questions about one table: `made` is somebody's, else it is in the namespace of the calling thread."""

    def __init__(self, table: str, made: socket.socket | None = None) -> None:
        self._name = {_TABLE: text(table)}
        self._sequence = 0
        self._socket = made
        if made is not None:
            return
        # A kernel without nfnetlink has no tables either.
        with contextlib.suppress(OSError):
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()

    def table(self) -> Attributes | None:
        """None also where the kernel has no tables at all: before other questions, ask this one."""
        if self._socket is None:
            return None
        try:
            return self.one(_GET_TABLE, {})
        except Refused as refused:
            if refused.code in _UNSUPPORTED:
                return None
            raise

    def one(self, kind: int, given: Attributes) -> Attributes | None:
        """The thing in the table that these attributes name; None where there is none."""
        try:
            return next(iter(self._asked(kind, NLM_F_ACK, given)[0]), None)
        except Refused as refused:
            if refused.code == errno.ENOENT:
                return None
            raise

    def all(self, kind: int) -> list[Attributes]:
        """All in the table; where somebody changes things all the time, the last try's."""
        found: list[Attributes] = []
        for _ in range(_DUMP_TRIES):
            found, is_interrupted = self._asked(kind, NLM_F_DUMP, {})
            if not is_interrupted:
                break
        # Of chains the kernel tells those of every table.
        return [each for each in found if each.get(_TABLE) == self._name[_TABLE]]

    def counted(self, name: str) -> int:
        """Packets that a named counter has seen; 0 where there is none."""
        found = self.one(_GET_OBJECT, {_OBJECT_NAME: text(name), _OBJECT_TYPE: _COUNTER}) or {}
        return int.from_bytes(attributes(found.get(_OBJECT_DATA, b"")).get(_COUNTER_PACKETS, b""), "big")

    def _asked(self, kind: int, flags: int, given: Attributes) -> tuple[list[Attributes], bool]:
        assert self._socket is not None  # noqa: S101 - `table` is asked before
        self._sequence += 1
        body = _FAMILY + b"".join(_encoded(number, value) for number, value in (self._name | dict(given)).items())
        size = _HEADER.size + len(body)
        self._socket.send(_HEADER.pack(size, kind, NLM_F_REQUEST | flags, self._sequence, 0) + body)
        found, interrupted = [], False
        for seen, reply in self._replies(self._socket):
            interrupted = interrupted or bool(seen & _NLM_F_DUMP_INTR)
            if reply is not None:
                found.append(attributes(reply))
        return found, interrupted

    def _replies(self, kernel: socket.socket) -> Iterator[tuple[int, bytes | None]]:
        """Flags and attributes of each reply; None for the one that ends them."""
        while True:
            received = kernel.recv(_BUFFER)
            offset = 0
            while offset + _HEADER.size <= len(received):
                size, kind, flags, sequence, _ = _HEADER.unpack_from(received, offset)
                body = received[offset + _HEADER.size : offset + size]
                offset += (size + 3) & ~3
                if sequence != self._sequence:
                    continue
                if kind in {_NLMSG_ERROR, _NLMSG_DONE}:
                    (code,) = struct.unpack_from("i", body) if len(body) >= 4 else (0,)
                    if code:
                        raise Refused(-code, "")
                    yield flags, None
                    return
                yield flags, body[len(_FAMILY) :]


def attributes(data: bytes) -> Attributes:
    """What is in a message, or in a nested attribute."""
    found: dict[int, bytes] = {}
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        size, number = _ATTRIBUTE.unpack_from(data, offset)
        found[number & _NUMBER] = data[offset + _ATTRIBUTE.size : offset + size]
        offset += max(_ATTRIBUTE.size, (size + 3) & ~3)
    return found


def text(value: str) -> bytes:
    return value.encode() + b"\0"


def _encoded(number: int, value: bytes) -> bytes:
    size = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(size, number) + value + bytes(-size % 4)
