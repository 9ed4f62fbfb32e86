"""What HAProxy should be, in the words of its configuration: every vService, who has which slot, how each server is to be.

Called by `difference` and `report`. As long as the lines that the running worker has will do, they are kept.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from services.proxy import model, render
from services.proxy.plan import slots
from services.proxy.plan.engine import Observed, Seen

_Assign = Callable[
    [model.Pool, Mapping[str, render.Part], Mapping[str, Seen]],
    Sequence[render.Slot] | None,
]


@dataclass(frozen=True, slots=True)
class Wish:
    """By section and name, `servers`: how each line is to be, `owners`: whose it is; by section and member, `lines`: its name."""

    config: render.Config
    servers: Mapping[tuple[str, str], render.Server]
    owners: Mapping[tuple[str, str], model.Member]
    lines: Mapping[tuple[str, str], str]


# Plan and report of a round ask the same.
@functools.lru_cache(maxsize=1)
def wish(desired: model.Desired, observed: Observed) -> Wish:
    """With the running worker's lines where its structure can stay as it is."""
    kept = _wish(desired, observed, slots.kept) if _could_start(observed) else None
    if kept is not None and kept.config.structure == observed.structure:
        return kept
    fresh = _wish(desired, observed, slots.fresh)
    assert fresh is not None  # noqa: S101 - there is a fresh line for everybody
    return fresh


def _could_start(observed: Observed) -> bool:
    """Whether HAProxy could start with the lines that it has: an unused one, too, must not name a namespace that is gone."""
    return all(slots.namespace(name) in observed.namespaces for lines in observed.servers.values() for name in lines)


def entered(desired: model.Desired, observed: Observed) -> Mapping[str, str]:
    """The tables whose namespace engines can enter: one that has just gone would make HAProxy refuse the whole file."""
    return {table: namespace for table, namespace in desired.tables.items() if namespace in observed.namespaces}


@functools.lru_cache(maxsize=1)
def left_out(desired: model.Desired, observed: Observed) -> frozenset[render.Part]:
    """What HAProxy did not start with, but for vServices that are others now."""
    generations = {vservice.name: vservice.generation for vservice in desired.services}
    return frozenset(
        part for part, refusal in observed.refused.items() if generations.get(render.owner(part.section)) == refusal.generation
    )


def served(
    vservice: str, pool: model.Pool, tables: Mapping[str, str], left_out: AbstractSet[render.Part]
) -> Mapping[str, render.Part]:
    """The members that can be served, by name."""
    parts = ((member.name, render.member_part(vservice, pool.name, member, tables)) for member in pool.members)
    return {name: part for name, part in parts if part is not None and part not in left_out}


def _wish(desired: model.Desired, observed: Observed, assign: _Assign) -> Wish | None:
    """None where a member finds no line."""
    tables, refused = entered(desired, observed), left_out(desired, observed)
    found: dict[str, Sequence[render.Slot]] = {}
    servers: dict[tuple[str, str], render.Server] = {}
    owners: dict[tuple[str, str], model.Member] = {}
    for vservice, pool, section in _pools(desired):
        parts = served(vservice.name, pool, tables, refused)
        assigned = assign(pool, parts, observed.servers.get(section, {}))
        if assigned is None:
            return None
        found[section] = assigned
        members = {member.name: member for member in pool.members}
        resting = _resting(vservice, pool, parts, observed)
        for slot in assigned:
            if slot.member is None:
                servers[section, slot.name] = render.Server()
            else:
                owners[section, slot.name] = members[slot.member]
                servers[section, slot.name] = _server(members[slot.member], is_resting=slot.member in resting)
    arrangement = render.Arrangement(tables, refused, found, servers)
    config = render.render(desired.services, arrangement, observed.limits)
    lines = {(section, slot.member): slot.name for section, each in found.items() for slot in each if slot.member is not None}
    return Wish(config, servers, owners, lines)


def _pools(desired: model.Desired) -> Iterator[tuple[model.VService, model.Pool, str]]:
    for vservice in desired.services:
        for pool in vservice.pools:
            yield vservice, pool, render.backend_section(vservice.name, pool.name)


def _resting(vservice: model.VService, pool: model.Pool, parts: Mapping[str, render.Part], observed: Observed) -> frozenset[str]:
    """Who gets nothing because he is down; nobody where none would be left that can be served: what is known then is little."""
    usable = [member for member in pool.members if member.state == "enabled" and member.name in parts]
    seen = observed.servers.get(render.backend_section(vservice.name, pool.name), {})
    # What a process before this one took out stays out until it is known better.
    out = {name for name, line in slots.held(parts, seen) if not seen[line].server.enabled}
    targets = {member.name: model.target_of(vservice, pool, member, parts[member.name].namespace) for member in usable}
    down = frozenset(
        name for name, target in targets.items() if target in observed.down or (target in observed.unknown and name in out)
    )
    return down if len(down) < len(usable) else frozenset()


def _server(member: model.Member, *, is_resting: bool) -> render.Server:
    return render.Server(
        socket=member.socket,
        # One without weight keeps what it has and gets nothing new.
        weight=0 if member.state == "drain" else member.weight,
        enabled=member.state != "disabled" and not is_resting,
        max_connections=member.max_connections,
    )
