"""From messages to values: every rule that a spec must keep, each with the path of the field and what to do instead."""

import dataclasses
import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

from crossns import errors, names
from crossns.budget import Budget
from crossns.v1 import interface_pb2, route_pb2, route_table_pb2, v_service_pb2
from services.nsmanager.model import field, identity
from services.nsmanager.model.values import Hop, Link, Route, Table, Vip

ADDRESSES_MAX = 256
MTU_MIN, MTU_MAX = 68, 65535
# Beyond what connection tracking takes on any device.
BUDGET_MAX = 1_000_000
# RFC 8200, section 5; the kernel gives no IPv6 address to a link with less.
IPV6_MTU_MIN = 1280
DISPLAY_NAME_MAX = 63
DESCRIPTION_MAX = 1024
# RT_TABLE_MAIN (linux/rtnetlink.h).
MAIN_TABLE = 254
# IPv6 routes without a metric get this one (IP6_RT_PRIO_USER).
IPV6_METRIC = 1024
PORTS_MAX = 1023
_ROUTE_KINDS = {
    route_pb2.ROUTE_TYPE_UNSPECIFIED: "unicast",
    route_pb2.ROUTE_TYPE_UNICAST: "unicast",
    route_pb2.ROUTE_TYPE_BLACKHOLE: "blackhole",
    route_pb2.ROUTE_TYPE_UNREACHABLE: "unreachable",
    route_pb2.ROUTE_TYPE_PROHIBIT: "prohibit",
}
_MACVLAN_MODES = {
    interface_pb2.MACVLAN_MODE_UNSPECIFIED: "bridge",
    interface_pb2.MACVLAN_MODE_BRIDGE: "bridge",
    interface_pb2.MACVLAN_MODE_PRIVATE: "private",
    interface_pb2.MACVLAN_MODE_VEPA: "vepa",
}
# The kernel's own words and numbers (linux/if_bonding.h).
_BOND_MODES = {
    interface_pb2.BOND_MODE_UNSPECIFIED: "1",
    interface_pb2.BOND_MODE_ACTIVE_BACKUP: "1",
    interface_pb2.BOND_MODE_BALANCE_XOR: "2",
    interface_pb2.BOND_MODE_LACP: "4",
}


_ARP_IGNORE = {
    route_table_pb2.ARP_IGNORE_NEVER: 0,
    route_table_pb2.ARP_IGNORE_OTHER_LINK: 1,
    route_table_pb2.ARP_IGNORE_OTHER_SUBNET: 2,
    route_table_pb2.ARP_IGNORE_HOST_SCOPE: 3,
    route_table_pb2.ARP_IGNORE_ALWAYS: 8,
}
_ARP_ANNOUNCE = {
    route_table_pb2.ARP_ANNOUNCE_ANY: 0,
    route_table_pb2.ARP_ANNOUNCE_SAME_SUBNET: 1,
    route_table_pb2.ARP_ANNOUNCE_BEST: 2,
}
_REVERSE_PATH_FILTER = {
    route_table_pb2.REVERSE_PATH_FILTER_OFF: 0,
    route_table_pb2.REVERSE_PATH_FILTER_STRICT: 1,
    route_table_pb2.REVERSE_PATH_FILTER_LOOSE: 2,
}


def route_table(message: route_table_pb2.RouteTable) -> Table:
    """Raises InvalidSpec. `index` is the allocated one, 0 before there is one."""
    spec = message.spec
    names.check(message.name, "routeTables", "name")
    field.check_text("spec.display_name", spec.display_name, DISPLAY_NAME_MAX)
    field.check_text("spec.description", spec.description, DESCRIPTION_MAX)
    field.check_range("spec.index", spec.index, 0, identity.INDEX_MAX)
    return Table(
        resource=message.name,
        id=names.resource_id(message.name),
        index=message.status.index,
        forwarding=spec.forwarding,
        generation=message.generation,
        conf=_conf(spec),
        budget=_budget(spec.budget),
    )


def _budget(given: route_table_pb2.Budget) -> Budget | None:
    for name in ("max_sessions", "new_sessions_per_second", "burst"):
        field.check_range(f"spec.budget.{name}", getattr(given, name), 0, BUDGET_MAX)
    if given.burst and not given.new_sessions_per_second:
        raise errors.InvalidSpec("spec.budget.burst", "says nothing alone: set new_sessions_per_second, too")
    if not given.max_sessions and not given.new_sessions_per_second:
        return None
    rate = given.new_sessions_per_second
    return Budget(given.max_sessions, rate, given.burst or rate)


