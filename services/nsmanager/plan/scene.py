"""What hangs on links in the kernel, before and after a change, as one set of things that can be compared.

Pure. Called by `impact`. What is there is taken from what an agent saw; what will be follows from what will be wanted, and from
what the kernel itself keeps with each address (net/ipv4/fib_frontend.c, net/ipv6/addrconf.c).
"""

import ipaddress
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

import msgspec

from crossns import examination, operation
from crossns.v1 import impact_pb2
from services.nsmanager.model import Desired, Link, Route, Rule, resource_of
from services.nsmanager.plan import addresses, rules
from services.nsmanager.plan.observed import Observed

# linux/rtnetlink.h: RT_TABLE_MAIN, RT_TABLE_LOCAL, RTPROT_KERNEL.
_MAIN, _LOCAL, _KERNEL = 254, 255, 2
_IPV6_METRIC = 256
_LINK_LOCAL = "fe80::/64"
LOOPBACK = "lo"
# An address that the kernel is to choose: known when it is there.
UNKNOWN = _LINK_LOCAL
_FORWARDS_IPV6 = "net.ipv6.conf.all.forwarding"


@dataclass(frozen=True, slots=True, order=True)
class Thing:
    """`table` is the table's id, `link` "" for what has several."""

    kind: impact_pb2.ImpactKind.ValueType
    table: str
    link: str
    object: str


@dataclass(frozen=True, slots=True)
class Belonging:
    """Whose a thing is: a resource's; else nobody's, unless the kernel keeps it, or has learned it, by itself. `stays`: it
    is left where it is, without the link that it names."""

    resource: str = ""
    is_kernels: bool = False
    stays: bool = False


KERNELS = Belonging(is_kernels=True)
Scene = Mapping[Thing, Belonging]


def before(desired: Desired, snapshot: operation.Snapshot, seen: examination.Examination, links: Collection[str]) -> Scene:
    """What hangs on these links of a table, and where its VIPs are. With `lo` among them: all that is ours in the table."""
    names, table = frozenset(links) - {LOOPBACK}, desired.id
    scene: dict[Thing, Belonging] = {}
    owners = {link.name: resource_of(link.mark) if link.mark else "" for link in snapshot.links}
    for link in snapshot.links:
        if link.name in names:
            kind = "" if link.was else link.kind
            scene[Thing(impact_pb2.IMPACT_KIND_LINK, table, link.name, kind)] = Belonging(owners[link.name])
    for address in snapshot.addresses:
        if address.link in names and address.protocol != operation.VIP_PROTOCOL:
            thing = Thing(impact_pb2.IMPACT_KIND_ADDRESS, table, address.link, address.prefix)
            is_ours = address.protocol == operation.ADDRESS_PROTOCOL
            owner = owners[address.link] if is_ours else ""
            scene[thing] = KERNELS if is_link_local(address.prefix) and not is_ours else Belonging(owner)
    wanted = {vip.prefix: vip.resource for vip in desired.vips}
    up = {link.name for link in snapshot.links if link.up}
    for address in snapshot.addresses:
        if address.protocol == operation.VIP_PROTOCOL:
            scene |= _vip(table, address.link, address.prefix, wanted.get(address.prefix, ""), up)
    by_key = {(route.destination, route.kernel_table, route.metric): route.resource for route in desired.routes}
    scene |= {_route_seen(table, route): _whose(route, by_key) for route in seen.routes}
    scene |= _neighbors_seen(desired, seen, owners)
    scene |= _rules_seen(desired, seen)
    if LOOPBACK in links:
        scene |= _without_link(desired, snapshot)
    return scene


def _without_link(desired: Desired, snapshot: operation.Snapshot) -> Iterator[tuple[Thing, Belonging]]:
    """Routes that lead nowhere and rules that name no interface, where they are there."""
    keys = {(route.destination, route.kernel_table, route.metric) for route in snapshot.routes}
    for route in desired.routes:
        if not route.hops and (route.destination, route.kernel_table, route.metric) in keys:
            text = _text(route.kind, route.destination, route.kernel_table, route.metric, ())
            yield Thing(impact_pb2.IMPACT_KIND_STATIC_ROUTE, desired.id, "", text), Belonging(route.resource)
    for rule in desired.rules:
        if not rule.interface and rules.is_present(rule, desired, Observed(snapshot=snapshot)):
            yield _rule(desired.id, "", rule), Belonging(rule.resource)


