"""What a change touches: the difference of two scenes, each thing with what it means for whoever uses the device.

Pure. Called by the servicers. The words are for people; who compares goes by kind, change, table, link and object.
"""

from collections.abc import Iterable, Iterator, Mapping

from crossns import examination, operation
from crossns.v1 import impact_pb2, route_table_pb2
from services.nsmanager.model import Desired, Link
from services.nsmanager.plan import scene
from services.nsmanager.plan.relocation import Relocation
from services.nsmanager.plan.scene import UNKNOWN, Belonging, Scene, Thing

_INFO, _WARNING, _CRITICAL = (
    impact_pb2.IMPACT_SEVERITY_INFO,
    impact_pb2.IMPACT_SEVERITY_WARNING,
    impact_pb2.IMPACT_SEVERITY_CRITICAL,
)
_LINK, _ADDRESS = impact_pb2.IMPACT_KIND_LINK, impact_pb2.IMPACT_KIND_ADDRESS
_ADDED, _REMOVED, _MOVED, _RECREATED, _INTERRUPTED = (
    impact_pb2.IMPACT_CHANGE_ADDED,
    impact_pb2.IMPACT_CHANGE_REMOVED,
    impact_pb2.IMPACT_CHANGE_MOVED,
    impact_pb2.IMPACT_CHANGE_RECREATED,
    impact_pb2.IMPACT_CHANGE_INTERRUPTED,
)


def items(before: Scene, after: Scene) -> list[impact_pb2.ImpactItem]:
    """What is in one scene and not in the other, by table, kind and object."""
    gone = {thing: belonging for thing, belonging in before.items() if thing not in after}
    come = {thing: belonging for thing, belonging in after.items() if thing not in before}
    pairs = {thing: other for thing in gone if (other := _same_elsewhere(thing, come)) is not None}
    found = [_item(thing, _change_of(thing, belonging, pairs), belonging) for thing, belonging in gone.items()]
    found += [_item(thing, _ADDED, belonging) for thing, belonging in come.items() if thing not in pairs.values()]
    return sorted(found, key=lambda item: (item.route_table, item.kind, item.link, item.object, item.change))


def _same_elsewhere(thing: Thing, come: Iterable[Thing]) -> Thing | None:
    """The same thing on a link of that name in another table. A route with several next hops names their links: it is another."""
    here = (thing.kind, thing.link, thing.object)
    fits = (each for each in come if each.table != thing.table and (each.kind, each.link, each.object) == here)
    return next(fits, None) if thing.link else None


def _change_of(thing: Thing, belonging: Belonging, pairs: Mapping[Thing, Thing]) -> impact_pb2.ImpactChange.ValueType:
    if belonging.stays:
        return _INTERRUPTED
    if thing not in pairs:
        return _REMOVED
    return _RECREATED if thing.kind == _LINK and thing.object else _MOVED


def _item(thing: Thing, change: impact_pb2.ImpactChange.ValueType, belonging: Belonging) -> impact_pb2.ImpactItem:
    severity, message = _meaning(thing, change, belonging)
    return impact_pb2.ImpactItem(
        kind=thing.kind,
        change=change,
        severity=severity,
        route_table=f"routeTables/{thing.table}",
        link=thing.link,
        object=thing.object,
        resource=belonging.resource,
        message=message,
    )


def _meaning(
    thing: Thing, change: impact_pb2.ImpactChange.ValueType, belonging: Belonging
) -> tuple[impact_pb2.ImpactSeverity.ValueType, str]:
    match change, thing.kind:
        case impact_pb2.IMPACT_CHANGE_MOVED, impact_pb2.IMPACT_KIND_LINK:
            return _WARNING, "is down for a moment"
        case impact_pb2.IMPACT_CHANGE_RECREATED, _:
            return _WARNING, "is deleted and made anew: another MAC address, and what was set by hand is lost"
        case impact_pb2.IMPACT_CHANGE_REMOVED, impact_pb2.IMPACT_KIND_LINK:
            return _WARNING, "is deleted" if thing.object else "leaves its table"
        case impact_pb2.IMPACT_CHANGE_ADDED, impact_pb2.IMPACT_KIND_LINK:
            return _INFO, "is there under this name from then on"
        case impact_pb2.IMPACT_CHANGE_INTERRUPTED, _:
            return _WARNING, "is not ours and stays: it selects nothing while no link has that name"
        case impact_pb2.IMPACT_CHANGE_MOVED, impact_pb2.IMPACT_KIND_ADDRESS if not belonging.is_kernels:
            return _WARNING, "sessions over it break"
        case impact_pb2.IMPACT_CHANGE_ADDED, impact_pb2.IMPACT_KIND_VIP if thing.link == "lo":
            return _CRITICAL, "no link of the table has a prefix that holds it any more: no neighbour finds it"
        case _, impact_pb2.IMPACT_KIND_VIP:
            return _WARNING, ""
        case impact_pb2.IMPACT_CHANGE_ADDED, impact_pb2.IMPACT_KIND_STATIC_ROUTE if not belonging.resource:
            return _WARNING, "is not ours: it has the other next hops only from then on"
        case impact_pb2.IMPACT_CHANGE_REMOVED, _ if not belonging.is_kernels:
            words = f"goes with {belonging.resource}" if belonging.resource else "is nobody's that crossns knows of: it is lost"
            return (_WARNING if belonging.resource else _CRITICAL), words
    return _INFO, ""


