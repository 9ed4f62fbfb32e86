"""Deletes a route table, where asked together with what nsmanager has in it: cards go back to `default`, the rest is deleted.

Called by RouteTables. Whether the table may go is found out before anything is touched: a refusal changes nothing, and names all
that is in the way.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf import field_mask_pb2

from crossns import errors, names, standard
from crossns.registry import ATTEMPTS, Options, Registry, check, contention
from crossns.resource import Resource
from crossns.v1 import impact_pb2, interface_pb2, route_table_pb2
from services.nsmanager import plan
from services.nsmanager.servicer import own_session
from services.nsmanager.servicer.impact import Impacts

_IN_THE_WAY = {"ROUTE_TABLE_NOT_EMPTY", "STILL_REFERENCED"}

log = logging.getLogger(__name__)


class Evacuation:
    def __init__(self, registries: Mapping[str, Registry], impacts: Impacts) -> None:
        self._registries = registries
        self._tables = registries["routeTables"]
        self._impacts = impacts

    async def delete(self, request: Any) -> Any:
        return await (self._delete_with_all(request) if request.evacuate else self._delete_empty(request))

    async def _delete_empty(self, request: Any) -> Any:
        """Who refers to the table is asked where somebody does, to name all that is in the way."""
        for _ in range(ATTEMPTS):
            table = await self._living(request)
            undeclared: tuple[str, ...] = ()
            if table is not None:
                self._tables.kind.check_deletion(table)
                undeclared = await self._undeclared(table)
            if not undeclared:
                try:
                    return await standard.delete(self._tables, request)
                except errors.FailedPrecondition as error:
                    if table is None or error.reason not in _IN_THE_WAY:
                        raise
            assert table is not None  # noqa: S101 - else it was deleted, or refused
            # What was in the way may be gone by now.
            _refuse(table, dict.fromkeys(await self._referrers(table.name), table.name), undeclared)
        raise contention(request.name)

    async def _delete_with_all(self, request: Any) -> Any:
        for _ in range(ATTEMPTS):
            table = await self._living(request)
            inside = await self._inside(table, evacuate=True) if table is not None else []
            if request.validate_only and inside:
                return await self._tables.get(request.name)
            evacuated = await self._had(request, inside)
            await self._clear(inside)
            try:
                deleted = await standard.delete(self._tables, request)
            except errors.FailedPrecondition as error:
                # Somebody put another interface in meanwhile.
                if error.reason != "ROUTE_TABLE_NOT_EMPTY":
                    raise
                continue
            deleted.status.evacuated.extend(evacuated)
            return deleted
        raise contention(request.name)

    async def impact(self, request: Any) -> impact_pb2.Impact:
        """What a deletion would touch; nothing where it is refused."""
        table = await self._tables.get(names.check(request.name, "routeTables", "name"))
        check.alive(table)
        try:
            inside = await self._inside(table, evacuate=request.evacuate)
        except errors.FailedPrecondition as error:
            conflict = impact_pb2.ImpactConflict(reason=error.reason, message=error.message, blocking=True)
            return impact_pb2.Impact(name=table.name, conflicts=[conflict])
        return (await self._impacts.of_deletion(table.name, inside, request.own_session)).impact

    async def _living(self, request: Any) -> Resource | None:
        """The table; None where it is not there, or going already."""
        try:
            table = await self._tables.get(request.name)
        except errors.NotFound:
            return None
        if table.HasField("delete_time"):
            return None
        check.etag(request.etag, table)
        return table

    async def _inside(self, table: Resource, *, evacuate: bool) -> list[Resource]:
        self._tables.kind.check_deletion(table)
        referrers = await self._referrers(table.name)
        own = [name for name in referrers if names.owner(name) == self._tables.keys.service] if evacuate else []
        inside = [await self._registries[names.collection(name)].get(name) for name in own]
        in_the_way = {name: table.name for name in referrers if name not in own}
        for each in inside:
            if not _is_card(each):
                in_the_way |= {name: each.name for name in await self._referrers(each.name) if name not in referrers}
        _refuse(table, in_the_way, await self._undeclared(table))
        return inside

    async def _undeclared(self, table: Resource) -> tuple[str, ...]:
        """What the table's agent sees at this moment: the status may be an older one. AgentUnavailable. A table that never
        had a namespace has nothing in it."""
        assert isinstance(table, route_table_pb2.RouteTable)  # noqa: S101 - by its kind
        return await self._impacts.undeclared(names.resource_id(table.name)) if table.status.netns_cookie else ()

    async def _had(self, request: Any, inside: list[Resource]) -> list[route_table_pb2.EvacuatedCard]:
        """What the cards have that will be pulled back: also for the log, should the reply be lost."""
        table = request.name
        if not any(map(_is_card, inside)) and not request.HasField("own_session"):
            return []
        outlook = await self._impacts.of_deletion(table, inside, request.own_session)
        own_session.check(outlook.impact.carries_own_session, table, request)
        found = plan.evacuated(outlook.relocation, outlook.impact)
        for card in found:
            had = ", ".join((*card.addresses, *card.routes)) or "nothing"
            log.info("%s is pulled out of %s, where it had %s", card.interface, table, had)
        return found

    async def _clear(self, inside: Iterable[Resource]) -> None:
        """From the top down: what others sit on goes when they have gone."""
        left = list(inside)
        while left:
            refused: list[Resource] = []
            for each in left:
                try:
                    await self._take_out(each)
                except errors.FailedPrecondition:
                    if len(refused) == len(left) - 1:
                        raise
                    refused.append(each)
            left = refused

    async def _take_out(self, resource: Resource) -> None:
        registry = self._registries[names.collection(resource.name)]
        if isinstance(resource, interface_pb2.Interface) and _is_card(resource):
            await registry.update(plan.pulled_back(resource), field_mask_pb2.FieldMask(paths=["spec"]), Options())
        else:
            await registry.delete(resource.name, Options(allow_missing=True))

    async def _referrers(self, name: str) -> list[str]:
        keys = self._tables.keys
        listings = [await self._tables.store.list(keys.of(service).refs_to(name)) for service in names.SERVICES]
        return sorted(entry.key.split("//", 1)[1] for listing in listings for entry in listing.entries)


def _refuse(table: Resource, in_the_way: Mapping[str, str], undeclared: Iterable[str]) -> None:
    """Raise where something is: all of it named. `in_the_way`: referrer -> what it refers to. Links that no Interface declares
    (`undeclared`) are somebody's: they must not die with the namespace."""
    interfaces = [name for name in in_the_way if names.collection(name) == "interfaces" and in_the_way[name] == table.name]
    words, about = [], {"referrers": ", ".join([*interfaces, *(name for name in in_the_way if name not in interfaces)])}
    if interfaces:
        words.append(f"{table.name} still has {', '.join(interfaces)}: move or delete them first, or delete with evacuate")
    if links := ", ".join(undeclared):
        words.append(
            f"{table.name} holds links that no Interface declares: {links}; move or delete them first (`ip -n ... link`)"
        )
        about["links"] = links
    for used in sorted(set(in_the_way.values())):
        by = ", ".join(name for name, target in in_the_way.items() if target == used and name not in interfaces)
        words += [f"{used} is still used by {by}: change or delete them first"] if by else []
    if words:
        reason = "ROUTE_TABLE_NOT_EMPTY" if interfaces or links else "STILL_REFERENCED"
        raise errors.FailedPrecondition(reason, "; ".join(words), resource=table.name, **about)


def _is_card(resource: Resource) -> bool:
    return isinstance(resource, interface_pb2.Interface) and resource.spec.HasField("physical")
