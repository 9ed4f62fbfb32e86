"""Listens to what changes in the namespace and says in which ways, not what: whoever is told looks again.

Called by the agent's server. Messages are not decoded: a storm costs a header each, and many changes become one event. Neighbours
that the kernel learns and forgets by itself are not even received.
"""

import asyncio
import errno
import socket
import struct
from collections.abc import Callable
from typing import Literal, cast

from pyroute2.netlink import rtnl

from crossns import operation
from services.nsmanager.agent import bpf

# Changes that follow each other this closely are told together.
_DEBOUNCE_S = 0.004
_GROUPS = (
    rtnl.RTMGRP_LINK
    | rtnl.RTMGRP_IPV4_IFADDR
    | rtnl.RTMGRP_IPV6_IFADDR
    | rtnl.RTMGRP_IPV4_ROUTE
    | rtnl.RTMGRP_IPV6_ROUTE
    | rtnl.RTMGRP_IPV4_RULE
    | rtnl.RTMGRP_IPV6_RULE
    | rtnl.RTMGRP_NEIGH
)
_BUFFER = 64 * 1024
# One turn of the loop reads at most this many messages: answers come in between.
_TURN = 64
_HEADER = struct.Struct("IH")

Kind = Literal["link", "address", "route", "rule", "neighbor", "overrun"]
_KINDS: dict[int, Kind] = {
    rtnl.RTM_NEWLINK: "link",
    rtnl.RTM_DELLINK: "link",
    rtnl.RTM_NEWADDR: "address",
    rtnl.RTM_DELADDR: "address",
    rtnl.RTM_NEWROUTE: "route",
    rtnl.RTM_DELROUTE: "route",
    rtnl.RTM_NEWRULE: "rule",
    rtnl.RTM_DELRULE: "rule",
    rtnl.RTM_NEWNEIGH: "neighbor",
    rtnl.RTM_DELNEIGH: "neighbor",
}


class Events:
    """`notify` gets one event for each burst; "overrun" says that the kernel dropped messages (netlink(7), ENOBUFS)."""

    def __init__(self, loop: asyncio.AbstractEventLoop, notify: Callable[[operation.Event], None]) -> None:
        self._loop = loop
        self._notify = notify
        self._kinds: set[Kind] = set()
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.settimeout(0)
        bpf.attach(self._socket)
        self._socket.bind((0, _GROUPS))
        loop.add_reader(self._socket.fileno(), self._read)

    def close(self) -> None:
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()

    def _read(self) -> None:
        had_none = not self._kinds
        for _ in range(_TURN):
            try:
                self._note(self._socket.recv(_BUFFER))
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._kinds.add("overrun")
        if had_none and self._kinds:
            self._loop.call_later(_DEBOUNCE_S, self._tell)

    def _note(self, messages: bytes) -> None:
        offset = 0
        while offset + _HEADER.size <= len(messages):
            size, kind = _HEADER.unpack_from(messages, offset)
            if kind in _KINDS:
                self._kinds.add(_KINDS[kind])
            offset += (max(size, _HEADER.size) + 3) & ~3

    def _tell(self) -> None:
        kinds, self._kinds = self._kinds, set()
        self._notify(operation.Changed(kinds=cast("tuple[Kind, ...]", tuple(sorted(kinds)))))