def riders(relocation: Relocation, desired: Desired) -> list[impact_pb2.ImpactItem]:
    """Links of other interfaces that sit on those which leave: they go on where they are, or go and come with their parent."""
    found = [_rider(link, parent, survives=survives) for link, parent, survives in _above(relocation, desired)]
    return sorted(found, key=lambda item: item.resource)


def touched(relocation: Relocation, desired: Desired, links: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The links that leave (`links`), and those that sit on them, by the id of their table."""
    found = {desired.id: tuple(links)}
    for link, _, _ in _above(relocation, desired):
        found[link.table] = (*found.get(link.table, ()), link.name)
    return found


def _above(relocation: Relocation, desired: Desired) -> Iterator[tuple[Link, str, bool]]:
    """Each with its parent, and whether it survives when that leaves."""
    fates = {name: link.kind == "physical" for name, link in desired.all_links.items() if name in relocation.interfaces}
    waiting = list(fates)
    while waiting:
        parent = waiting.pop(0)
        for link in desired.all_links.values():
            if link.parent == parent and link.resource not in fates:
                fates[link.resource] = fates[parent]
                yield link, parent, fates[parent]
                waiting.append(link.resource)


def _rider(link: Link, parent: str, *, survives: bool) -> impact_pb2.ImpactItem:
    words = f"has no carrier while {parent} moves" if survives else f"goes with {parent} and is made anew: another MAC address"
    return impact_pb2.ImpactItem(
        kind=_LINK,
        change=_INTERRUPTED if survives else _RECREATED,
        severity=_WARNING,
        route_table=f"routeTables/{link.table}",
        link=link.name,
        object=link.kind,
        resource=link.resource,
        message=words,
    )


def awakened(seen: examination.Examination, table: str) -> list[impact_pb2.ImpactItem]:
    """Rules of others in the target that name a link as the one that comes: `seen` is of that name there. By the table's id."""
    return [
        impact_pb2.ImpactItem(
            kind=impact_pb2.IMPACT_KIND_RULE,
            change=impact_pb2.IMPACT_CHANGE_CHANGED,
            severity=_WARNING,
            route_table=f"routeTables/{table}",
            link=rule.link,
            object=scene.rule_of_others(rule),
            message="is not ours: it selects what comes by the link from then on",
        )
        for rule in seen.rules
        if rule.protocol != operation.ROUTE_PROTOCOL
    ]


def resources(relocation: Relocation) -> list[impact_pb2.ImpactResource]:
    changes = [
        *((each.name, impact_pb2.IMPACT_CHANGE_CHANGED) for each in relocation.changed),
        *((each.name, _ADDED) for each in relocation.created),
        *((name, _REMOVED) for name in relocation.deleted),
    ]
    return [impact_pb2.ImpactResource(name=name, change=change) for name, change in sorted(changes)]


def evacuated(relocation: Relocation, impact: impact_pb2.Impact) -> list[route_table_pb2.EvacuatedCard]:
    """What the cards had, out of all that a deletion touches."""
    gone = [item for item in impact.items if item.change == _REMOVED]
    told = []
    for card in relocation.changed:
        names = {item.change: item.link for item in impact.items if item.kind == _LINK and item.resource == card.name}
        here, there = names.get(_REMOVED, ""), names.get(_ADDED, "")
        if not here:
            # It was not there: nothing goes back.
            continue
        own = [item for item in gone if item.link == here or f" dev {here} " in item.object]
        told.append(
            route_table_pb2.EvacuatedCard(
                interface=card.name,
                link_name=there or here,
                addresses=[item.object for item in own if item.kind == _ADDRESS and not scene.is_link_local(item.object)],
                routes=[item.object for item in own if item.kind == impact_pb2.IMPACT_KIND_STATIC_ROUTE],
            )
        )
    return told


def unknown_again(prefixes: Iterable[str], *, is_same_link: bool) -> tuple[str, ...]:
    """The link-local addresses that a link has in its new table: the old ones where its MAC address stays."""
    found = tuple(prefixes)
    return found if is_same_link or not found else (UNKNOWN,)
