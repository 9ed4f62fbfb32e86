"""Changes of addresses: ours are told by IFA_PROTO, others stay, and every new one is announced.

Called by the agent's `operations`.
"""

import errno
import ipaddress
import socket
from collections.abc import Callable
from pathlib import Path

from pyroute2.netlink.rtnl import RTM_DELADDR, RTM_GETROUTE, RTM_NEWADDR
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from crossns import errors, operation
from services.nsmanager.agent import links, observe
from services.nsmanager.agent.rtnl import NLM_F_CREATE, NLM_F_EXCL, Refused, Rtnl, fault

# linux/if_addr.h: usable at once. Whoever else may have the address is told by the announcement.
_IFA_F_NODAD = 0x02
_RT_SCOPE_HOST = 254
# linux/rtnetlink.h
_RTM_F_FIB_MATCH = 0x2000
_RTN_LOCAL = 2


def add(rtnl: Rtnl, wanted: operation.AddAddress, announce: Callable[[operation.Link, str], None]) -> None:
    """`announce(link, address)` is called where something was added."""
    link = links.required(rtnl, wanted.link)
    try:
        rtnl.change(RTM_NEWADDR, request(link.index, wanted.prefix, wanted.protocol), NLM_F_CREATE | NLM_F_EXCL)
    except Refused as refused:
        if refused.code != errno.EEXIST:
            raise fault(refused, f"add {wanted.prefix} to {wanted.link}", address=wanted.prefix) from refused
        _check_protocol(_find(rtnl, link, wanted.prefix), wanted)
        return
    announce(link, str(ipaddress.ip_interface(wanted.prefix).ip))


def remove(rtnl: Rtnl, wanted: operation.RemoveAddress) -> None:
    link = observe.link(rtnl, wanted.link)
    found = _find(rtnl, link, wanted.prefix) if link else None
    if link is None or found is None or found.prefix != _normal(wanted.prefix):
        return
    _check_protocol(found, wanted)
    try:
        with_promotion(link, lambda: rtnl.change(RTM_DELADDR, request(link.index, wanted.prefix, wanted.protocol)))
    except Refused as refused:
        if refused.code not in {errno.EADDRNOTAVAIL, errno.ENODEV}:
            raise fault(refused, f"remove {wanted.prefix} from {wanted.link}", address=wanted.prefix) from refused


def is_there(rtnl: Rtnl, link: operation.Link, address: str) -> bool:
    """Whether that very link has the address still, as the kernel's local routes say: among thousands it is found at once."""
    ip = ipaddress.ip_address(address)
    request = rtmsg()
    request["family"] = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    request["dst_len"] = ip.max_prefixlen
    request["flags"] = _RTM_F_FIB_MATCH
    request["attrs"] = [("RTA_DST", address), ("RTA_OIF", link.index)]
    try:
        (route,) = rtnl.get(RTM_GETROUTE, request)
        return route["type"] == _RTN_LOCAL and socket.if_nametoindex(link.name) == link.index
    except (Refused, OSError):
        return False


def with_promotion(link: operation.Link, act: Callable[[], None]) -> None:
    """`act` while the link promotes secondaries: else an IPv4 address takes those of its prefix with it, foreign ones too."""
    sysctl = Path(f"/proc/sys/net/ipv4/conf/{link.name}/promote_secondaries")
    before = sysctl.read_text(encoding="ascii")
    sysctl.write_text("1", encoding="ascii")
    try:
        act()
    finally:
        sysctl.write_text(before, encoding="ascii")


def request(index: int, prefix: str, protocol: int) -> ifaddrmsg:
    """RTM_NEWADDR or RTM_DELADDR for the link of that index."""
    interface = ipaddress.ip_interface(prefix)
    request = ifaddrmsg()
    request["family"] = socket.AF_INET if interface.version == 4 else socket.AF_INET6
    request["prefixlen"] = interface.network.prefixlen
    request["index"] = index
    request["scope"] = _RT_SCOPE_HOST if interface.is_loopback else 0
    request["attrs"] = [("IFA_LOCAL", str(interface.ip)), ("IFA_ADDRESS", str(interface.ip)), ("IFA_PROTO", protocol)]
    if interface.version == 6:
        request["attrs"].append(("IFA_FLAGS", _IFA_F_NODAD))
    elif interface.network.prefixlen < 31:
        request["attrs"].append(("IFA_BROADCAST", str(interface.network.broadcast_address)))
    return request


def _normal(prefix: str) -> str:
    return str(ipaddress.ip_interface(prefix))


def _find(rtnl: Rtnl, link: operation.Link, prefix: str) -> operation.Address | None:
    """The same address and length; for IPv6 the same address, of which a link has only one."""
    wanted = ipaddress.ip_interface(prefix)
    for found in observe.addresses_of(rtnl, link):
        seen = ipaddress.ip_interface(found.prefix)
        if seen == wanted or (wanted.version == 6 and seen.ip == wanted.ip):
            return found
    return None


def _check_protocol(found: operation.Address | None, wanted: operation.AddAddress | operation.RemoveAddress) -> None:
    if found is None or found.protocol != wanted.protocol:
        message = f"{wanted.link} has {wanted.prefix} from somebody else: it stays untouched; remove it or choose another address"
        raise errors.PermanentError("FOREIGN_OBJECT", message, link=wanted.link, address=wanted.prefix)
