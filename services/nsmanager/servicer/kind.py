"""How nsmanager's kinds are stored: what each claims, what it refers to, and what must hold before it is admitted."""

import ipaddress
from collections.abc import Iterable, Mapping

from crossns import errors, names, resource, store
from crossns.registry import Registry
from crossns.resource import Claim, Draft, Kind, Reference, Resource
from crossns.v1 import interface_pb2, neighbor_pb2, route_pb2, route_table_pb2, rule_pb2
from services.nsmanager import model
from services.nsmanager.servicer import index


def registries(backend: store.Store, keys: names.Keys) -> dict[str, Registry]:
    """By collection."""
    return {
        "routeTables": Registry(backend, keys, ROUTE_TABLE, index.Indices().admit),
        "interfaces": Registry(backend, keys, INTERFACE, _check_ports),
        "routes": Registry(backend, keys, ROUTE, _check_gateways),
        "rules": Registry(backend, keys, RULE, _check_interface),
        "neighbors": Registry(backend, keys, NEIGHBOR, _check_interface),
    }


def _route_table(message: Resource) -> Draft:
    assert isinstance(message, route_table_pb2.RouteTable)  # noqa: S101 - by its kind
    index = model.route_table(message).index
    taken = f"spec.index: {index} belongs to {{owner}}: choose another, or 0 for the lowest free"
    claim = Claim("index", str(index), "INDEX_TAKEN", taken, chosen=not message.spec.index)
    return Draft(claims=(claim,) if index else ())


def _interface(message: Resource) -> Draft:
    assert isinstance(message, interface_pb2.Interface)  # noqa: S101 - by its kind
    link = model.interface(message)
    claims = [
        Claim(
            "link",
            f"{link.table}/{link.name}",
            "LINK_NAME_TAKEN",
            f"spec.link_name: routeTables/{link.table} has a link {link.name} already ({{owner}}): choose another name",
        )
    ]
    if link.kind == "physical":
        card = link.card_name or link.card_mac
        taken = f"spec.physical: {{owner}} stands for the network card {card} already: change or delete it first"
        claims.append(Claim("card", card, "CARD_TAKEN", taken))
    for port in link.ports:
        taken = f"spec.{link.kind}: {port} is a port of {{owner}} already: take it out there first"
        claims.append(Claim("port", port, "PORT_TAKEN", taken))
    references = [Reference(f"routeTables/{link.table}", "spec.route_table")]
    if link.parent:
        references.append(Reference(link.parent, f"spec.{link.kind}.parent"))
    references += [Reference(port, f"spec.{link.kind}") for port in link.ports]
    return Draft(tuple(claims), tuple(references))


def _route(message: Resource) -> Draft:
    assert isinstance(message, route_pb2.Route)  # noqa: S101 - by its kind
    route = model.route(message)
    key = f"{route.table}/{route.kernel_table}/{route.metric}/{route.destination}"
    taken = (
        f"spec.destination: {{owner}} routes {route.destination} with this metric already: change it, or choose another metric"
    )
    hops = [
        Reference(hop.interface, f"spec.gateways[{index}].interface") for index, hop in enumerate(route.hops) if hop.interface
    ]
    return Draft((Claim("route", key, "ALREADY_EXISTS", taken),), (Reference(f"routeTables/{route.table}", "parent"), *hops))


def _rule(message: Resource) -> Draft:
    assert isinstance(message, rule_pb2.Rule)  # noqa: S101 - by its kind
    rule = model.rule(message)
    prefixes = f"{rule.source or 'all'}/{rule.destination or 'all'}"
    interface = names.resource_id(rule.interface) or "any"
    key = f"{rule.table}/ipv{rule.version}/{rule.priority}/{prefixes}/{interface}/{rule.mark:x}/{rule.mark_mask:x}"
    taken = f"spec.priority: {{owner}} selects the same packets at {rule.priority} already: change it, or choose another priority"
    return Draft((Claim("rule", key, "ALREADY_EXISTS", taken),), _in_table(rule.table, rule.interface))


def _neighbor(message: Resource) -> Draft:
    assert isinstance(message, neighbor_pb2.Neighbor)  # noqa: S101 - by its kind
    neighbor = model.neighbor(message)
    key = f"{neighbor.table}/{names.resource_id(neighbor.interface)}/{neighbor.address}"
    taken = f"spec.address: {{owner}} stands for {neighbor.address} on {neighbor.interface} already: change it"
    return Draft((Claim("neighbor", key, "ALREADY_EXISTS", taken),), _in_table(neighbor.table, neighbor.interface))


def _in_table(table: str, interface: str) -> tuple[Reference, ...]:
    """Of something in a route table that names one of its interfaces, or none."""
    named = (Reference(interface, "spec.interface"),) if interface else ()
    return (Reference(f"routeTables/{table}", "parent"), *named)


