"""From netlink messages to changes: what came, changed or went, in the words of `kernel`.

Called by `events` for what an ear heard. Of links it remembers how each looked, for the kernel tells of much that nobody sees,
and because whatever speaks of a link later gives its index only.
"""

import ipaddress
import socket
import struct
import time
from collections import deque
from collections.abc import Iterator

from pyroute2.netlink import nlmsg
from pyroute2.netlink.rtnl import (
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_DELNEIGH,
    RTM_DELROUTE,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWNEIGH,
    RTM_NEWROUTE,
)
from pyroute2.netlink.rtnl.ndmsg import NUD_NOARP, states

from crossns import kernel, proof
from services.nsmanager.agent import observe
from services.nsmanager.agent.rtnl import decoded

_HEADER = struct.Struct("IH")
_GONE = {RTM_DELLINK, RTM_DELADDR, RTM_DELROUTE, RTM_DELNEIGH}
_FAMILIES = (socket.AF_INET, socket.AF_INET6)
# Links that have gone, whose names are still known: what was on them may be read behind that.
_GONE_KEPT = 64
# linux/rtnetlink.h: routes to the table's own addresses.
_RT_TABLE_LOCAL = 255
_STATES: dict[int, str] = {number: name for name, number in states.items()}


class _Names(dict[int, str]):
    """Link names by index; one that was never heard of is asked for."""

    def __missing__(self, index: int) -> str:
        try:
            return socket.if_indextoname(index) if index else ""
        except OSError:
            return ""

    def get(self, index: int, _default: str | None = None) -> str:  # type: ignore[override] # always knows something
        return self[index]


def _is_provisional(subject: kernel.Link | kernel.Address | kernel.Route | kernel.Neighbor) -> bool:
    """Whether it is about a link that is thrown away again: nobody's concern but who made it."""
    links = [hop.link for hop in subject.next_hops] if isinstance(subject, kernel.Route) else [getattr(subject, "link", "")]
    links += [subject.name] if isinstance(subject, kernel.Link) else []
    return any(link.startswith(proof.PROVISIONAL_PREFIX) for link in links)


class Changes:
    """Of one namespace, that of the calling thread."""

    def __init__(self) -> None:
        self._names = _Names()
        self._links: dict[int, kernel.Link] = {}
        self._left: deque[int] = deque()

    def read(self, received: bytes) -> Iterator[kernel.Change]:
        """What the messages in `received` say that anybody could see."""
        now_ns = time.time_ns()
        offset = 0
        while offset + _HEADER.size <= len(received):
            size, kind = _HEADER.unpack_from(received, offset)
            if size < _HEADER.size or offset + size > len(received):
                return
            subject = self._subject(kind, decoded(kind, received, offset))
            if subject is not None and not _is_provisional(subject):
                yield kernel.Change(subject=subject, time_ns=now_ns, gone=kind in _GONE)
            offset += (size + 3) & ~3

    def _subject(self, kind: int, message: nlmsg) -> kernel.Link | kernel.Address | kernel.Route | kernel.Neighbor | None:
        if kind in {RTM_NEWLINK, RTM_DELLINK}:
            return self._link(message, gone=kind == RTM_DELLINK)
        if kind in {RTM_NEWADDR, RTM_DELADDR}:
            return observe.address_of(message, self._names)
        if kind in {RTM_NEWROUTE, RTM_DELROUTE}:
            return self._route(message)
        if kind in {RTM_NEWNEIGH, RTM_DELNEIGH}:
            return self._neighbor(message)
        return None

    def _link(self, message: nlmsg, *, gone: bool) -> kernel.Link | None:
        if message["family"] != socket.AF_UNSPEC:
            # A bridge tells of its ports in the same words.
            return None
        link = observe.link_of(message, self._names)
        if gone:
            self._forget(link.index)
            return link
        self._names[link.index] = link.name
        if self._links.get(link.index) == link:
            return None
        self._links[link.index] = link
        return link

    def _forget(self, index: int) -> None:
        self._links.pop(index, None)
        self._left.append(index)
        if len(self._left) > _GONE_KEPT and (oldest := self._left.popleft()) not in self._links:
            self._names.pop(oldest, None)

    def _route(self, message: nlmsg) -> kernel.Route | None:
        is_told = message["family"] in _FAMILIES and message["table"] != _RT_TABLE_LOCAL and observe.is_route(message)
        return observe.route_of(message, self._names) if is_told else None

    def _neighbor(self, message: nlmsg) -> kernel.Neighbor | None:
        if message["family"] not in _FAMILIES or message["state"] & NUD_NOARP:
            # Those of multicast and of links without addresses are no finding.
            return None
        return kernel.Neighbor(
            link=self._names[message["ifindex"]],
            address=str(ipaddress.ip_address(message.get_attr("NDA_DST"))),
            mac=message.get_attr("NDA_LLADDR") or "",
            state=_STATES.get(message["state"], ""),
        )