def interface(message: interface_pb2.Interface) -> Link:
    """Raises InvalidSpec."""
    spec = message.spec
    names.check(message.name, "interfaces", "name")
    names.check(spec.route_table, "routeTables", "spec.route_table")
    kind = spec.WhichOneof("kind")
    if kind is None:
        raise errors.InvalidSpec(
            "spec.kind",
            "is required: set one of physical, bridge, macvlan, vlan, vxlan, bond, dummy, tap",
            reason="REQUIRED_FIELD",
        )
    if spec.mtu:
        has_ipv6 = any(":" in text for text in spec.addresses)
        field.check_range("spec.mtu", spec.mtu, IPV6_MTU_MIN if has_ipv6 else MTU_MIN, MTU_MAX)
    if len(spec.addresses) > ADDRESSES_MAX:
        raise errors.InvalidSpec("spec.addresses", f"at most {ADDRESSES_MAX} are taken", max=ADDRESSES_MAX)
    link = Link(
        resource=message.name,
        table=names.resource_id(spec.route_table),
        name=_link_name(message, kind),
        kind=kind,
        addresses=_addresses(spec.addresses),
        mtu=spec.mtu,
        up=spec.enabled if spec.HasField("enabled") else True,
        generation=message.generation,
    )
    link = _KINDS[kind](link, spec)
    if link.resource in link.ports:
        raise errors.InvalidSpec(f"spec.{kind}", f"{link.resource} cannot be a port of itself")
    return link


def route(message: route_pb2.Route) -> Route:
    """Raises InvalidSpec."""
    spec = message.spec
    names.check(message.name, "routes", "name")
    destination = field.network("spec.destination", spec.destination)
    kind = _ROUTE_KINDS.get(spec.type)
    if kind is None:
        raise errors.InvalidSpec("spec.type", "is not a known type: use UNICAST, BLACKHOLE, UNREACHABLE or PROHIBIT")
    if kind != "unicast" and spec.gateways:
        raise errors.InvalidSpec("spec.gateways", f"must be empty for a {kind} route: it goes nowhere")
    if kind == "unicast" and not spec.gateways:
        raise errors.InvalidSpec("spec.gateways", "is required for a unicast route: give at least one", reason="REQUIRED_FIELD")
    return Route(
        resource=message.name,
        table=names.resource_id(names.parent(message.name)),
        destination=str(destination),
        kernel_table=spec.kernel_table or MAIN_TABLE,
        metric=spec.metric or (IPV6_METRIC if destination.version == 6 else 0),
        kind=kind,
        hops=tuple(_hop(f"spec.gateways[{index}]", gateway, destination.version) for index, gateway in enumerate(spec.gateways)),
        generation=message.generation,
    )


def vips(message: v_service_pb2.VService) -> tuple[Vip, ...]:
    """The VIPs of a stored vService, which its owner has checked."""
    siblings = frozenset(frontend.name for frontend in message.spec.frontends)
    return tuple(
        Vip(
            message.name,
            frontend.name,
            names.resource_id(frontend.route_table),
            str(ipaddress.ip_interface(frontend.address)),
            message.generation,
            siblings,
        )
        for frontend in message.spec.frontends
    )


def _conf(spec: route_table_pb2.RouteTableSpec) -> dict[str, int]:
    """The kernel's numbers (Documentation/networking/ip-sysctl) for what is asked."""
    asked: list[tuple[str, str, int, Mapping[Any, int]]] = [
        ("arp_ignore", "spec.arp.ignore", spec.arp.ignore, _ARP_IGNORE),
        ("arp_announce", "spec.arp.announce", spec.arp.announce, _ARP_ANNOUNCE),
        ("rp_filter", "spec.reverse_path_filter", spec.reverse_path_filter, _REVERSE_PATH_FILTER),
    ]
    conf = {"arp_filter": int(spec.arp.filter)} if spec.arp.HasField("filter") else {}
    for sysctl, path, value, numbers in asked:
        if value and value not in numbers:
            raise errors.InvalidSpec(path, "is not a known value: the client may be newer than the device")
        if value:
            conf[sysctl] = numbers[value]
    return conf


def _link_name(message: interface_pb2.Interface, kind: str) -> str:
    given = message.spec.link_name
    name = given or (message.spec.physical.link_name if kind == "physical" else "") or names.resource_id(message.name)
    if not given and len(name) > field.LINK_NAME_MAX:
        raise errors.InvalidSpec(
            "spec.link_name", f"is required: {name!r} has more than {field.LINK_NAME_MAX} characters", reason="REQUIRED_FIELD"
        )
    return field.check_link_name("spec.link_name", name)


def _physical(link: Link, spec: interface_pb2.InterfaceSpec) -> Link:
    name, mac = spec.physical.link_name, spec.physical.mac_address
    if bool(name) == bool(mac):
        raise errors.InvalidSpec("spec.physical", "needs exactly one of link_name and mac_address", reason="REQUIRED_FIELD")
    if name:
        return _with(link, card_name=field.check_link_name("spec.physical.link_name", name))
    return _with(link, card_mac=field.mac_address("spec.physical.mac_address", mac))


