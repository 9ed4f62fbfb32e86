"""Counts the sessions that a namespace forwards over some of its links, as connection tracking knows them. Reads only.

Called by the agent's `operations` for `Examine`. The table may hold hundreds of thousands, so it is read a piece at a time, with
the loop's other work in between, and not beyond a limit: then the count is a lower bound, and says so.
"""

import contextlib
import ipaddress
import socket
import struct
from collections.abc import Callable, Collection, Iterator

from services.nsmanager.agent import nfnl
from services.nsmanager.agent.rtnl import HEADER_SIZE, NLM_F_DUMP, NLM_F_REQUEST

# Entries that are read, and different addresses whose way is asked for: at most a second's work altogether.
ENTRIES_MAX, ADDRESSES_MAX = 50_000, 4_096
# Datagrams in one go, of some hundred entries each: some 10 ms.
_PIECE = 3
_BUFFER = 64 * 1024
# linux/netfilter/nfnetlink_conntrack.h
_CT_GET = 1 << 8 | 1
_CTA_TUPLE_ORIG, _CTA_TUPLE_REPLY, _CTA_STATUS, _CTA_PROTOINFO = 1, 2, 3, 4
_CTA_TUPLE_IP, _CTA_IP_V4_SRC, _CTA_IP_V6_SRC, _CTA_PROTOINFO_TCP, _CTA_PROTOINFO_TCP_STATE = 1, 1, 3, 1, 1
# linux/netfilter/nf_conntrack_common.h, nf_conntrack_tcp.h
_IPS_ASSURED, _TCP_ESTABLISHED = 4, 3
_HEADER, _NFGENMSG_SIZE, _NLMSG_ERROR, _NLMSG_DONE = struct.Struct("IHHII"), 4, 2, 3

# How many, and whether there may be more.
Found = tuple[int, bool]


class Count:
    """One count under way. `ways` tells the index of the link by which the kernel sends to an address; `own` are the namespace's
    addresses: what begins or ends there is not forwarded. `found` gets the outcome, once."""

    def __init__(
        self, chosen: Collection[int], own: Collection[str], ways: Callable[[str], int], found: Callable[[Found], None]
    ) -> None:
        self._chosen, self._own, self._way, self._found = chosen, own, ways, found
        self._ways: dict[bytes, bool | None] = {}
        self._count = self._seen = 0
        self._has_more = False

    def begin(self, later: Callable[[float, Callable[[], None]], object]) -> None:
        try:
            kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, nfnl.NETLINK_NETFILTER)
        except OSError:
            # A kernel without it tracks nothing.
            self._found((0, False))
            return
        body = struct.pack("=BBH", socket.AF_UNSPEC, 0, 0)
        kernel.send(_HEADER.pack(_HEADER.size + len(body), _CT_GET, NLM_F_REQUEST | NLM_F_DUMP, 1, 0) + body)
        self._read(kernel, later)

    def _read(self, kernel: socket.socket, later: Callable[[float, Callable[[], None]], object]) -> None:
        is_over = False
        with contextlib.suppress(OSError):
            for _ in range(_PIECE):
                is_over = self._take(kernel.recv(_BUFFER))
                if is_over:
                    break
            else:
                later(0, lambda: self._read(kernel, later))
                return
        # Also where the kernel would not go on.
        self._has_more = self._has_more or not is_over
        kernel.close()
        self._found((self._count, self._has_more))

    def _take(self, received: bytes) -> bool:
        """Count what is in a datagram; whether it was the last to be read."""
        for kind, body in _messages(received):
            if kind in {_NLMSG_ERROR, _NLMSG_DONE}:
                return True
            if self._seen == ENTRIES_MAX:
                self._has_more = True
                return True
            self._seen += 1
            self._count += self._goes_over(nfnl.attributes(body[_NFGENMSG_SIZE:]))
        return False

    def _goes_over(self, entry: nfnl.Attributes) -> bool:
        if not _is_established(entry):
            return False
        ends = [_source(entry.get(tuple_of, b"")) for tuple_of in (_CTA_TUPLE_ORIG, _CTA_TUPLE_REPLY)]
        ways = [self._is_over(end) for end in ends]
        return None not in ways and any(ways)

    def _is_over(self, end: bytes) -> bool | None:
        """Whether packets to that end leave by one of the links; None for the namespace's own, and for what is not looked up."""
        if end in self._ways:
            return self._ways[end]
        if len(self._ways) >= ADDRESSES_MAX or len(end) not in {4, 16}:
            self._has_more = True
            return None
        text = str(ipaddress.ip_address(end))
        self._ways[end] = None if text in self._own else self._way(text) in self._chosen
        return self._ways[end]


def _messages(received: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + HEADER_SIZE <= len(received):
        size, kind, *_ = _HEADER.unpack_from(received, offset)
        yield kind, received[offset + HEADER_SIZE : offset + size]
        offset += max(HEADER_SIZE, (size + 3) & ~3)


def _is_established(entry: nfnl.Attributes) -> bool:
    """TCP as it is said of it; of others those that have gone to and fro."""
    protocol = nfnl.attributes(entry.get(_CTA_PROTOINFO, b""))
    if _CTA_PROTOINFO_TCP in protocol:
        state = nfnl.attributes(protocol[_CTA_PROTOINFO_TCP]).get(_CTA_PROTOINFO_TCP_STATE, b"\0")
        return state[0] == _TCP_ESTABLISHED
    return bool(int.from_bytes(entry.get(_CTA_STATUS, b""), "big") & _IPS_ASSURED)


def _source(found: bytes) -> bytes:
    """The one who sends, in one direction: of the answers that is the real far end, whatever was translated."""
    addresses = nfnl.attributes(nfnl.attributes(found).get(_CTA_TUPLE_IP, b""))
    return addresses.get(_CTA_IP_V4_SRC) or addresses.get(_CTA_IP_V6_SRC) or b""
