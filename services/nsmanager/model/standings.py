"""How vServices stand, by route table: their frontends and members in it, as the vServices' owner says in the store.

A second loop owns it. A change costs what it concerns, and wakes only tables in which something stands otherwise than before.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import Message

from crossns import names, standing, store
from crossns.v1 import status_pb2, v_service_pb2

T = TypeVar("T")
M = TypeVar("M", bound=Message)

_COLLECTION = "vServices"
_PENDING = v_service_pb2.PartStatus(state=status_pb2.STATE_PENDING)


@dataclass(frozen=True, slots=True)
class TableStandings:
    """Of one route table, `table` by its id."""

    table: str
    standings: Mapping[standing.Key, standing.Standing]


class Standings:
    def __init__(self, keys: names.Keys) -> None:
        self._keys = keys
        self._wanted: dict[str, v_service_pb2.VService] = {}
        self._said: dict[str, v_service_pb2.VServiceStatus] = {}
        # Table -> vService -> its standings there.
        self._of_table: defaultdict[str, dict[str, dict[standing.Key, standing.Standing]]] = defaultdict(dict)

    def change(self, change: store.Change) -> Iterable[str]:
        service, family, name = self._keys.parse(change.key) or ("", "", "")
        if names.collection(name) != _COLLECTION or service != names.OWNERS[_COLLECTION]:
            return ()
        value = change.entry.value if change.entry is not None else None
        if family == "desired":
            _put(self._wanted, name, None if value is None else _parse(v_service_pb2.VService, value))
        elif family == "status":
            _put(self._said, name, None if value is None else _parse(v_service_pb2.VServiceStatus, value))
        else:
            return ()
        return {f"routeTables/{table}" for table in self._renew(name)}

    def units(self) -> Iterable[str]:
        return [f"routeTables/{table}" for table, held in self._of_table.items() if held]

    def desired(self, unit: str) -> TableStandings:
        table = names.resource_id(unit)
        held = self._of_table.get(table, {})
        return TableStandings(table, {key: each for standings in held.values() for key, each in standings.items()})

    def resources(self, unit: str) -> Iterable[str]:
        """None: nothing of this is said in any status."""
        del unit
        return ()

    def _renew(self, name: str) -> set[str]:
        """The tables in which the vService stands otherwise now."""
        now: defaultdict[str, dict[standing.Key, standing.Standing]] = defaultdict(dict)
        if name in self._wanted:
            for table, each in _standings(self._wanted[name], self._said.get(name)):
                now[table][each.key] = each
        before = {table for table, held in self._of_table.items() if name in held}
        changed = {table for table in before | now.keys() if self._of_table[table].get(name) != now.get(table)}
        for table in changed:
            _put(self._of_table[table], name, now.get(table))
        return changed


def _put(held: dict[str, T], name: str, value: T | None) -> None:
    if value is None:
        held.pop(name, None)
    else:
        held[name] = value


def _parse(kind: type[M], value: bytes) -> M:
    message = kind()
    message.ParseFromString(value)
    return message


def _standings(
    wanted: v_service_pb2.VService, said: v_service_pb2.VServiceStatus | None
) -> Iterator[tuple[str, standing.Standing]]:
    """With the table that each is in."""
    parts = {part.name: part for part in (*said.frontends, *said.members)} if said is not None else {}
    ends: list[tuple[str, v_service_pb2.Frontend | v_service_pb2.Member]] = [(each.name, each) for each in wanted.spec.frontends]
    ends += [(f"{pool.name}/{each.name}", each) for pool in wanted.spec.pools for each in pool.members]
    for name, end in ends:
        part = parts.get(name, _PENDING)
        state = status_pb2.State.Name(part.state).removeprefix("STATE_")
        known = standing.Standing(
            vservice=wanted.name, part=name, address=end.address, port=end.port, state=state, reason=part.reason
        )
        yield names.resource_id(end.route_table), known