def after(
    desired: Desired,
    snapshot: operation.Snapshot,
    links: Iterable[Link],
    link_locals: Mapping[str, tuple[str, ...]],
    changed: Collection[str],
) -> Scene:
    """What hangs on these links of a table when it is as desired, and where its VIPs are. `link_locals` by interface; `changed`:
    resources of the table that stay and become others."""
    scene: dict[Thing, Belonging] = {}
    up = {link.name for link in snapshot.links if link.up and link.mark == ""} | {link.name for link in desired.links if link.up}
    forwards = snapshot.sysctls.get(_FORWARDS_IPV6) == "1"
    arriving = list(links)
    for link in arriving:
        kind = "" if link.kind == "physical" else link.kind
        scene[Thing(impact_pb2.IMPACT_KIND_LINK, desired.id, link.name, kind)] = Belonging(link.resource)
        own = [(prefix, Belonging(link.resource)) for prefix in link.addresses]
        for prefix, belonging in (*own, *((prefix, KERNELS) for prefix in link_locals.get(link.resource, ()))):
            scene[Thing(impact_pb2.IMPACT_KIND_ADDRESS, desired.id, link.name, prefix)] = belonging
            scene |= _kept(desired.id, link.name, prefix, is_up=link.up, forwards=forwards)
        if link.up:
            # Every link that is up and has IPv6 (addrconf_add_mroute).
            scene[_route(desired.id, link.name, "multicast", "ff00::/8", _LOCAL, _IPV6_METRIC)] = KERNELS
    prefixes = [(ipaddress.ip_interface(text).network, link.name) for link in desired.links for text in link.addresses]
    taken = {text.split("/")[0] for link in desired.links for text in link.addresses}
    for vip in desired.vips:
        if vip.prefix.split("/")[0] not in taken:
            scene |= _vip(desired.id, addresses.vip_link(vip, prefixes), vip.prefix, vip.resource, up | {"lo"})
    for link in arriving:
        scene |= _wanted_on(link, desired)
    scene |= {_route_wanted(route, desired): Belonging(route.resource) for route in desired.routes if route.resource in changed}
    return scene


def left_over(table: str, seen: examination.Examination, links: Collection[str]) -> Scene:
    """Routes of others that stay when the links leave, with their next hops over other links. By the table's id."""
    scene: dict[Thing, Belonging] = {}
    for route in seen.routes:
        hops = tuple(hop for hop in route.hops if hop.link not in links)
        if route.stays and hops and route.protocol != operation.ROUTE_PROTOCOL:
            scene[_route_seen(table, msgspec.structs.replace(route, hops=hops))] = Belonging()
    return scene


def _vip(table: str, link: str, prefix: str, owner: str, up: Iterable[str]) -> Scene:
    thing = Thing(impact_pb2.IMPACT_KIND_VIP, table, link, prefix)
    return {thing: Belonging(owner), **_kept(table, link, prefix, is_up=link in up, forwards=False)}


def _kept(table: str, link: str, prefix: str, *, is_up: bool, forwards: bool) -> Scene:
    """The routes that the kernel keeps with an address."""
    interface = ipaddress.ip_interface(prefix)
    network, most = interface.network, interface.max_prefixlen
    found: list[Thing] = []
    if prefix == UNKNOWN:
        found.append(_route(table, link, "local", UNKNOWN, _LOCAL, 0))
    elif is_up or interface.version == 4:
        found.append(_route(table, link, "local", str(interface.ip), _LOCAL, 0))
    if is_up and interface.version == 4:
        if network.prefixlen < most:
            found.append(_route(table, link, "unicast", str(network), _MAIN, 0))
        if network.prefixlen < most - 1:
            found.append(_route(table, link, "broadcast", str(network.broadcast_address), _LOCAL, 0))
    elif is_up:
        found.append(_route(table, link, "unicast", str(network), _MAIN, _IPV6_METRIC))
        if forwards and network.prefixlen < most - 1:
            found.append(_route(table, link, "anycast", str(network.network_address), _LOCAL, 0))
    return dict.fromkeys(found, KERNELS)


def _wanted_on(link: Link, desired: Desired) -> Iterator[tuple[Thing, Belonging]]:
    """Routes, neighbours and rules of ours that go through the link."""
    for route in desired.routes:
        if link.up and route.hops and {hop.link for hop in _hops(route, desired)} == {link.name}:
            yield _route_wanted(route, desired), Belonging(route.resource)
    for neighbor in desired.neighbors:
        if neighbor.interface == link.resource:
            yield _neighbor(desired.id, link.name, neighbor.address, neighbor.mac), Belonging(neighbor.resource)
    for rule in desired.rules:
        if rule.interface == link.resource:
            yield _rule(desired.id, link.name, rule), Belonging(rule.resource)


def _route_wanted(route: Route, desired: Desired) -> Thing:
    """The kernel's route for one of ours that has next hops."""
    hops = _hops(route, desired)
    text = _text(route.kind, route.destination, route.kernel_table, route.metric, hops)
    return Thing(impact_pb2.IMPACT_KIND_STATIC_ROUTE, desired.id, hops[0].link if len(hops) == 1 else "", text)


def _hops(route: Route, desired: Desired) -> list[examination.Hop]:
    """With the names of links, also of those that the kernel finds by the gateway."""
    named = {each.resource: each.name for each in desired.links}
    return [
        examination.Hop(
            gateway=hop.gateway,
            link=named.get(hop.interface, "") if hop.interface else _holding(hop.gateway, desired.links),
            weight=hop.weight,
        )
        for hop in route.hops
    ]


