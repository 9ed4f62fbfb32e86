"""Keeps what others gave to links in the kernel's own words, and says them again: every attribute of it comes back.

Called by the agent's `operations` around a move. What the kernel keeps, learns or hears from routers comes by itself; what is
ours comes by the loop. Changed are only the words that the kernel says and does not take.
"""

import errno
import ipaddress
import socket
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping

from pyroute2.netlink.rtnl import (
    RTM_DELADDR,
    RTM_GETADDR,
    RTM_GETNEIGH,
    RTM_GETROUTE,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWNEIGH,
    RTM_NEWROUTE,
)

from crossns import errors, keepsake, operation
from services.nsmanager.agent import observe
from services.nsmanager.agent.rtnl import (
    HEADER_SIZE,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Refused,
    Rtnl,
)

# linux/rtnetlink.h, not in pyroute2's names for messages.
RTM_NEWNEXTHOP, RTM_GETNEXTHOP = 104, 106
# struct rtmsg (linux/rtnetlink.h), ifaddrmsg, ndmsg (linux/neighbour.h), nhmsg (linux/nexthop.h), ifinfomsg.
_ROUTE, _ADDRESS = struct.Struct("=8BI"), struct.Struct("=4BI")
_NEIGHBOR, _NEXT_HOP = struct.Struct("=B3xiHBB"), struct.Struct("=4BI")
_LINK = struct.Struct("=BxHiII")
_HEADS = {RTM_NEWROUTE: _ROUTE, RTM_NEWADDR: _ADDRESS, RTM_NEWNEIGH: _NEIGHBOR, RTM_NEWNEXTHOP: _NEXT_HOP, RTM_NEWLINK: _LINK}
_NAMES = {RTM_NEWROUTE: "route", RTM_NEWADDR: "address", RTM_NEWNEIGH: "neighbour", RTM_NEWNEXTHOP: "next hop"}
_NAMES |= {RTM_NEWLINK: "MAC address"}
# An equal route is told from one that only has the same key, which comes beside it; the kernel may have found a neighbour by
# itself meanwhile; a group of next hops has lost those of the link.
_FLAGS = {
    RTM_NEWROUTE: NLM_F_CREATE | NLM_F_APPEND,
    RTM_NEWADDR: NLM_F_CREATE | NLM_F_EXCL,
    RTM_NEWNEIGH: NLM_F_CREATE | NLM_F_REPLACE,
    RTM_NEWNEXTHOP: NLM_F_CREATE | NLM_F_REPLACE,
    RTM_NEWLINK: 0,
}
_ATTRIBUTE, _INDEX, _HOP, _MEMBER = struct.Struct("=HH"), struct.Struct("=i"), struct.Struct("=HBBi"), struct.Struct("=IBBH")
# NLA_F_NESTED and NLA_F_NET_BYTEORDER stand above the number.
_NUMBER = 0x3FFF
_IFLA_ADDRESS = 1
_IFLA_ADDRESS = 1
_RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC, _RTA_MULTIPATH, _RTA_CACHEINFO, _RTA_VIA = 4, 5, 7, 9, 12, 18
_RTA_ENCAP_TYPE, _RTA_ENCAP, _RTA_EXPIRES, _RTA_NH_ID = 21, 22, 23, 30
# What a route with an object for its next hops shows of that object.
_OF_THE_OBJECT = {_RTA_OIF, _RTA_GATEWAY, _RTA_MULTIPATH, _RTA_VIA, _RTA_ENCAP_TYPE, _RTA_ENCAP}
_RTNH_F_PERVASIVE, _RTNH_F_ONLINK = 2, 4
_ASKED_OF_HOPS = _RTNH_F_PERVASIVE | _RTNH_F_ONLINK
_RTM_F_CLONED, _RTN_UNICAST = 0x200, 1
# RTPROT_REDIRECT, KERNEL, RA: come by themselves.
_BY_THEMSELVES = {1, 2, 9, operation.ROUTE_PROTOCOL}
_IFA_LOCAL, _IFA_PROTO, _IFA_F_TEMPORARY, _IFAPROT_KERNEL_LL = 2, 11, 1, 3
_OURS = {operation.ADDRESS_PROTOCOL, operation.VIP_PROTOCOL}
_NDA_IFINDEX, _NDA_PROTOCOL, _NUD_PERMANENT, _NTF_PROXY, _NTF_EXT_LEARNED = 8, 12, 0x80, 0x08, 0x10
_NHA_ID, _NHA_GROUP, _NHA_OIF, _NHA_OP_FLAGS = 1, 2, 5, 14
_FAMILIES = (socket.AF_INET, socket.AF_INET6)
# USER_HZ: rta_expires is told in it, RTA_EXPIRES taken in seconds.
_TICKS_PER_S = 100
_UNSUPPORTED = {errno.EOPNOTSUPP, errno.EINVAL}

