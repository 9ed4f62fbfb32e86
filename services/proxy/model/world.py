"""The desired state, kept from the store's changes: all vServices, and which route table has which namespace now."""

from collections.abc import Iterable

from crossns import errors, names, resource, store
from crossns.v1 import route_table_pb2, v_service_pb2
from services.proxy.model import parse, target
from services.proxy.model.values import COLLECTION, UNIT, Desired, Invalid, VService


class World:
    def __init__(self, keys: names.Keys) -> None:
        self._keys = keys
        self._services: dict[str, VService] = {}
        self._invalid: dict[str, Invalid] = {}
        self._leaving: set[str] = set()
        self._tables: dict[str, str] = {}
        # Made when somebody asks, and dropped with the next change.
        self._desired: Desired | None = None
        self._targets: frozenset[target.Target] | None = None
        self._named: frozenset[str] | None = None

    def change(self, change: store.Change) -> Iterable[str]:
        service, family, name = self._keys.parse(change.key) or ("", "", "")
        value = change.entry.value if change.entry is not None else None
        match family, names.collection(name):
            case "desired", "vServices":
                # What was leaving goes only when HAProxy has nothing of it any more.
                has_left = value is None and name in self._leaving
                self._take_service(name, value)
                if has_left:
                    self._desired = None
                    return ()
            case "status", "routeTables" if service == names.owner(name):
                return (UNIT,) if self._take_table(name, value) else ()
            case _:
                return ()
        self._desired = self._targets = self._named = None
        return (UNIT,)

    def units(self) -> Iterable[str]:
        return (UNIT,)

    def desired(self, _unit: str) -> Desired:
        if self._desired is None:
            leaving, invalid = frozenset(self._leaving), tuple(self._invalid.values())
            self._desired = Desired(tuple(self._services.values()), dict(self._tables), leaving, invalid)
        return self._desired

    def resources(self, _unit: str) -> Iterable[str]:
        return (*self._services, *self._invalid)

    def targets(self) -> frozenset[target.Target]:
        """What there is to check, of all vServices."""
        if self._targets is None:
            self._targets = target.targets(self.desired(UNIT))
        return self._targets

    def _take_service(self, name: str, value: bytes | None) -> None:
        self._services.pop(name, None)
        self._invalid.pop(name, None)
        self._leaving.discard(name)
        message = resource.load(COLLECTION, value) if value is not None else None
        if not isinstance(message, v_service_pb2.VService):
            return
        if message.HasField("delete_time"):
            self._leaving.add(name)
            return
        try:
            self._services[name] = parse.v_service(message)
        except errors.InvalidSpec as error:
            self._invalid[name] = Invalid(name, message.generation, error.reason, error.message)

    def _take_table(self, name: str, value: bytes | None) -> bool:
        """Whether that concerns anybody. A namespace that has gone always may: HAProxy keeps lines that nobody needs any more.

        A new one concerns those who name its table; the rest of a table's status is of no interest here."""
        before = self._tables.pop(name, "")
        status = route_table_pb2.RouteTableStatus.FromString(value or b"")
        if status.netns_cookie:
            self._tables[name] = f"{names.resource_id(name)}.{status.netns_cookie}"
        if self._tables.get(name, "") == before:
            return False
        self._desired = self._targets = None
        return bool(before) or name in self._names()

    def _names(self) -> frozenset[str]:
        """The tables that vServices name."""
        if self._named is None:
            self._named = frozenset(table for service in self._services.values() for table in service.tables)
        return self._named
