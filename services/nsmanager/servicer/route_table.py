"""RouteTables: the standard methods, what a deletion would touch, and what follows from the index."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from crossns import errors, names, standard
from crossns.registry import Options, Registry
from crossns.resource import holdings
from crossns.v1 import route_table_pb2, route_table_pb2_grpc
from services.nsmanager import model
from services.nsmanager.servicer.evacuation import Evacuation
from services.nsmanager.servicer.impact import Impacts
from services.nsmanager.servicer.isolation import Examiner, Isolation
from services.nsmanager.servicer.statistics import Statistics, interval


class RouteTables(route_table_pb2_grpc.RouteTablesServicer):
    def __init__(self, registries: dict[str, Registry], statistics: Statistics, impacts: Impacts, examiner: Examiner) -> None:
        self._registry = registries["routeTables"]
        self._evacuation = Evacuation(registries, impacts)
        self._statistics = statistics
        self._isolation = Isolation(examiner, self._registry)

    async def ensure_built_in(self) -> None:
        """`routeTables/default` always exists."""
        default = route_table_pb2.RouteTable(name=names.DEFAULT_TABLE)
        default.spec.description = "the namespace that the device booted in"
        try:
            await self._registry.create(default, Options())
        except errors.AlreadyExists:
            return

    async def GetRouteTable(self, request: Any, _context: Any) -> Any:
        return await standard.get(self._registry, request)

    async def ListRouteTables(self, request: Any, _context: Any) -> Any:
        return await standard.list_page(self._registry, request, route_table_pb2.ListRouteTablesResponse)

    async def CreateRouteTable(self, request: Any, _context: Any) -> Any:
        return await standard.create(self._registry, request)

    async def UpdateRouteTable(self, request: Any, _context: Any) -> Any:
        return await standard.update(self._registry, request)

    async def DeleteRouteTable(self, request: Any, _context: Any) -> Any:
        names.check(request.name, "routeTables", "name")
        return await self._evacuation.delete(request)

    async def AnalyzeImpact(self, request: Any, _context: Any) -> Any:
        return await self._evacuation.impact(request)

    async def GetIdentity(self, request: Any, _context: Any) -> Any:
        table = await standard.get(self._registry, request)
        found, others = model.identity.of(table.status.index), await self._indices()
        return route_table_pb2.RouteTableIdentity(
            name=table.name,
            index=found.index,
            vrid_base=found.vrid_base,
            router_id=found.router_id,
            control_socket_prefix=found.control_socket_prefix,
            netns_cookie=table.status.netns_cookie,
            port_base=found.port_base,
            port_count=model.identity.PORT_COUNT,
            vrid_shared_with=model.identity.sharing(found.index, others, "vrid_base"),
            ports_shared_with=model.identity.sharing(found.index, others, "port_base"),
        )

    async def _indices(self) -> dict[int, str]:
        """Index -> name of the table that has it."""
        prefix = self._registry.keys.claim("index", "")
        listing = await self._registry.store.list(prefix)
        # One that rests has no owner.
        owned = ((entry.key.removeprefix(prefix), owner.owner) for entry in listing.entries for owner in holdings(entry.value))
        return {int(index): name for index, name in owned if name}

    async def GetStatistics(self, request: Any, _context: Any) -> Any:
        table = await standard.get(self._registry, request)
        return await self._statistics.read(table.name)

    async def WatchStatistics(self, request: Any, _context: Any) -> AsyncGenerator[Any, None]:
        interval_s = interval(request)
        table = await standard.get(self._registry, request)
        try:
            async with aclosing(self._statistics.watch(table.name, interval_s)) as answers:
                async for answer in answers:
                    yield answer
        except errors.AgentUnavailable:
            # A table that was deleted meanwhile has no agent, and never will.
            await standard.get(self._registry, request)
            raise

    async def ListStatistics(self, _request: Any, _context: Any) -> AsyncGenerator[Any, None]:
        for each in await self._statistics.read_all():
            yield each

    async def VerifyIsolation(self, request: Any, _context: Any) -> AsyncGenerator[Any, None]:
        async with aclosing(self._isolation.verify(request)) as answers:
            async for answer in answers:
                yield answer
