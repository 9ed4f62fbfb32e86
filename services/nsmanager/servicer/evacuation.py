"""Deletes a route table together with what nsmanager has in it: cards go back to `default`, the rest is deleted.

Called by RouteTables. Whether the table may go is found out before anything is touched: a refusal changes nothing.
"""

from collections.abc import Iterable
from typing import Any

from google.protobuf import field_mask_pb2

from crossns import errors, names, standard
from crossns.registry import ATTEMPTS, Options, Registry, check, contention
from crossns.resource import Resource
from crossns.v1 import interface_pb2


class Evacuation:
    def __init__(self, registries: dict[str, Registry]) -> None:
        self._registries = registries
        self._tables = registries["routeTables"]

    async def delete(self, request: Any) -> Any:
        for _ in range(ATTEMPTS):
            inside = await self._checked(request)
            if request.validate_only and inside is not None:
                return await self._tables.get(request.name)
            await self._clear(inside or [])
            try:
                return await standard.delete(self._tables, request)
            except errors.FailedPrecondition as error:
                # Somebody put another interface in meanwhile.
                if error.reason != "ROUTE_TABLE_NOT_EMPTY":
                    raise
        raise contention(request.name)

    async def _checked(self, request: Any) -> list[Resource] | None:
        """What is in the table; None where there is no table. Raises where the table must stay as it is."""
        try:
            table = await self._tables.get(request.name)
        except errors.NotFound:
            return None
        if table.HasField("delete_time"):
            return []
        check.etag(request.etag, table)
        self._tables.kind.check_deletion(table)
        referrers = await self._referrers(table.name)
        self._check_owned(table.name, referrers)
        inside = [await self._registries[names.collection(name)].get(name) for name in referrers]
        for each in inside:
            if not _is_card(each):
                outside = set(await self._referrers(each.name)) - set(referrers)
                self._check_none(each.name, outside)
        return inside

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
            await registry.update(_pulled_back(resource), field_mask_pb2.FieldMask(paths=["spec"]), Options())
        else:
            await registry.delete(resource.name, Options(allow_missing=True))

    async def _referrers(self, name: str) -> list[str]:
        keys = self._tables.keys
        listings = [await self._tables.store.list(keys.of(service).refs_to(name)) for service in names.SERVICES]
        return sorted(entry.key.split("//", 1)[1] for listing in listings for entry in listing.entries)

    def _check_owned(self, table: str, referrers: Iterable[str]) -> None:
        self._check_none(table, {name for name in referrers if names.owner(name) != self._tables.keys.service})

    def _check_none(self, name: str, referrers: set[str]) -> None:
        if referrers:
            listed = ", ".join(sorted(referrers))
            message = f"{name} is still used by {listed}: change or delete them first"
            raise errors.FailedPrecondition("STILL_REFERENCED", message, resource=name, referrers=listed)


def _is_card(resource: Resource) -> bool:
    return isinstance(resource, interface_pb2.Interface) and resource.spec.HasField("physical")


def _pulled_back(card: interface_pb2.Interface) -> interface_pb2.Interface:
    wanted = interface_pb2.Interface(name=card.name)
    wanted.spec.route_table = names.DEFAULT_TABLE
    wanted.spec.physical.CopyFrom(card.spec.physical)
    wanted.spec.link_name = card.status.original_link_name if card.spec.physical.mac_address else ""
    return wanted