Names = Mapping[int, str]


class _Draft:
    """A record that is being put together."""

    def __init__(self, kind: int, names: Names, *head: int) -> None:
        self._kind, self._names = kind, names
        self._body = bytearray(_HEADS[kind].pack(*head))
        self._links: list[tuple[int, str]] = []

    def completed(self, reply: bytes) -> keepsake.Record:
        """With all that the kernel's message has behind a head whose second word is the link's index."""
        self.mark(4)
        for number, value in _attributes(reply, HEADER_SIZE + _HEADS[self._kind].size):
            self.add(number, value)
        return self.record()

    def add(self, number: int, value: bytes, indices: Iterable[int] = ()) -> None:
        """`indices`: where in the value one of a link stands."""
        start = len(self._body) + _ATTRIBUTE.size
        self._body += _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), number) + value + bytes(-len(value) % 4)
        for at in indices:
            self.mark(start + at)

    def mark(self, at: int) -> None:
        """The index of a link stands there in the body."""
        (index,) = _INDEX.unpack_from(self._body, at)
        if index in self._names:
            self._links.append((at, self._names[index]))

    def record(self) -> keepsake.Record:
        return keepsake.Record(kind=self._kind, body=bytes(self._body), links=tuple(self._links))


def remember(rtnl: Rtnl, wanted: keepsake.Remember) -> keepsake.Kept:
    links = observe.links(rtnl)
    names = {link.index: link.name for link in links}
    chosen = [index for index, name in names.items() if name in wanted.links]
    # A card takes its MAC address along, and has the link-local address again that follows from it. One that is set on a bridge
    # without ports takes its carrier (br_port_state_selection), and nobody knows it yet.
    virtual = [link for link in links if link.index in chosen and link.mac and not link.was and link.kind != "bridge"]
    made_anew = {link.index for link in virtual}
    addresses = [reply for index in chosen for reply in rtnl.dump_bytes(RTM_GETADDR, _ADDRESS.pack(0, 0, 0, 0, index))]
    return keepsake.Kept(
        records=(
            *(_mac(link, names) for link in virtual),
            *_next_hops(rtnl, chosen, names),
            *(record for reply in addresses for record in _address(reply, names, made_anew)),
            *(record for index in chosen for record in _neighbors(rtnl, index, names)),
            *(record for reply in _routes(rtnl, chosen, addresses) for record in _route(reply, names)),
        )
    )


def give_back(rtnl: Rtnl, wanted: keepsake.GiveBack) -> keepsake.Refused:
    links = {link.name: link for link in observe.links(rtnl)}
    refused = []
    for number, record in enumerate(wanted.records):
        if record.kind not in _FLAGS:
            raise errors.FailedPrecondition("INVALID_FIELD", f"{record.kind} is no kind of record")
        if words := _given_back(rtnl, record, links):
            refused.append(keepsake.Refusal(number=number, words=f"{_described(record)}: {words}"))
    return keepsake.Refused(items=tuple(refused))


def _given_back(rtnl: Rtnl, record: keepsake.Record, links: Mapping[str, operation.Link]) -> str:
    """Why not; "" where it is there."""
    body = bytearray(record.body)
    for at, name in record.links:
        if name not in links:
            return f"there is no link {name}"
        _INDEX.pack_into(body, at, links[name].index)
    try:
        if record.kind == RTM_NEWLINK:
            _give_mac(rtnl, bytes(body), links[record.links[0][1]])
        else:
            rtnl.change_bytes(record.kind, bytes(body), _FLAGS[record.kind])
    except Refused as refused:
        return "" if refused.code == errno.EEXIST else refused.explained()
    return ""


def _mac(link: operation.Link, names: Names) -> keepsake.Record:
    """Of a virtual link, which is made anew: who has spoken with it knows it by that."""
    draft = _Draft(RTM_NEWLINK, names, 0, 0, link.index, 0, 0)
    draft.mark(4)
    draft.add(_IFLA_ADDRESS, bytes.fromhex(link.mac.replace(":", "")))
    return draft.record()


