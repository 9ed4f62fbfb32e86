"""What a round has to say about each resource of a table: its status, or None for one that is being deleted and has left.

The loop stamps times and writes what changed. A vService's part is put together by all of its frontends' tables: each round
speaks of its own table's frontends and keeps what the others said.
"""

import copy
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from crossns import errors, names, resource
from crossns.resource import Status
from crossns.v1 import interface_pb2, neighbor_pb2, route_pb2, route_table_pb2, rule_pb2, status_pb2, v_service_pb2
from services.nsmanager.model import Desired, Link, Neighbor, Route, Rule, Vip, identity, mark_of
from services.nsmanager.plan import addresses, links, neighbors, routes, rules
from services.nsmanager.plan.observed import Observed

SERVICE = "nsmanager"
Failures = Mapping[str, errors.CrossnsError]


@dataclass(slots=True)
class _Vips:
    """One vService's in this table: the parts of those that stay, the frontends whose VIP has gone; all frontends that it has."""

    staying: list[v_service_pb2.PartStatus]
    gone: list[str]
    siblings: frozenset[str] = frozenset()


def report(
    desired: Desired, observed: Observed, failures: Failures, previous: Mapping[str, Status]
) -> Mapping[str, Status | None]:
    if observed.is_unseen:
        return _unseen(desired, observed, failures, previous)
    result: dict[str, Status | None] = {}
    if desired.table is not None:
        result[desired.table.resource] = _table(desired, observed, failures)
    result |= {link.resource: _link(link, desired, observed, failures, previous) for link in desired.links}
    result |= {route.resource: _route(route, desired, observed, failures) for route in desired.routes}
    result |= {rule.resource: _rule(rule, desired, observed, failures) for rule in desired.rules}
    result |= {neighbor.resource: _neighbor(neighbor, desired, observed, failures) for neighbor in desired.neighbors}
    result |= _v_services(desired, observed, failures, previous)
    for name in sorted(desired.leaving):
        if name in failures:
            result[name] = _stuck(failures[name], previous.get(name) or _nothing(name))
        elif not _is_left(name, desired, observed):
            result[name] = None
        else:
            result[name] = _stuck(_reason_to_stay(name, desired, observed), previous.get(name) or _nothing(name))
    return result


def _unseen(desired: Desired, observed: Observed, failures: Failures, previous: Mapping[str, Status]) -> Mapping[str, Status]:
    """What was said of the table holds, and that nobody has looked since. Of what is in it nothing new can be said."""
    name = f"routeTables/{desired.id}"
    if desired.table is None and name not in desired.leaving:
        return {}
    status = copy.deepcopy(previous.get(name) or _nothing(name))
    assert isinstance(status, route_table_pb2.RouteTableStatus)  # noqa: S101 - by its kind
    status.state = status_pb2.STATE_DEGRADED
    known = [condition for condition in status.conditions if condition.type != "Observed"]
    failure = failures.get(name) or errors.AgentUnavailable("AGENT_UNAVAILABLE", "its agent is not there yet")
    restarts = observed.namespace.agent_restarts if observed.namespace is not None else 0
    why = f"{failure.message} (it was started {restarts} times again; the launcher's log says why it ends)"
    status.ClearField("conditions")
    status.conditions.extend([*known, resource.condition("Observed", SERVICE, failure.reason, why)])
    status.agent_restarts = restarts
    return {name: status}


def _nothing(name: str) -> Status:
    return resource.MESSAGES[names.collection(name)]().status


def _reason_to_stay(name: str, desired: Desired, observed: Observed) -> errors.CrossnsError:
    foreign = links.foreign(observed)
    if name != f"routeTables/{desired.id}" or not foreign:
        return errors.Aborted("IN_PROGRESS", "is being taken off the device")
    message = f"{name} holds links that are not ours: {', '.join(foreign)}; move or delete them, then it goes by itself"
    return errors.FailedPrecondition("ROUTE_TABLE_NOT_EMPTY", message)


def _stuck(failure: errors.CrossnsError, previous: Status) -> Status:
    """The status of a resource that is being deleted and cannot leave the device."""
    status = copy.deepcopy(previous)
    status.state = _state(failure.reason, failure)
    status.ClearField("conditions")
    status.conditions.append(resource.condition("Removed", SERVICE, failure.reason, failure.message))
    return status


def _is_left(name: str, desired: Desired, observed: Observed) -> bool:
    """Whether the device still has something of a resource that is being deleted."""
    if name == f"routeTables/{desired.id}":
        return observed.namespace is not None
    if name.startswith("interfaces/"):
        return mark_of(name) in observed.own_links or mark_of(name) in observed.marked
    if names.collection(name) == "rules":
        return bool(rules.removed(desired, observed))
    if names.collection(name) == "neighbors":
        return bool(neighbors.removed(desired, observed))
    # Routes without a wish are removed by every round, or go with the namespace.
    return False


def _state(reason: str, failure: errors.CrossnsError | None = None) -> status_pb2.State.ValueType:
    if reason == "OK":
        return status_pb2.STATE_READY
    if reason == "IN_PROGRESS" or isinstance(failure, errors.TemporaryError):
        return status_pb2.STATE_PENDING
    return status_pb2.STATE_ERROR


