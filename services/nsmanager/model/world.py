"""The desired state of every route table, kept from the store's changes and handed out one table at a time.

The loop owns it. A change costs what it concerns, not what there is: everything is indexed by table.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from crossns import names, resource, store
from crossns.v1 import interface_pb2, neighbor_pb2, route_pb2, route_table_pb2, rule_pb2, v_service_pb2
from services.nsmanager.model import entry, parse
from services.nsmanager.model.values import Desired, Link, Neighbor, Route, Rule, Table, Vip

Value = Table | Link | Route | Rule | Neighbor | tuple[Vip, ...]


def _parse(message: resource.Resource) -> Value:
    if isinstance(message, route_table_pb2.RouteTable):
        return parse.route_table(message)
    if isinstance(message, interface_pb2.Interface):
        return parse.interface(message)
    if isinstance(message, route_pb2.Route):
        return parse.route(message)
    if isinstance(message, rule_pb2.Rule):
        return entry.rule(message)
    if isinstance(message, neighbor_pb2.Neighbor):
        return entry.neighbor(message)
    assert isinstance(message, v_service_pb2.VService)  # noqa: S101 - there is no other kind
    return parse.vips(message)


def _tables(value: Value) -> set[str]:
    if isinstance(value, tuple):
        return {vip.table for vip in value}
    return {value.id if isinstance(value, Table) else value.table}


def _interfaces(value: Value) -> set[str]:
    """The interfaces that the value is built on."""
    if isinstance(value, Link):
        return {value.parent, *value.ports} - {""}
    if isinstance(value, Route):
        return {hop.interface for hop in value.hops} - {""}
    if isinstance(value, Rule | Neighbor):
        return {value.interface} - {""}
    return set()


class World:
    def __init__(self, keys: names.Keys) -> None:
        self._keys = keys
        self._living: dict[str, Value] = {}
        self._leaving: dict[str, Value] = {}
        self._of_table: defaultdict[str, set[str]] = defaultdict(set)
        # Interface -> resources that are built on it.
        self._built_on: defaultdict[str, set[str]] = defaultdict(set)
        self._links: dict[str, Link] = {}

    @property
    def links(self) -> Mapping[str, Link]:
        """Every living interface, by resource name."""
        return self._links

    def change(self, change: store.Change) -> Iterable[str]:
        parsed = self._keys.parse(change.key)
        if parsed is None or parsed[1] != "desired" or names.collection(parsed[2]) not in resource.MESSAGES:
            return ()
        name = parsed[2]
        concerned = self._drop(name)
        if change.entry is not None:
            message = resource.load(names.collection(name), change.entry.value)
            concerned |= self._put(name, _parse(message), leaving=message.HasField("delete_time"))
        return concerned

    def units(self) -> Iterable[str]:
        return [f"routeTables/{table}" for table, held in self._of_table.items() if held]

    def desired(self, unit: str) -> Desired:
        table = names.resource_id(unit)
        held = self._of_table.get(table, set())
        living = [self._living[name] for name in sorted(held) if name in self._living]
        leaving = [(name, self._leaving[name]) for name in sorted(held) if name in self._leaving]
        return Desired(
            id=table,
            table=next((value for value in living if isinstance(value, Table)), None),
            links=tuple(value for value in living if isinstance(value, Link)),
            routes=tuple(value for value in living if isinstance(value, Route)),
            rules=tuple(value for value in living if isinstance(value, Rule)),
            neighbors=tuple(value for value in living if isinstance(value, Neighbor)),
            vips=tuple(vip for value in living if isinstance(value, tuple) for vip in value if vip.table == table),
            leaving=frozenset(name for name, value in leaving if not isinstance(value, tuple)),
            leaving_vips=tuple(vip for _, value in leaving if isinstance(value, tuple) for vip in value if vip.table == table),
            all_links=self._links,
        )

    def resources(self, unit: str) -> Iterable[str]:
        return [name for name in self._of_table.get(names.resource_id(unit), ()) if name in self._living]

    def _put(self, name: str, value: Value, *, leaving: bool) -> set[str]:
        (self._leaving if leaving else self._living)[name] = value
        for table in _tables(value):
            self._of_table[table].add(name)
        for base in _interfaces(value):
            self._built_on[base].add(name)
        if isinstance(value, Link) and not leaving:
            self._links[name] = value
        return self._concerned(name, value)

    def _drop(self, name: str) -> set[str]:
        living, leaving = self._living.pop(name, None), self._leaving.pop(name, None)
        value = living or leaving
        if value is None:
            return set()
        for table in _tables(value):
            self._of_table[table].discard(name)
        for base in _interfaces(value):
            self._built_on[base].discard(name)
        self._links.pop(name, None)
        # What was leaving goes only when nothing of it is there any more.
        return self._concerned(name, value) if living else set()

    def _concerned(self, name: str, value: Value) -> set[str]:
        above = [self._living[other] for other in self._built_on.get(name, ()) if other in self._living]
        return {f"routeTables/{table}" for each in (value, *above) for table in _tables(each)}