def _give_mac(rtnl: Rtnl, body: bytes, link: operation.Link) -> None:
    """The link-local address that the kernel made of the other one goes; that of this one is given back as addresses are."""
    wanted = dict(_attributes(body, _LINK.size))[_IFLA_ADDRESS]
    if wanted.hex(":") == link.mac:
        return
    rtnl.change_bytes(RTM_NEWLINK, body, 0)
    for reply in rtnl.dump_bytes(RTM_GETADDR, _ADDRESS.pack(socket.AF_INET6, 0, 0, 0, link.index)):
        if _protocol(reply) == _IFAPROT_KERNEL_LL:
            rtnl.change_bytes(RTM_DELADDR, reply[HEADER_SIZE:], 0)


def _described(record: keepsake.Record) -> str:
    """What it is, for people: the first attribute of each kind is its address, or number."""
    first = dict(_attributes(record.body, _HEADS[record.kind].size)).get(1, b"")
    shown = str(ipaddress.ip_address(first)) if len(first) in {4, 16} else first.hex(":") or "default"
    if record.kind == RTM_NEWNEXTHOP:
        shown = str(int.from_bytes(first, "little"))
    return f"the {_NAMES[record.kind]} {shown}"


def _attributes(message: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    while at + _ATTRIBUTE.size <= len(message):
        size, number = _ATTRIBUTE.unpack_from(message, at)
        yield number, message[at + _ATTRIBUTE.size : at + size]
        at += max(_ATTRIBUTE.size, (size + 3) & ~3)


def _of(reply: bytes, head: struct.Struct) -> dict[int, bytes]:
    return {number & _NUMBER: value for number, value in _attributes(reply, HEADER_SIZE + head.size)}


def _protocol(address: bytes) -> int:
    return int.from_bytes(_of(address, _ADDRESS).get(_IFA_PROTO, b""), "little")


def _address(reply: bytes, names: Names, made_anew: Collection[int]) -> Iterator[keepsake.Record]:
    family, length, flags, scope, index = _ADDRESS.unpack_from(reply, HEADER_SIZE)
    is_temporary = family == socket.AF_INET6 and flags & _IFA_F_TEMPORARY
    by_themselves = _OURS if index in made_anew else _OURS | {_IFAPROT_KERNEL_LL}
    if family not in _FAMILIES or is_temporary or _protocol(reply) in by_themselves:
        return
    draft = _Draft(RTM_NEWADDR, names, family, length, flags, scope, index)
    yield draft.completed(reply)


def _neighbors(rtnl: Rtnl, index: int, names: Names) -> Iterator[keepsake.Record]:
    for asked in (0, _NTF_PROXY):
        request = _NEIGHBOR.pack(0, 0, 0, asked, 0) + _encoded(_NDA_IFINDEX, _INDEX.pack(index))
        for reply in rtnl.dump_bytes(RTM_GETNEIGH, request):
            family, on, state, flags, kind = _NEIGHBOR.unpack_from(reply, HEADER_SIZE)
            is_ours = _of(reply, _NEIGHBOR).get(_NDA_PROTOCOL, b"")[:1] == bytes((operation.ROUTE_PROTOCOL,))
            is_static = state & _NUD_PERMANENT or flags & (_NTF_PROXY | _NTF_EXT_LEARNED)
            # The kernel filters no proxies (neigh_dump_info).
            if on != index or family not in _FAMILIES or is_ours or not is_static:
                continue
            draft = _Draft(RTM_NEWNEIGH, names, family, on, state, flags, kind)
            yield draft.completed(reply)


def _routes(rtnl: Rtnl, chosen: Collection[int], addresses: Iterable[bytes]) -> Iterator[bytes]:
    """Those over the links, and those elsewhere that send from an address of theirs: they go with it (fib_sync_down_addr)."""
    found: dict[bytes, None] = {}
    for index in chosen:
        request = _ROUTE.pack(*bytes(8), 0) + _encoded(_RTA_OIF, _INDEX.pack(index))
        found |= dict.fromkeys(reply[HEADER_SIZE:] for reply in rtnl.dump_bytes(RTM_GETROUTE, request))
    for local in {each for reply in addresses if len(each := _of(reply, _ADDRESS).get(_IFA_LOCAL, b"")) == 4}:
        found |= dict.fromkeys(reply[HEADER_SIZE:] for reply in sending_from(rtnl, local))
    return (bytes(HEADER_SIZE) + each for each in found)


def sending_from(rtnl: Rtnl, local: bytes) -> list[bytes]:
    """IPv4 routes of any link that prefer this source. The kernel does not filter by it."""
    request = _ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, _RTN_UNICAST, 0)
    return rtnl.dump_bytes(RTM_GETROUTE, request, _encoded(_RTA_PREFSRC, local))


