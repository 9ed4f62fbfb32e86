"""Who has which server line of HAProxy, so that members can come, go and change without a reload.

Each pool has a line for every member and some spare ones for each namespace that it reaches. Nothing is remembered: who has
a line is read from the running worker, by the line's name, or by where a spare one points. Ids go with a member from reload to
reload: the source hash goes by them.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

from services.proxy import model, render
from services.proxy.plan.engine import Seen

# What a pool can take in each namespace before a reload is needed. A line costs HAProxy some 40 KB.
SPARE = 2


def kept(pool: model.Pool, members: Mapping[str, render.Part], seen: Mapping[str, Seen]) -> Sequence[render.Slot] | None:
    """The lines that the worker has, with those who can have one each; None where a member finds none. `members`: the parts of
    those that can be served, by name."""
    if pool.algorithm == "first":
        slots = fresh(pool, members, seen)
        return slots if {slot.name: slot.id for slot in slots} == {name: each.id for name, each in seen.items()} else None
    taken = dict(held(members, seen))
    free = [name for name, each in sorted(seen.items()) if _is_unused(name, each) and name not in taken.values()]
    for name, part in sorted(members.items()):
        if name in taken:
            continue
        slot = next((slot for slot in free if _can_take(slot, part)), None)
        if slot is None:
            return None
        free.remove(slot)
        taken[name] = slot
    owners = {slot: name for name, slot in taken.items()}
    return _ordered(render.Slot(slot, each.id, owners.get(slot)) for slot, each in seen.items())


def fresh(pool: model.Pool, members: Mapping[str, render.Part], seen: Mapping[str, Seen]) -> Sequence[render.Slot]:
    """A line under the own name of each member, and spare ones."""
    if pool.algorithm == "first":
        # The ids are the order in which they are filled.
        ordered = [member.name for member in pool.members if member.name in members]
        return [render.Slot(_own(name, members[name]), number, name) for number, name in enumerate(ordered, start=1)]
    ids = {name: seen[slot].id for name, slot in held(members, seen)}
    taken = frozenset(ids.values())
    unused = (number for number in itertools.count(1) if number not in taken)
    own = [render.Slot(_own(name, part), ids.get(name) or next(unused), name) for name, part in sorted(members.items())]
    return _ordered([*own, *(render.Slot(name, next(unused)) for name in _spares(members.values()))])


def held(members: Mapping[str, render.Part], seen: Mapping[str, Seen]) -> Iterator[tuple[str, str]]:
    """Who has a line already: (member, line)."""
    spare = sorted((slot for slot in seen if slot.startswith("_")), key=lambda slot: (seen[slot].server.enabled, slot))
    # Of two that point to the same the one in use.
    pointing = {(namespace(slot), seen[slot].server.socket): slot for slot in spare}
    for name, part in members.items():
        if _own(name, part) in seen:
            yield name, _own(name, part)
        elif slot := pointing.get((part.namespace, part.socket)):
            yield name, slot


def _ordered(slots: Iterable[render.Slot]) -> Sequence[render.Slot]:
    """The same lines are the same structure, whoever made them."""
    return sorted(slots, key=lambda slot: slot.id)


def _is_unused(slot: str, seen: Seen) -> bool:
    """A spare line that nobody ever had: what HAProxy counts for it is nobody else's."""
    return slot.startswith("_") and not seen.server.enabled and not seen.was_used


def _can_take(slot: str, part: render.Part) -> bool:
    """HAProxy does not change a line to the port of arrival."""
    return namespace(slot) == part.namespace and not part.socket.endswith(":0")


def _spares(parts: Iterable[render.Part]) -> Iterator[str]:
    for namespace in sorted({part.namespace for part in parts if not part.socket.endswith(":0")}):
        yield from (f"_{number}.{namespace}" for number in range(1, SPARE + 1))


def _own(name: str, part: render.Part) -> str:
    return f"{name}.{part.namespace}"


def namespace(slot: str) -> str:
    """In which a line connects."""
    return slot.partition(".")[2]
