"""Looks at all that hangs on some links, whoever put it there. Reads only.

Called by the agent's `operations` for `Examine`. The kernel filters by link: a table's other routes and neighbours, however many
they are, cost nothing.
"""

import ipaddress
import socket
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import msgspec
from pyroute2.netlink import nlmsg
from pyroute2.netlink.rtnl import RTM_GETNEIGH, RTM_GETROUTE, RTM_GETRULE, RTM_NEWROUTE
from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ndmsg import NTF_PROXY, NUD_PERMANENT, ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from crossns import examination
from services.nsmanager.agent import conntrack, entries, keepsakes, observe
from services.nsmanager.agent.rtnl import Refused, Rtnl, decoded, encoded

# linux/rtnetlink.h
_RTN_NAMES = {
    1: "unicast",
    2: "local",
    3: "broadcast",
    4: "anycast",
    5: "multicast",
    6: "blackhole",
    7: "unreachable",
    8: "prohibit",
}
_RTM_F_CLONED = 0x200
# linux/neighbour.h: REACHABLE, STALE, DELAY, PROBE. The others hold no MAC address, or one that follows from the address.
_NUD_LEARNED = 0x02 | 0x04 | 0x08 | 0x10
# net/tcp_states.h
_ESTABLISHED = "01"


def examine(rtnl: Rtnl, wanted: examination.Examine) -> examination.Examination:
    by_index = {link.index: link.name for link in observe.links(rtnl)}
    chosen = {index: name for index, name in by_index.items() if name in wanted.links}
    addresses = observe.addresses(rtnl, by_index)
    on_links = {each.prefix.split("/")[0] for each in addresses if each.link in wanted.links}
    elsewhere = {each.prefix.split("/")[0] for each in addresses if each.link not in wanted.links}
    leaving = [route for index in chosen for route in _routes(rtnl, index, by_index)]
    return examination.Examination(
        routes=tuple(dict.fromkeys([*leaving, *_routes_from(rtnl, on_links - elsewhere, by_index)])),
        neighbors=tuple(neighbor for index, name in chosen.items() for neighbor in _neighbors(rtnl, index, name)),
        rules=tuple(_rules(rtnl, wanted.links)),
        sessions=_sessions(on_links),
        carries_session=wanted.local in on_links or (wanted.local in elsewhere and _way_to(rtnl, wanted.remote) in chosen),
    )


def count_forwarded(
    rtnl: Rtnl,
    wanted: examination.Examine,
    later: Callable[[float, Callable[[], None]], object],
    answer: Callable[[examination.Examination], None],
) -> None:
    """`answer` with the examination and the count beside it, at once or later."""
    by_index = {link.index: link.name for link in observe.links(rtnl)}
    chosen = {index for index, name in by_index.items() if name in wanted.links}
    own = {each.prefix.split("/")[0] for each in observe.addresses(rtnl, by_index)}
    seen = examine(rtnl, wanted)
    conntrack.Count(
        chosen,
        own,
        lambda address: _way_to(rtnl, address),
        lambda found: answer(msgspec.structs.replace(seen, forwarded=found[0], more=found[1])),
    ).begin(later)


def ways(rtnl: Rtnl, wanted: examination.LookUp) -> examination.Ways:
    by_index = {link.index: link.name for link in observe.links(rtnl)}
    return examination.Ways(links={each: by_index.get(_way_to(rtnl, each), "") for each in wanted.destinations})


def _routes(rtnl: Rtnl, index: int, by_index: dict[int, str]) -> Iterator[examination.Route]:
    request = rtmsg()
    request["family"] = socket.AF_UNSPEC
    request["attrs"] = [("RTA_OIF", index)]
    for reply in rtnl.dump_bytes(RTM_GETROUTE, encoded(request)):
        message = decoded(RTM_NEWROUTE, reply)
        # The family of multicast routing answers, too.
        if message["family"] in {socket.AF_INET, socket.AF_INET6} and not message["flags"] & _RTM_F_CLONED:
            # Of IPv4 next hops each takes all others with it, unless they are a group of their own (ip-nexthop(8)).
            stays = message["family"] == socket.AF_INET6 or keepsakes.has_object(reply)
            yield _route(message, by_index, stays=stays)


def _routes_from(rtnl: Rtnl, addresses: Collection[str], by_index: dict[int, str]) -> Iterator[examination.Route]:
    """Of any link: those that prefer an IPv4 source which goes."""
    for address in map(ipaddress.ip_address, addresses):
        if address.version == 4:
            for reply in keepsakes.sending_from(rtnl, address.packed):
                yield _route(decoded(RTM_NEWROUTE, reply), by_index)


