"""What there is in a namespace, as the values that nsmanager plans with.

Called by the agent for `Dump` and before each change, since names are resolved and marks are looked at only here.
"""

import ipaddress
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args

from pyroute2.netlink import nlmsg
from pyroute2.netlink.rtnl import RTM_GETADDR, RTM_GETLINK, RTM_GETROUTE
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from crossns import netns, operation, proof, sysctl
from services.nsmanager.agent import entries, kind
from services.nsmanager.agent.rtnl import Rtnl

# linux/rtnetlink.h, linux/if.h, linux/if_arp.h, linux/route.h
_RTEXT_FILTER_SKIP_STATS = 8
_IFF_UP = 0x1
_ARPHRD_LOOPBACK = 772
_RTN_NAMES = {1: "unicast", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
_RTM_F_CLONED = 0x200
SYSCTLS: tuple[str, ...] = get_args(sysctl.Name)
# sysctl -> its name in pyroute2's IFLA_INET_CONF.
_INET_CONF = {"arp_ignore": "arp_ignore", "arp_announce": "arp_announce", "arp_filter": "arpfilter", "rp_filter": "rp_filter"}


class _Place(NamedTuple):
    """An address, on a link by its index: names change."""

    link_index: int
    prefix: str
    protocol: int


def snapshot(rtnl: Rtnl) -> operation.Snapshot:
    """Everything of the namespace of `rtnl`, which must be the calling thread's too; nothing of what is thrown away again."""
    found = [link for link in links(rtnl) if not link.name.startswith(proof.PROVISIONAL_PREFIX)]
    by_index = {link.index: link.name for link in found}
    return operation.Snapshot(
        cookie=netns.cookie(),
        links=tuple(found),
        addresses=tuple(addresses(rtnl, by_index)),
        routes=tuple(routes(rtnl, by_index)),
        sysctls={name: sysctl_path(name).read_text(encoding="ascii").strip() for name in SYSCTLS},
        rules=tuple(entries.rules(rtnl)),
        neighbors=tuple(entries.neighbors(rtnl, by_index)),
    )


def sysctl_path(name: str) -> Path:
    return Path("/proc/sys") / name.replace(".", "/")


def links(rtnl: Rtnl) -> list[operation.Link]:
    found = dumped_links(rtnl)
    by_index = {message["index"]: message.get_attr("IFLA_IFNAME") for message in found}
    return [link_of(message, by_index) for message in found]


def link(rtnl: Rtnl, name: str) -> operation.Link | None:
    """The link of that very name: an altname does not count."""
    return next((found for found in links(rtnl) if found.name == name), None)


def is_taken(rtnl: Rtnl, name: str) -> bool:
    """Whether a link has that name or altname: the kernel takes neither twice."""
    return any(name in {message.get_attr("IFLA_IFNAME"), *altnames(message)} for message in dumped_links(rtnl))


def dumped_links(rtnl: Rtnl) -> list[nlmsg]:
    request = ifinfmsg()
    request["attrs"] = [("IFLA_EXT_MASK", _RTEXT_FILTER_SKIP_STATS)]
    return rtnl.dump(RTM_GETLINK, request)


def altnames(message: nlmsg) -> list[str]:
    properties = message.get_attr("IFLA_PROP_LIST")
    return properties.get_attrs("IFLA_ALT_IFNAME") if properties else []


def link_of(message: nlmsg, by_index: Mapping[int, str]) -> operation.Link:
    names = altnames(message)
    was = next((name for name in names if name.startswith(operation.WAS_PREFIX)), "")
    information = message.get_attr("IFLA_LINKINFO")
    kernel_kind = (information.get_attr("IFLA_INFO_KIND") if information else None) or ""
    content = information.get_attr("IFLA_INFO_DATA") if information else None
    return operation.Link(
        index=message["index"],
        name=message.get_attr("IFLA_IFNAME"),
        kind="loopback" if message["ifi_type"] == _ARPHRD_LOOPBACK else kind.named(kernel_kind, content),
        mac=message.get_attr("IFLA_ADDRESS") or "",
        mtu=message.get_attr("IFLA_MTU") or 0,
        up=bool(message["flags"] & _IFF_UP),
        carrier=bool(message.get_attr("IFLA_CARRIER")),
        mark=next((name for name in names if name.startswith(operation.MARK_PREFIX)), ""),
        was=was.removeprefix(operation.WAS_PREFIX),
        master=by_index.get(message.get_attr("IFLA_MASTER") or 0, ""),
        parent_index=message.get_attr("IFLA_LINK") or 0,
        attributes=kind.observed(kernel_kind, content) if content else {},
        sysctls=_sysctls(message),
    )


def _sysctls(message: nlmsg) -> dict[str, str]:
    """The link's own, where they are not 0: the kernel shows them beside the rest, so that no file has to be read."""
    spec = message.get_attr("IFLA_AF_SPEC")
    inet = spec.get_attr("AF_INET") if spec else None
    # A link with an MTU too small for it has no IPv6.
    inet6 = spec.get_attr("AF_INET6") if spec else None
    conf6 = inet6.get_attr("IFLA_INET6_CONF") if inet6 else None
    found = {name: inet[field] for name, field in _INET_CONF.items()} if inet else {}
    if conf6:
        found["proxy_ndp"] = conf6["proxy_ndp"]
    return {name: str(value) for name, value in found.items() if value}


def addresses(rtnl: Rtnl, by_index: dict[int, str]) -> list[operation.Address]:
    places = rtnl.dump_remembered(RTM_GETADDR, ifaddrmsg(), _place)
    return [_address(place, by_index) for place in places if place.link_index in by_index]


def addresses_of(rtnl: Rtnl, found: operation.Link) -> list[operation.Address]:
    """Of one link: the kernel filters."""
    request = ifaddrmsg()
    request["index"] = found.index
    return [address_of(message, {found.index: found.name}) for message in rtnl.dump(RTM_GETADDR, request)]


def address_of(message: nlmsg, by_index: Mapping[int, str]) -> operation.Address:
    return _address(_place(message), by_index)


def _address(place: _Place, by_index: Mapping[int, str]) -> operation.Address:
    return operation.Address(link=by_index[place.link_index], prefix=place.prefix, protocol=place.protocol)


def _place(message: nlmsg) -> _Place:
    # IFA_ADDRESS is the peer's on a point-to-point link (pyroute2, ifaddrmsg).
    local = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
    prefix = f"{ipaddress.ip_address(local)}/{message['prefixlen']}"
    return _Place(message["index"], prefix, message.get_attr("IFA_PROTO") or 0)


def routes(rtnl: Rtnl, by_index: dict[int, str]) -> list[operation.Route]:
    """Those with our mark: the kernel filters, however many others there are."""
    request = rtmsg()
    # Left out, pyroute2 says AF_INET.
    request["family"] = socket.AF_UNSPEC
    request["proto"] = operation.ROUTE_PROTOCOL
    found = [message for message in rtnl.dump(RTM_GETROUTE, request) if _is_ours(message)]
    return [route_of(message, by_index) for message in found]


def _is_ours(message: nlmsg) -> bool:
    return message["proto"] == operation.ROUTE_PROTOCOL and is_route(message)


def is_route(message: nlmsg) -> bool:
    """Not one of the kernel's own, such as those to the table's addresses and of its caches."""
    return message["type"] in _RTN_NAMES and not message["flags"] & _RTM_F_CLONED


def route_of(message: nlmsg, by_index: Mapping[int, str]) -> operation.Route:
    everywhere = "::" if message["family"] == socket.AF_INET6 else "0.0.0.0"
    destination = ipaddress.ip_address(message.get_attr("RTA_DST") or everywhere)
    name: Any = _RTN_NAMES[message["type"]]
    return operation.Route(
        destination=f"{destination}/{message['dst_len']}",
        kernel_table=message.get_attr("RTA_TABLE") or message["table"],
        metric=message.get_attr("RTA_PRIORITY") or 0,
        kind=name,
        next_hops=tuple(_next_hops(message, by_index)) if name == "unicast" else (),
    )


def _next_hops(message: nlmsg, by_index: Mapping[int, str]) -> Iterable[operation.NextHop]:
    hops = message.get_attr("RTA_MULTIPATH")
    if not hops:
        gateway, index = _gateway(message), message.get_attr("RTA_OIF")
        return [operation.NextHop(gateway=gateway, link=by_index.get(index, ""))]
    return [operation.NextHop(gateway=_gateway(hop), link=by_index.get(hop["oif"], ""), weight=hop["hops"] + 1) for hop in hops]


def _gateway(message: nlmsg) -> str:
    gateway = message.get_attr("RTA_GATEWAY")
    if gateway is None:
        return ""
    return str(ipaddress.ip_address(gateway))
