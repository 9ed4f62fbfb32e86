"""What a move, or the evacuation of a table, writes: the interfaces, and the routes, rules and neighbours that go with them.

Pure. Called by the servicers, which look at the impact of it, or store it. A route goes with the interface that all of its next
hops leave by; one that has others as well stays with those.
"""

import ipaddress
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from crossns import names, resource
from crossns.resource import Resource
from crossns.v1 import interface_pb2, neighbor_pb2, route_pb2, rule_pb2
from services.nsmanager.model import Desired, Hop, Link, Route


@dataclass(frozen=True, slots=True)
class Keep:
    """What of an interface comes along."""

    addresses: bool = True
    routes: bool = True


@dataclass(frozen=True, slots=True)
class Relocation:
    """Resources as they will be: `changed` are those that stay under their name. `interfaces`: whose links leave the table."""

    interfaces: frozenset[str]
    changed: tuple[Resource, ...]
    created: tuple[Resource, ...] = ()
    deleted: tuple[str, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        return frozenset({*(each.name for each in (*self.changed, *self.created)), *self.deleted})


def move(desired: Desired, stored: Mapping[str, Resource], interface: str, target: str, keep: Keep) -> Relocation:
    """`desired` of the table that it is in, `stored` with the resources of that table, `target` as `routeTables/b`."""
    changed: list[Resource] = [_moved(stored[interface], target, keep)]
    leaving: list[tuple[str, bool]] = []
    for route in desired.routes:
        through = [hop for hop in route.hops if _way(hop, desired.links) == interface]
        if through and len(through) < len(route.hops):
            changed.append(_less(stored[route.resource], route, through))
        elif through:
            leaving.append((route.resource, keep.routes and (keep.addresses or all(hop.interface for hop in through))))
    leaving += [(rule.resource, keep.routes) for rule in desired.rules if rule.interface == interface]
    leaving += [(neighbor.resource, keep.routes) for neighbor in desired.neighbors if neighbor.interface == interface]
    created = tuple(_copied(stored[name], target) for name, is_kept in leaving if is_kept)
    return Relocation(frozenset({interface}), tuple(changed), created, tuple(name for name, _ in leaving))


def evacuation(table: str, inside: Collection[Resource]) -> Relocation:
    """Cards go back to `default`, everything else is deleted, the table too."""
    cards = [each for each in inside if isinstance(each, interface_pb2.Interface) and each.spec.HasField("physical")]
    kept = {card.name for card in cards}
    return Relocation(
        frozenset(each.name for each in inside if isinstance(each, interface_pb2.Interface)),
        tuple(map(pulled_back, cards)),
        deleted=(*(each.name for each in inside if each.name not in kept), table),
    )


def pulled_back(card: interface_pb2.Interface) -> interface_pb2.Interface:
    """A card as it is in `default` when its table is gone: under its old name, without addresses."""
    wanted = interface_pb2.Interface(name=card.name)
    wanted.spec.route_table = names.DEFAULT_TABLE
    wanted.spec.physical.CopyFrom(card.spec.physical)
    wanted.spec.link_name = card.status.original_link_name if card.spec.physical.mac_address else ""
    return wanted


def _moved(stored: Resource, target: str, keep: Keep) -> interface_pb2.Interface:
    assert isinstance(stored, interface_pb2.Interface)  # noqa: S101 - by its name
    wanted = interface_pb2.Interface(name=stored.name, labels=stored.labels, spec=stored.spec)
    wanted.spec.route_table = target
    if not keep.addresses:
        wanted.spec.ClearField("addresses")
    return wanted


def _way(hop: Hop, links: Iterable[Link]) -> str:
    """The interface that a next hop leaves by: the one it names, else the one whose prefix holds its gateway."""
    if hop.interface:
        return hop.interface
    gateway = ipaddress.ip_address(hop.gateway)
    holding = [
        (network.prefixlen, link.resource)
        for link in links
        if link.up
        for text in link.addresses
        if gateway in (network := ipaddress.ip_interface(text).network)
    ]
    return max(holding)[1] if holding else ""


def _less(stored: Resource, route: Route, through: list[Hop]) -> route_pb2.Route:
    """The route without the next hops `through`."""
    assert isinstance(stored, route_pb2.Route)  # noqa: S101 - by its name
    wanted = route_pb2.Route(name=stored.name, labels=stored.labels, spec=stored.spec)
    kept = [given for given, hop in zip(stored.spec.gateways, route.hops, strict=True) if hop not in through]
    wanted.spec.ClearField("gateways")
    wanted.spec.gateways.extend(kept)
    return wanted


def _copied(stored: Resource, target: str) -> Resource:
    assert isinstance(stored, route_pb2.Route | rule_pb2.Rule | neighbor_pb2.Neighbor)  # noqa: S101 - by its name
    copy = type(stored)(name=f"{target}/{names.collection(stored.name)}/{names.resource_id(stored.name)}", labels=stored.labels)
    resource.overwrite(copy.spec, stored.spec)
    return copy