def has_object(route: bytes) -> bool:
    """Whether its next hops are an object of their own (ip-nexthop(8))."""
    return _RTA_NH_ID in _of(route, _ROUTE)


def _route(reply: bytes, names: Names) -> Iterator[keepsake.Record]:
    *head, flags = _ROUTE.unpack_from(reply, HEADER_SIZE)
    family, protocol = head[0], head[5]
    if family not in _FAMILIES or flags & _RTM_F_CLONED or protocol in _BY_THEMSELVES:
        return
    attributes = list(_attributes(reply, HEADER_SIZE + _ROUTE.size))
    numbers = {number & _NUMBER for number, _ in attributes}
    left_out = _OF_THE_OBJECT if _RTA_NH_ID in numbers else set()
    hops = [hop for number, value in attributes if number & _NUMBER == _RTA_MULTIPATH for hop in _hops(value)]
    # Of IPv6 next hops each is a route, and those over other links may be there still.
    ways = [[hop] for hop in hops] if family == socket.AF_INET6 and hops and not left_out else [hops]
    for way in ways:
        draft = _Draft(RTM_NEWROUTE, names, *head, flags & _ASKED_OF_HOPS if not left_out else 0)
        for number, value in attributes:
            if number & _NUMBER == _RTA_MULTIPATH and not left_out:
                _add_hops(draft, number, way)
            elif number & _NUMBER == _RTA_CACHEINFO:
                _add_expiry(draft, value)
            elif number & _NUMBER not in left_out:
                draft.add(number, value, [0] if number & _NUMBER == _RTA_OIF else ())
        yield draft.record()


def _hops(value: bytes) -> Iterator[bytes]:
    """struct rtnexthop with its attributes, each; without what the kernel has found out about it."""
    at = 0
    while at + _HOP.size <= len(value):
        size, flags, weight, index = _HOP.unpack_from(value, at)
        yield _HOP.pack(size, flags & _ASKED_OF_HOPS, weight, index) + value[at + _HOP.size : at + size]
        at += max(_HOP.size, (size + 3) & ~3)


def _add_hops(draft: _Draft, number: int, hops: Iterable[bytes]) -> None:
    value, indices = b"", []
    for hop in hops:
        indices.append(len(value) + 4)
        value += hop + bytes(-len(hop) % 4)
    draft.add(number, value, indices)


def _add_expiry(draft: _Draft, cacheinfo: bytes) -> None:
    (expires,) = _INDEX.unpack_from(cacheinfo, 8)
    if expires > 0:
        draft.add(_RTA_EXPIRES, struct.pack("=I", max(1, expires // _TICKS_PER_S)))


def _next_hops(rtnl: Rtnl, chosen: Collection[int], names: Names) -> Iterator[keepsake.Record]:
    """Objects (ip-nexthop(8)) over the links, then the groups that they are in."""
    try:
        replies = rtnl.dump_bytes(RTM_GETNEXTHOP, _NEXT_HOP.pack(*bytes(4), 0))
    except Refused as refused:
        # Before Linux 5.3.
        if refused.code not in _UNSUPPORTED:
            raise
        return
    found = {reply: _of(reply, _NEXT_HOP) for reply in replies}
    over = {reply: each for reply, each in found.items() if each.get(_NHA_OIF, b"") in {_INDEX.pack(index) for index in chosen}}
    numbers = {int.from_bytes(each[_NHA_ID], "little") for each in over.values()}
    groups = [reply for reply, each in found.items() if numbers & {one for one, *_ in _members(each.get(_NHA_GROUP, b""))}]
    for reply in (*over, *groups):
        family, _, protocol, _, flags = _NEXT_HOP.unpack_from(reply, HEADER_SIZE)
        draft = _Draft(RTM_NEWNEXTHOP, names, family, 0, protocol, 0, flags & _RTNH_F_ONLINK)
        for number, value in _attributes(reply, HEADER_SIZE + _NEXT_HOP.size):
            # Says what the kernel could do, and is not taken from anybody.
            if number & _NUMBER != _NHA_OP_FLAGS:
                draft.add(number, value, [0] if number & _NUMBER == _NHA_OIF else ())
        yield draft.record()


def _members(group: bytes) -> Iterator[tuple[int, ...]]:
    return _MEMBER.iter_unpack(group)


def _encoded(number: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), number) + value + bytes(-len(value) % 4)