def _route(message: nlmsg, by_index: dict[int, str], *, stays: bool = False) -> examination.Route:
    everywhere = "::" if message["family"] == socket.AF_INET6 else "0.0.0.0"
    destination = ipaddress.ip_address(message.get_attr("RTA_DST") or everywhere)
    hops: Any = message.get_attr("RTA_MULTIPATH") or []
    single = [_hop(message, message.get_attr("RTA_OIF"), 1, by_index)] if not hops else []
    return examination.Route(
        destination=f"{destination}/{message['dst_len']}",
        kernel_table=message.get_attr("RTA_TABLE") or message["table"],
        metric=message.get_attr("RTA_PRIORITY") or 0,
        kind=_RTN_NAMES.get(message["type"], str(message["type"])),
        protocol=message["proto"],
        hops=(*single, *(_hop(each, each["oif"], each["hops"] + 1, by_index) for each in hops)),
        stays=stays,
    )


def _hop(message: nlmsg, index: int | None, weight: int, by_index: dict[int, str]) -> examination.Hop:
    gateway = message.get_attr("RTA_GATEWAY")
    shown = str(ipaddress.ip_address(gateway)) if gateway else ""
    return examination.Hop(gateway=shown, link=by_index.get(index or 0, ""), weight=weight)


def _neighbors(rtnl: Rtnl, index: int, name: str) -> Iterator[examination.Neighbor]:
    for flags in (0, NTF_PROXY):
        request = ndmsg()
        request["flags"] = flags
        # The kernel filters real entries by it, and takes it for proxies without a word (neigh_dump_info).
        request["attrs"] = [("NDA_IFINDEX", index)]
        for message in rtnl.dump(RTM_GETNEIGH, request):
            is_proxy = bool(message["flags"] & NTF_PROXY)
            is_kept = is_proxy or message["state"] & (NUD_PERMANENT | _NUD_LEARNED)
            if message["ifindex"] == index and message["family"] in {socket.AF_INET, socket.AF_INET6} and is_kept:
                yield examination.Neighbor(
                    link=name,
                    address=str(ipaddress.ip_address(message.get_attr("NDA_DST"))),
                    mac="" if is_proxy else message.get_attr("NDA_LLADDR") or "",
                    proxy=is_proxy,
                    learned=not is_proxy and not message["state"] & NUD_PERMANENT,
                    protocol=message.get_attr("NDA_PROTOCOL") or 0,
                )


def _rules(rtnl: Rtnl, names: Collection[str]) -> Iterator[examination.Rule]:
    for message in rtnl.dump(RTM_GETRULE, fibmsg()):
        for attribute in ("FRA_IIFNAME", "FRA_OIFNAME"):
            if message["family"] in entries.FAMILY_NAMES and message.get_attr(attribute) in names:
                yield examination.Rule(
                    family=entries.FAMILY_NAMES[message["family"]],
                    priority=message.get_attr("FRA_PRIORITY") or 0,
                    link=message.get_attr(attribute),
                    is_output=attribute == "FRA_OIFNAME",
                    protocol=message.get_attr("FRA_PROTOCOL") or 0,
                )


def _sessions(addresses: Collection[str]) -> int:
    """/proc/net is that of the process's first thread, which is in the namespace."""
    count = 0
    for name in ("tcp", "tcp6"):
        path = Path("/proc/net") / name
        text = path.read_text(encoding="ascii") if path.exists() else ""
        found = (line.split()[1:4] for line in text.splitlines()[1:])
        count += sum(state == _ESTABLISHED and address_of(local.split(":")[0]) in addresses for local, _, state in found)
    return count


def address_of(text: str) -> str:
    """As /proc/net/tcp has it: words of 32 bits in the machine's order, those of the network in each (little endian here)."""
    packed = b"".join(bytes.fromhex(text[at : at + 8])[::-1] for at in range(0, len(text), 8))
    address = ipaddress.ip_address(packed)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _way_to(rtnl: Rtnl, remote: str) -> int:
    """The link over which the kernel would send to that address now; 0 where it would not."""
    if not remote:
        return 0
    address = ipaddress.ip_address(remote)
    request = rtmsg()
    request["family"] = socket.AF_INET if address.version == 4 else socket.AF_INET6
    request["dst_len"] = address.max_prefixlen
    request["attrs"] = [("RTA_DST", remote)]
    try:
        (route,) = rtnl.get(RTM_GETROUTE, request)
    except Refused:
        return 0
    return route.get_attr("RTA_OIF") or 0