def _bridge(link: Link, spec: interface_pb2.InterfaceSpec) -> Link:
    return _with(
        link, ports=_interfaces("spec.bridge.ports", spec.bridge.ports), attributes={"stp": "1" if spec.bridge.stp else "0"}
    )


def _macvlan(link: Link, spec: interface_pb2.InterfaceSpec) -> Link:
    mode = _MACVLAN_MODES.get(spec.macvlan.mode)
    if mode is None:
        raise errors.InvalidSpec("spec.macvlan.mode", "is not a known mode: use BRIDGE, PRIVATE or VEPA")
    return _with(link, parent=names.check(spec.macvlan.parent, "interfaces", "spec.macvlan.parent"), attributes={"mode": mode})


def _vlan(link: Link, spec: interface_pb2.InterfaceSpec) -> Link:
    field.check_range("spec.vlan.vlan_id", spec.vlan.vlan_id, 1, 4094)
    parent = names.check(spec.vlan.parent, "interfaces", "spec.vlan.parent")
    return _with(link, parent=parent, attributes={"vlan_id": str(spec.vlan.vlan_id)})


def _vxlan(link: Link, spec: interface_pb2.InterfaceSpec) -> Link:
    field.check_range("spec.vxlan.vni", spec.vxlan.vni, 1, 2**24 - 1)
    field.check_range("spec.vxlan.port", spec.vxlan.port, 0, 65535)
    attributes = {"vni": str(spec.vxlan.vni), "port": str(spec.vxlan.port or 4789)}
    ends = [("local", spec.vxlan.local), ("remote", spec.vxlan.remote)]
    for end, text in ends:
        if text:
            attributes[end] = str(field.address(f"spec.vxlan.{end}", text))
    if len({ipaddress.ip_address(attributes[end]).version for end, text in ends if text}) > 1:
        raise errors.InvalidSpec("spec.vxlan.remote", "must be of the same family as local")
    return _with(link, attributes=attributes)


def _bond(link: Link, spec: interface_pb2.InterfaceSpec) -> Link:
    mode = _BOND_MODES.get(spec.bond.mode)
    if mode is None:
        raise errors.InvalidSpec("spec.bond.mode", "is not a known mode: use ACTIVE_BACKUP, BALANCE_XOR or LACP")
    return _with(link, ports=_interfaces("spec.bond.members", spec.bond.members), attributes={"mode": mode})


def _dummy(link: Link, _spec: interface_pb2.InterfaceSpec) -> Link:
    return link


def _tap(link: Link, spec: interface_pb2.InterfaceSpec) -> Link:
    field.check_range("spec.tap.owner_uid", spec.tap.owner_uid, 0, 2**31 - 1)
    return _with(link, attributes={"owner_uid": str(spec.tap.owner_uid)})


_KINDS = {
    "physical": _physical,
    "bridge": _bridge,
    "macvlan": _macvlan,
    "vlan": _vlan,
    "vxlan": _vxlan,
    "bond": _bond,
    "dummy": _dummy,
    "tap": _tap,
}


def _with(link: Link, **fields: object) -> Link:
    return dataclasses.replace(link, **fields)  # type: ignore[arg-type]


def _interfaces(path: str, given: Iterable[str]) -> tuple[str, ...]:
    found = tuple(names.check(name, "interfaces", f"{path}[{index}]") for index, name in enumerate(given))
    if len(set(found)) != len(found):
        raise errors.InvalidSpec(path, "names an interface twice")
    if len(found) > PORTS_MAX:
        raise errors.InvalidSpec(path, f"at most {PORTS_MAX} are taken", max=PORTS_MAX)
    return tuple(sorted(found))


def _hop(path: str, gateway: route_pb2.Gateway, version: int) -> Hop:
    if not gateway.address and not gateway.interface:
        raise errors.InvalidSpec(path, "needs an address, an interface, or both", reason="REQUIRED_FIELD")
    if gateway.interface:
        names.check(gateway.interface, "interfaces", f"{path}.interface")
    field.check_range(f"{path}.weight", gateway.weight, 0, 256)
    address = str(field.address(f"{path}.address", gateway.address)) if gateway.address else ""
    if address and ipaddress.ip_address(address).version != version:
        raise errors.InvalidSpec(f"{path}.address", f"must be an IPv{version} address, as the destination")
    return Hop(address, gateway.interface, gateway.weight or 1)


def _addresses(given: Iterable[str]) -> tuple[str, ...]:
    found = tuple(field.prefixed(f"spec.addresses[{index}]", text) for index, text in enumerate(given))
    if len({text.split("/")[0] for text in found}) != len(found):
        raise errors.InvalidSpec("spec.addresses", "names an address twice: keep one of them")
    return found
