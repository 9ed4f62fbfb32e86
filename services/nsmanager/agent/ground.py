"""Where a trial stands in nobody's way: networks that no address or route of this table touches, ports on which nobody listens.

Called by the agent for `ProbeGround`. Nothing is changed: a port is bound on loopback for a moment.
"""

import errno
import ipaddress
import socket
from collections.abc import Iterable

from pyroute2.netlink.rtnl import RTM_GETROUTE
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from crossns import proof
from services.nsmanager.agent import observe
from services.nsmanager.agent.rtnl import Refused, Rtnl

# linux/rtnetlink.h: the route itself, not what would be made of it.
_RTM_F_FIB_MATCH = 0x2000
_LOOPBACK = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


def probe(rtnl: Rtnl, wanted: proof.ProbeGround) -> proof.FreeGround:
    by_index = {link.index: link.name for link in observe.links(rtnl)}
    held = [ipaddress.ip_interface(each.prefix).network for each in observe.addresses(rtnl, by_index)]
    networks = (ipaddress.IPv4Network(each) for each in wanted.networks)
    return proof.FreeGround(
        networks=tuple(str(each) for each in networks if _is_free(rtnl, each, held)),
        ports=tuple(port for port in wanted.ports if _is_port_free(port)),
    )


def _is_free(rtnl: Rtnl, network: ipaddress.IPv4Network, held: Iterable[object]) -> bool:
    return not any(
        isinstance(each, ipaddress.IPv4Network) and each.prefixlen and each.overlaps(network) for each in held
    ) and not any(_is_routed(rtnl, address) for address in network)


def _is_routed(rtnl: Rtnl, address: ipaddress.IPv4Address) -> bool:
    """Whether more leads there than a default route."""
    request = rtmsg()
    request["family"], request["dst_len"], request["flags"] = socket.AF_INET, 32, _RTM_F_FIB_MATCH
    request["attrs"] = [("RTA_DST", str(address))]
    try:
        (route,) = rtnl.get(RTM_GETROUTE, request)
    except Refused:
        return False
    return bool(route["dst_len"])


def _is_port_free(port: int) -> bool:
    """A listener on all addresses would be met here, too."""
    for family, address in _LOOPBACK:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            try:
                with socket.socket(family, kind | socket.SOCK_CLOEXEC) as tried:
                    tried.bind((address, port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    return False
    return True
