"""How many addresses, routes and neighbours a namespace has: dumped by the kernel, counted by their headers, nothing decoded.

Called by the agent for `ReadCounters`. A count of what changes meanwhile is one of a moment that was not: nothing is read twice.
"""

import socket
import struct
from collections import Counter

from pyroute2.netlink import nlmsg
from pyroute2.netlink.rtnl import RTM_GETADDR, RTM_GETNEIGH, RTM_GETROUTE
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from crossns import counter
from services.nsmanager.agent.rtnl import Rtnl

_FAMILIES: dict[int, str] = {socket.AF_INET: "inet", socket.AF_INET6: "inet6"}
# linux/neighbour.h: NUD_* -> what it is counted as. Those of multicast (NOARP) are no neighbours.
_STATES = {1: "failed", 2: "reachable", 4: "stale", 8: "stale", 16: "stale", 32: "failed", 128: "permanent"}
# linux/rtnetlink.h: RTN_UNICAST, _BLACKHOLE, _UNREACHABLE, _PROHIBIT; RT_TABLE_LOCAL has the kernel's own.
_ROUTES, _LOCAL, _CLONED = {1, 6, 7, 8}, 255, 0x200
# Behind the netlink header: struct rtmsg and struct ndmsg. Of both, and of struct ifaddrmsg, the family is the first byte.
_AT = 16
_ROUTE, _NEIGHBOR = struct.Struct("4xBxxBI"), struct.Struct("8xH")


def census(rtnl: Rtnl) -> dict[str, int]:
    """By `counter.CENSUS`, zeros included."""
    found: Counter[str] = Counter(dict.fromkeys(counter.CENSUS, 0))
    for received, offset in rtnl.scan(RTM_GETADDR, ifaddrmsg()):
        found[f"{_FAMILIES.get(received[offset + _AT])}.addresses"] += 1
    for received, offset in rtnl.scan(RTM_GETROUTE, _of_any_family(rtmsg())):
        table, kind, flags = _ROUTE.unpack_from(received, offset + _AT)
        if table != _LOCAL and kind in _ROUTES and not flags & _CLONED:
            found[f"{_FAMILIES.get(received[offset + _AT])}.routes"] += 1
    for received, offset in rtnl.scan(RTM_GETNEIGH, ndmsg()):
        (state,) = _NEIGHBOR.unpack_from(received, offset + _AT)
        if state in _STATES:
            found[f"{_FAMILIES.get(received[offset + _AT])}.neighbors.{_STATES[state]}"] += 1
    return {name: found[name] for name in counter.CENSUS}


def _of_any_family(request: nlmsg) -> nlmsg:
    # Left out, pyroute2 says AF_INET.
    request["family"] = socket.AF_UNSPEC
    return request