def _table(desired: Desired, observed: Observed, failures: Failures) -> route_table_pb2.RouteTableStatus:
    table = desired.table
    assert table is not None  # noqa: S101 - asked only where there is one
    reason, message = _found(failures.get(table.resource), is_there=observed.snapshot is not None)
    if observed.namespace is not None and observed.namespace.occupied:
        reason = "FOREIGN_OBJECT"
        message = f"a namespace that is not ours stands at the name {table.id}: remove it with `ip netns delete {table.id}`"
    status = route_table_pb2.RouteTableStatus(
        observed_generation=table.generation,
        state=_state(reason, failures.get(table.resource)),
        conditions=[resource.condition("Present", SERVICE, reason, message)],
        boot_id=observed.boot_id,
        identity=_identity(table.index) if table.index else None,
    )
    if observed.namespace is not None:
        status.netns_cookie = observed.namespace.cookie
        status.agent_restarts = observed.namespace.agent_restarts
    if observed.snapshot is not None and not desired.is_built_in:
        status.undeclared_links.extend(links.foreign(observed))
    return status


def _identity(index: int) -> route_table_pb2.DerivedIdentity:
    found = identity.of(index)
    return route_table_pb2.DerivedIdentity(
        vrid_base=found.vrid_base,
        router_id=found.router_id,
        control_socket_prefix=found.control_socket_prefix,
        port_base=found.port_base,
        port_count=identity.PORT_COUNT,
    )


def macs(parts: Mapping[str, Status]) -> dict[str, tuple[str, str]]:
    """MAC address and kind of each network card that was there when its interface's status was written, by mark."""
    cards = {name: part for name, part in parts.items() if isinstance(part, interface_pb2.InterfaceStatus)}
    return {mark_of(name): (part.mac_address, part.link_kind) for name, part in cards.items() if part.original_link_name}


def _link(
    link: Link, desired: Desired, observed: Observed, failures: Failures, previous: Mapping[str, Status]
) -> interface_pb2.InterfaceStatus:
    seen = links.find(link, desired, observed)
    reason, message = _found(failures.get(link.resource), is_there=seen is not None)
    if reason == "IN_PROGRESS" and link.kind == "physical" and links.card(link, observed) is None:
        what = f"named {link.card_name}" if link.card_name else f"with MAC address {link.card_mac}"
        reason, message = "LINK_MISSING", f"routeTables/default has no network card {what}: plug it in, or correct spec.physical"
    elif reason == "IN_PROGRESS" and link.parent and link.parent not in desired.all_links:
        reason, message = "PARENT_MISSING", f"{link.parent} is being deleted: name another parent"
    elif reason == "IN_PROGRESS" and (table := links.elsewhere(link, desired, observed)):
        message = f"it is still in routeTables/{table}, and comes when it has gone from there"
    missing = links.missing_ports(link, desired, observed) if seen is not None else ()
    if reason == "OK" and missing:
        reason = "PORT_MISSING"
        message = f"{', '.join(missing)} not joined: each must be READY in routeTables/{desired.id}"
    status = interface_pb2.InterfaceStatus(
        observed_generation=link.generation,
        state=status_pb2.STATE_DEGRADED if reason == "PORT_MISSING" else _state(reason, failures.get(link.resource)),
        conditions=[resource.condition("Present", SERVICE, reason, message)],
    )
    if seen is not None:
        status.route_table = f"routeTables/{desired.id}"
        status.link_name = seen.name
        status.mac_address = seen.mac
        status.mtu = seen.mtu
        status.original_link_name = seen.was
        status.link_kind = seen.kind
    elif isinstance(before := previous.get(link.resource), interface_pb2.InterfaceStatus) and link.kind == "physical":
        # By which it is found when it comes back, to whoever leads then.
        status.mac_address = before.mac_address
        status.original_link_name = before.original_link_name
        status.link_kind = before.link_kind
    return status


def _route(route: Route, desired: Desired, observed: Observed, failures: Failures) -> route_pb2.RouteStatus:
    failure = failures.get(route.resource)
    reason, message = _found(failure, is_there=routes.is_present(route, desired, routes.find(route, observed)))
    if reason == "IN_PROGRESS" and (interface := routes.elsewhere(route, desired)):
        reason, message = _moved_away(interface, desired)
    return route_pb2.RouteStatus(
        observed_generation=route.generation,
        state=_state(reason, failure),
        conditions=[resource.condition("Present", SERVICE, reason, message)],
    )


def _rule(rule: Rule, desired: Desired, observed: Observed, failures: Failures) -> rule_pb2.RuleStatus:
    failure = failures.get(rule.resource)
    reason, message = _found(failure, is_there=rules.is_present(rule, desired, observed))
    if reason == "IN_PROGRESS" and rules.resolved(rule, desired) is None:
        reason, message = _moved_away(rule.interface, desired)
    return rule_pb2.RuleStatus(
        observed_generation=rule.generation,
        state=_state(reason, failure),
        conditions=[resource.condition("Present", SERVICE, reason, message)],
    )


