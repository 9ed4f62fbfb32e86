"""What a move meets in its target, and what keeps the interface where it is.

Pure. Called by the servicers. What blocks here is refused before anything is touched; the rest is said and left to the operator.
"""

import ipaddress
from collections.abc import Iterator, Mapping

from crossns import examination, operation
from crossns.resource import Resource
from crossns.v1 import impact_pb2
from services.nsmanager.model import Desired, Link, Route
from services.nsmanager.plan.relocation import Relocation


def obstacles(link: Link, desired: Desired, relocation: Relocation) -> examination.FindObstacles:
    """What is asked of the target's agent about what others have there. `desired` as it will be."""
    new = {each.name for each in relocation.created}
    routes = (
        operation.Route(each.destination, each.kernel_table, each.metric) for each in desired.routes if each.resource in new
    )
    return examination.FindObstacles(link_name=link.name, routes=tuple(routes))


def conflicts(
    link: Link,
    desired: Desired,
    snapshot: operation.Snapshot,
    relocation: Relocation,
    stored: Mapping[str, Resource],
    obstacles: examination.Obstacles,
) -> list[impact_pb2.ImpactConflict]:
    """`link` as it will be; the others of the target, `stored` with its resources as they are now."""
    found = [*_name_taken(link, desired, snapshot, obstacles), *_joined(link, desired)]
    found += [*_stored_already(relocation, desired, stored), *_occupied(desired, obstacles)]
    found += _overlapping(link, desired.id, snapshot)
    return found


def _conflict(reason: str, message: str, *, blocking: bool = True) -> impact_pb2.ImpactConflict:
    return impact_pb2.ImpactConflict(reason=reason, message=message, blocking=blocking)


def _name_taken(
    link: Link, desired: Desired, snapshot: operation.Snapshot, obstacles: examination.Obstacles
) -> Iterator[impact_pb2.ImpactConflict]:
    owner = next((each.resource for each in desired.links if each.name == link.name and each.resource != link.resource), "")
    is_own = any(each.name == link.name and each.mark == link.mark for each in snapshot.links)
    where = f"routeTables/{desired.id} has a link {link.name} already"
    if owner:
        yield _conflict("LINK_NAME_TAKEN", f"{where} ({owner}): change spec.link_name of one of them first")
    elif obstacles.is_name_taken and not is_own:
        yield _conflict(
            "FOREIGN_OBJECT", f"{where} that is not ours: remove it, or change spec.link_name of {link.resource} first"
        )


def _occupied(desired: Desired, obstacles: examination.Obstacles) -> Iterator[impact_pb2.ImpactConflict]:
    for each in obstacles.routes:
        message = f"routeTables/{desired.id} has a route {each.destination} from somebody else: remove it, or move without routes"
        yield _conflict("FOREIGN_OBJECT", message)


def _joined(link: Link, desired: Desired) -> Iterator[impact_pb2.ImpactConflict]:
    """A bridge or bond and its ports are in one table."""
    for other in desired.all_links.values():
        if link.resource in other.ports:
            message = f"{link.resource} is a port of {other.resource}: take it out of spec.{other.kind} first"
            yield _conflict("PORT_TAKEN", message)
    if link.ports:
        ports = ", ".join(link.ports)
        yield _conflict("PORT_TAKEN", f"{link.resource} has ports, which cannot be in another table: take out {ports} first")


def _stored_already(
    relocation: Relocation, desired: Desired, stored: Mapping[str, Resource]
) -> Iterator[impact_pb2.ImpactConflict]:
    for each in relocation.created:
        if each.name in stored:
            message = f"{each.name} exists already: delete one of both first, or move without routes"
            yield _conflict("ALREADY_EXISTS", message)
    new = {each.name for each in relocation.created}
    living = {_key(route): route.resource for route in desired.routes if route.resource not in new}
    for route in desired.routes:
        if route.resource in new and _key(route) in living:
            other = living[_key(route)]
            message = f"{other} routes {route.destination} with this metric already: change it first, or move without routes"
            yield _conflict("ALREADY_EXISTS", message)


def _key(route: Route) -> tuple[str, int, int]:
    return route.destination, route.kernel_table, route.metric


def _overlapping(link: Link, table: str, snapshot: operation.Snapshot) -> Iterator[impact_pb2.ImpactConflict]:
    own = [ipaddress.ip_interface(text) for text in link.addresses]
    names_seen = {each.name: each.mark for each in snapshot.links}
    for address in snapshot.addresses:
        other = ipaddress.ip_interface(address.prefix)
        if address.link == "lo" or other.ip.is_link_local or names_seen.get(address.link) == link.mark:
            continue
        for mine in own:
            if mine.ip == other.ip:
                message = f"{address.link} of routeTables/{table} has the same address as {link.resource}: {address.prefix}"
                yield _conflict("SUBNET_OVERLAP", message, blocking=False)
            elif mine.version == other.version and mine.network.overlaps(other.network):
                message = f"{address.link} of routeTables/{table} has {address.prefix}, in the same subnet as {mine}"
                yield _conflict("SUBNET_OVERLAP", message, blocking=False)
