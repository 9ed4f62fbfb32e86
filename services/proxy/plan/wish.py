"""What HAProxy should be, in the words of its configuration: every vService, who has which slot, how each server is to be.

Called by `difference` and `report`. As long as the lines that the running worker has will do, they are kept. Of a vService for
which nothing is different from the last time, what was made of it then is taken once more: a change costs what it concerns.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from services.proxy import model, render
from services.proxy.plan import place, room, slots
from services.proxy.plan.engine import Observed, Refusal, Seen

_Line = tuple[str, str]
_Assign = Callable[
    [model.Pool, Mapping[str, render.Part], Mapping[str, Seen]],
    Sequence[render.Slot] | None,
]


@dataclass(frozen=True, slots=True)
class Wish:
    """By section and name, `servers`: how each line is to be, `owners`: whose it is; by section and member, `lines`: its name."""

    config: render.Config
    servers: Mapping[_Line, render.Server]
    owners: Mapping[_Line, model.Member]
    lines: Mapping[_Line, str]


@dataclass(frozen=True, slots=True)
class _Around:
    """All that a vService's piece depends on beside the vService itself; of each, what concerns it."""

    tables: Mapping[str, str]
    left_out: frozenset[render.Part]
    servers: Mapping[str, Mapping[str, Seen]]
    down: frozenset[model.Target]
    unknown: frozenset[model.Target]


@dataclass(frozen=True, slots=True)
class _Piece:
    """What the wish has of one vService."""

    config: render.Piece
    servers: Mapping[_Line, render.Server]
    owners: Mapping[_Line, model.Member]
    lines: Mapping[_Line, str]


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
def left_out(desired: model.Desired, observed: Observed) -> Mapping[render.Part, Refusal]:
    """What HAProxy did not start with, but for vServices that are others now; and what it has no room for."""
    generations = {vservice.name: vservice.generation for vservice in desired.services}
    refused: dict[render.Part, Refusal] = {
        part: refusal
        for part, refusal in observed.refused.items()
        if generations.get(render.owner(part.section)) == refusal.generation
    }
    return refused | dict(room.crowded_out(desired, observed, entered(desired, observed)))


def served(
    vservice: str, pool: model.Pool, tables: Mapping[str, str], left_out: AbstractSet[render.Part]
) -> Mapping[str, render.Part]:
    """The members that can be served, by name."""
    parts = ((member.name, render.member_part(vservice, pool.name, member, tables)) for member in pool.members)
    return {name: part for name, part in parts if part is not None and part not in left_out}


def _wish(desired: model.Desired, observed: Observed, assign: _Assign) -> Wish | None:
    """None where a member finds no line."""
    tables, out = entered(desired, observed), _by_owner(left_out(desired, observed))
    pieces: list[_Piece] = []
    for vservice in sorted(desired.services, key=lambda vservice: vservice.name):
        piece = _remembered(vservice, _around(vservice, tables, out.get(vservice.name, frozenset()), observed), assign)
        if piece is None:
            return None
        pieces.append(piece)
    return Wish(
        config=render.file([each.config for each in pieces], observed.limits),
        servers={line: server for each in pieces for line, server in each.servers.items()},
        owners={line: member for each in pieces for line, member in each.owners.items()},
        lines={member: line for each in pieces for member, line in each.lines.items()},
    )


def _by_owner(parts: Iterable[render.Part]) -> Mapping[str, frozenset[render.Part]]:
    found: dict[str, frozenset[render.Part]] = {}
    for each in parts:
        owner = render.owner(each.section)
        found[owner] = found.get(owner, frozenset()) | {each}
    return found


def _around(vservice: model.VService, tables: Mapping[str, str], out: frozenset[render.Part], observed: Observed) -> _Around:
    places = place.places(vservice, tables)
    own = frozenset(_targets(vservice, tables)) if observed.down or observed.unknown else frozenset()
    return _Around(
        tables=places.tables,
        left_out=out,
        servers={section: observed.servers[section] for section in places.sections if section in observed.servers},
        down=own & observed.down.keys(),
        unknown=own & observed.unknown,
    )


def _targets(vservice: model.VService, tables: Mapping[str, str]) -> list[model.Target]:
    return [
        model.target_of(vservice, pool, member, tables[member.table])
        for pool in vservice.pools
        for member in pool.members
        if member.table in tables
    ]


def _remembered(vservice: model.VService, around: _Around, assign: _Assign) -> _Piece | None:
    """The piece, made anew only where something that it depends on is another."""
    before, made = vservice.memo.get(assign.__name__, (None, None))
    if before != around or not isinstance(made, _Piece):
        made = _piece(vservice, around, assign)
        vservice.memo[assign.__name__] = around, made
    return made


def _piece(vservice: model.VService, around: _Around, assign: _Assign) -> _Piece | None:
    found: dict[str, Sequence[render.Slot]] = {}
    servers: dict[_Line, render.Server] = {}
    owners: dict[_Line, model.Member] = {}
    for pool in vservice.pools:
        section = render.backend_section(vservice.name, pool.name)
        parts = served(vservice.name, pool, around.tables, around.left_out)
        assigned = assign(pool, parts, around.servers.get(section, {}))
        if assigned is None:
            return None
        found[section] = assigned
        members = {member.name: member for member in pool.members}
        resting = _resting(vservice, pool, parts, around)
        for slot in assigned:
            if slot.member is None:
                servers[section, slot.name] = render.Server()
            else:
                owners[section, slot.name] = members[slot.member]
                servers[section, slot.name] = _server(members[slot.member], is_resting=slot.member in resting)
    config = render.piece(vservice, render.Arrangement(around.tables, around.left_out, found, servers))
    lines = {(section, slot.member): slot.name for section, each in found.items() for slot in each if slot.member is not None}
    return _Piece(config, servers, owners, lines)


def _resting(vservice: model.VService, pool: model.Pool, parts: Mapping[str, render.Part], around: _Around) -> frozenset[str]:
    """Who gets nothing because he is down; nobody where none would be left that can be served: what is known then is little."""
    usable = [member for member in pool.members if member.state == "enabled" and member.name in parts]
    seen = around.servers.get(render.backend_section(vservice.name, pool.name), {})
    # What a process before this one took out stays out until it is known better.
    out = {name for name, line in slots.held(parts, seen) if not seen[line].server.enabled}
    targets = {member.name: model.target_of(vservice, pool, member, parts[member.name].namespace) for member in usable}
    down = frozenset(
        name for name, target in targets.items() if target in around.down or (target in around.unknown and name in out)
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