def _neighbor(neighbor: Neighbor, desired: Desired, observed: Observed, failures: Failures) -> neighbor_pb2.NeighborStatus:
    failure = failures.get(neighbor.resource)
    reason, message = _found(failure, is_there=neighbors.is_present(neighbor, desired, observed))
    if reason == "IN_PROGRESS" and neighbors.resolved(neighbor, desired, observed) is None:
        reason, message = _moved_away(neighbor.interface, desired)
    elif reason == "OK" and neighbors.is_idle(neighbor, observed):
        reason = "FORWARDING_OFF"
        message = f"routeTables/{desired.id} does not forward, so it answers for nobody: set spec.forwarding there"
    return neighbor_pb2.NeighborStatus(
        observed_generation=neighbor.generation,
        state=status_pb2.STATE_DEGRADED if reason == "FORWARDING_OFF" else _state(reason, failure),
        conditions=[resource.condition("Present", SERVICE, reason, message)],
    )


def _moved_away(interface: str, desired: Desired) -> tuple[str, str]:
    """What to say where an interface that is named has no link in the table."""
    link = desired.all_links.get(interface)
    if link is not None and link.table != desired.id:
        where = f"{interface} is in routeTables/{link.table}, not in routeTables/{desired.id}"
        return "LINK_MISSING", f"{where}: name an interface of this table, or move it back"
    return "LINK_MISSING", f"{interface} has no link in routeTables/{desired.id}: its own status says why"


def _v_services(
    desired: Desired, observed: Observed, failures: Failures, previous: Mapping[str, Status]
) -> Mapping[str, v_service_pb2.VServiceStatus | None]:
    there = addresses.hosts(observed)
    going = {at.operation.prefix for at in addresses.removed(desired, observed)} if desired.leaving_vips else set()  # type: ignore[union-attr]
    grouped: defaultdict[str, _Vips] = defaultdict(lambda: _Vips([], []))
    for vip in desired.vips:
        grouped[vip.resource].staying.append(_frontend(vip, failures.get(vip.resource), is_there=_host(vip) in there))
        grouped[vip.resource].siblings |= vip.siblings
    for vip in desired.leaving_vips:
        grouped[vip.resource].siblings |= vip.siblings
        if vip.prefix not in going:
            grouped[vip.resource].gone.append(vip.frontend)
    return {name: _v_service(vips, previous.get(name)) for name, vips in sorted(grouped.items())}


def _v_service(vips: _Vips, previous: Status | None) -> v_service_pb2.VServiceStatus | None:
    said = previous.frontends if isinstance(previous, v_service_pb2.VServiceStatus) else ()
    parts = {part.name: part for part in said if part.name in vips.siblings}
    parts |= {part.name: part for part in vips.staying}
    for frontend in vips.gone:
        parts.pop(frontend, None)
    if not vips.staying and not parts:
        return None
    return _summed(parts.values(), is_whole=vips.siblings == parts.keys())


def _host(vip: Vip) -> str:
    return vip.prefix.split("/")[0]


def _frontend(vip: Vip, failure: errors.CrossnsError | None, *, is_there: bool) -> v_service_pb2.PartStatus:
    reason, message = _found(failure, is_there=is_there)
    if reason == "IN_PROGRESS":
        reason, message = "VIP_ABSENT", f"{vip.prefix} is not on a link of routeTables/{vip.table} yet"
    return v_service_pb2.PartStatus(
        name=vip.frontend,
        state=_state("IN_PROGRESS" if reason == "VIP_ABSENT" else reason, failure),
        reason=reason,
        message=message,
        service=SERVICE,
        observed_generation=vip.generation,
    )


def _summed(parts: Iterable[v_service_pb2.PartStatus], *, is_whole: bool) -> v_service_pb2.VServiceStatus:
    """A vService's part: as far as its frontend that is furthest behind; not `is_whole` while some table has not spoken."""
    ordered = sorted(parts, key=lambda part: part.name)
    states = [part.state for part in ordered]
    ready = states.count(status_pb2.STATE_READY)
    if ready == len(states):
        state = status_pb2.STATE_READY
    elif status_pb2.STATE_PENDING in states:
        state = status_pb2.STATE_PENDING
    else:
        state = status_pb2.STATE_DEGRADED if ready else status_pb2.STATE_ERROR
    worst = next((part for part in ordered if part.state != status_pb2.STATE_READY), None)
    reason, message = (worst.reason, worst.message) if worst is not None else ("OK", "")
    return v_service_pb2.VServiceStatus(
        observed_generation=min((part.observed_generation for part in ordered), default=0) if is_whole else 0,
        state=state,
        conditions=[resource.condition("VipsPresent", SERVICE, reason, message)],
        frontends=ordered,
    )


def _found(failure: errors.CrossnsError | None, *, is_there: bool) -> tuple[str, str]:
    if failure is not None:
        return failure.reason, failure.message
    return ("OK", "") if is_there else ("IN_PROGRESS", "")