def _holding(gateway: str, links: Iterable[Link]) -> str:
    address = ipaddress.ip_address(gateway)
    found = [
        (network.prefixlen, link.name)
        for link in links
        for text in link.addresses
        if address in (network := ipaddress.ip_interface(text).network)
    ]
    return max(found)[1] if found else ""


def _route_seen(table: str, route: examination.Route) -> Thing:
    is_kernels = route.protocol == _KERNEL
    kind = impact_pb2.IMPACT_KIND_CONNECTED_ROUTE if is_kernels else impact_pb2.IMPACT_KIND_STATIC_ROUTE
    text = _text(route.kind, route.destination, route.kernel_table, route.metric, route.hops)
    return Thing(kind, table, route.hops[0].link if len(route.hops) == 1 else "", text)


def _whose(route: examination.Route, by_key: Mapping[tuple[str, int, int], str]) -> Belonging:
    if route.protocol == _KERNEL:
        return KERNELS
    is_ours = route.protocol == operation.ROUTE_PROTOCOL
    return Belonging(by_key.get((route.destination, route.kernel_table, route.metric), "") if is_ours else "")


def _route(table: str, link: str, kind: str, destination: str, kernel_table: int, metric: int) -> Thing:
    text = _text(kind, destination, kernel_table, metric, ())
    return Thing(impact_pb2.IMPACT_KIND_CONNECTED_ROUTE, table, link, text)


def _text(kind: str, destination: str, kernel_table: int, metric: int, hops: Iterable[examination.Hop]) -> str:
    """As `ip route` has it, the device of a single next hop left out."""
    network = ipaddress.ip_network(destination)
    shown = str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)
    words = [] if kind == "unicast" else [kind]
    words.append(shown if network.prefixlen else f"default (IPv{network.version})")
    ways = list(hops)
    if len(ways) == 1 and ways[0].gateway:
        words.append(f"via {ways[0].gateway}")
    elif len(ways) > 1:
        words += sorted(f"nexthop via {hop.gateway or '-'} dev {hop.link} weight {hop.weight}" for hop in ways)
    if kernel_table != _MAIN:
        words.append("table local" if kernel_table == _LOCAL else f"table {kernel_table}")
    if metric:
        words.append(f"metric {metric}")
    return " ".join(words)


def _neighbors_seen(desired: Desired, seen: examination.Examination, owners: Mapping[str, str]) -> Scene:
    ours = {(wish.interface, wish.address): wish.resource for wish in desired.neighbors}
    scene: dict[Thing, Belonging] = {}
    for each in seen.neighbors:
        is_ours = each.protocol == operation.ROUTE_PROTOCOL
        owner = ours.get((owners.get(each.link, ""), each.address), "") if is_ours else ""
        scene[_neighbor(desired.id, each.link, each.address, each.mac)] = KERNELS if each.learned else Belonging(owner)
    return scene


def _neighbor(table: str, link: str, address: str, mac: str) -> Thing:
    return Thing(impact_pb2.IMPACT_KIND_NEIGHBOR, table, link, f"{address} {mac or 'proxy'}")


def _rules_seen(desired: Desired, seen: examination.Examination) -> Scene:
    """Ours as they are wanted; of others only where they stand is told."""
    scene: dict[Thing, Belonging] = {}
    named = {link.resource: link.name for link in desired.links}
    links = {rule.link for rule in seen.rules}
    for rule in seen.rules:
        if rule.protocol != operation.ROUTE_PROTOCOL:
            scene[Thing(impact_pb2.IMPACT_KIND_RULE, desired.id, rule.link, rule_of_others(rule))] = Belonging(stays=True)
    for wish in desired.rules:
        if named.get(wish.interface, "") in links:
            scene[_rule(desired.id, named[wish.interface], wish)] = Belonging(wish.resource)
    return scene


def rule_of_others(rule: examination.Rule) -> str:
    return f"{rule.family} {rule.priority} {'oif' if rule.is_output else 'iif'} {rule.link}"


def _rule(table: str, link: str, rule: Rule) -> Thing:
    words = ["inet" if rule.version == 4 else "inet6", str(rule.priority)]
    words += [f"from {rule.source}"] if rule.source else []
    words += [f"to {rule.destination}"] if rule.destination else []
    words += [f"iif {link}"] if link else []
    words += [f"fwmark {rule.mark:#x}/{rule.mark_mask:#x}"] if rule.mark_mask else []
    words += [f"lookup {rule.kernel_table}" if rule.action == "lookup" else rule.action]
    return Thing(impact_pb2.IMPACT_KIND_RULE, table, link, " ".join(words))


def is_link_local(prefix: str) -> bool:
    return ipaddress.ip_interface(prefix).ip.is_link_local and ":" in prefix