def _check_unprotected(message: Resource) -> None:
    assert isinstance(message, route_table_pb2.RouteTable)  # noqa: S101 - by its kind
    if message.name == names.DEFAULT_TABLE:
        text = "routeTables/default is the device's own namespace: it always exists and cannot be deleted"
        raise errors.FailedPrecondition("ROUTE_TABLE_BUILT_IN", text, resource=message.name)
    if message.spec.protected:
        text = f"{message.name} is protected against deletion: clear spec.protected first"
        raise errors.FailedPrecondition("ROUTE_TABLE_PROTECTED", text, resource=message.name)


ROUTE_TABLE = Kind(
    "routeTables",
    "route_table",
    _route_table,
    immutable=("index",),
    check_deletion=_check_unprotected,
    resting=frozenset({"index"}),
)
# A card that another selector names, or a parent that changes, makes another link of it.
_FIXED = ("kind", "physical.link_name", "physical.mac_address", "macvlan.parent", "vlan.parent")
INTERFACE = Kind("interfaces", "interface", _interface, immutable=_FIXED)
ROUTE = Kind("routes", "route", _route)
RULE = Kind("rules", "rule", _rule)
NEIGHBOR = Kind("neighbors", "neighbor", _neighbor)


async def _check_ports(registry: Registry, wanted: Resource, _current: Resource | None) -> Resource:
    """Frames do not pass from one namespace to another: a bridge and its ports are in one table."""
    assert isinstance(wanted, interface_pb2.Interface)  # noqa: S101 - by its kind
    link = model.interface(wanted)
    found = await registry.store.get_many([registry.keys.desired(port) for port in link.ports])
    for entry in found.values():
        port = resource.load("interfaces", entry.value)
        if isinstance(port, interface_pb2.Interface) and port.spec.route_table != wanted.spec.route_table:
            message = f"{port.name} is in {port.spec.route_table}: a port must be in {wanted.spec.route_table}, as {wanted.name}"
            raise errors.InvalidSpec(f"spec.{link.kind}", message)
    return wanted


async def _check_interface(registry: Registry, wanted: Resource, _current: Resource | None) -> Resource:
    assert isinstance(wanted, rule_pb2.Rule | neighbor_pb2.Neighbor)  # noqa: S101 - by its kind
    await _check_inside(registry, names.parent(wanted.name), {"spec.interface": wanted.spec.interface})
    return wanted


async def _check_inside(registry: Registry, table: str, named: Mapping[str, str]) -> None:
    """What something in a table names (field -> interface, or "") is in that table: it says nothing about another."""
    for field, name in named.items():
        entry = await registry.store.get(registry.keys.desired(name)) if name else None
        interface = resource.load("interfaces", entry.value) if entry is not None else None
        if isinstance(interface, interface_pb2.Interface) and interface.spec.route_table != table:
            message = f"{name} is in {interface.spec.route_table}: name an interface of {table}"
            raise errors.InvalidSpec(field, message)


async def _check_gateways(registry: Registry, wanted: Resource, _current: Resource | None) -> Resource:
    """A gateway without an interface must be in the prefix of an interface of the table, or it could not be reached."""
    assert isinstance(wanted, route_pb2.Route)  # noqa: S101 - by its kind
    route = model.route(wanted)
    named = {f"spec.gateways[{number}].interface": hop.interface for number, hop in enumerate(route.hops)}
    await _check_inside(registry, names.parent(wanted.name), named)
    gateways = [ipaddress.ip_address(hop.gateway) for hop in route.hops if not hop.interface]
    if not gateways:
        return wanted
    links = [link for link in await _links_of(registry, wanted.name) if link.up]
    prefixes = [ipaddress.ip_interface(text).network for link in links for text in link.addresses]
    for gateway in gateways:
        if not any(gateway in prefix for prefix in prefixes):
            known = ", ".join(sorted(map(str, prefixes))) or "none"
            message = (
                f"{gateway} cannot be reached in routeTables/{route.table}: no interface there has a prefix that holds it "
                f"(there are: {known}); give an interface such an address, or name the interface in the gateway"
            )
            raise errors.FailedPrecondition("GATEWAY_UNREACHABLE", message, gateway=gateway, prefixes=known, resource=wanted.name)
    return wanted


async def _links_of(registry: Registry, route: str) -> Iterable[model.Link]:
    table = names.parent(route)
    refs = await registry.store.list(registry.keys.refs_to(table))
    referrers = [entry.key.split("//", 1)[1] for entry in refs.entries]
    interfaces = [registry.keys.desired(name) for name in referrers if names.collection(name) == "interfaces"]
    found = await registry.store.get_many(interfaces)
    messages = [resource.load("interfaces", entry.value) for entry in found.values()]
    return [model.interface(message) for message in messages if isinstance(message, interface_pb2.Interface)]
