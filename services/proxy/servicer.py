"""The proxy's gRPC methods: VServices, and its part of an impact. They store what is wanted; nothing here touches the device."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any

from crossns import errors, names, standard, store
from crossns.registry import Registry
from crossns.resource import Claim, Draft, Kind, Reference, Resource
from crossns.v1 import impact_pb2, impact_pb2_grpc, v_service_pb2, v_service_pb2_grpc
from services.proxy import model, plan


def registry(backend: store.Store, keys: names.Keys) -> Registry:
    return Registry(backend, keys, V_SERVICE)


PAGE_SIZE = 1000
# What HAProxy has counted of sections of its file; EngineUnavailable where it does not answer.
Count = Callable[[Sequence[str]], Awaitable[plan.Totals]]
# The kernel's answer in a route table; AgentUnavailable where its agent does not answer.
Ways = Callable[[str, Sequence[str]], Awaitable[Mapping[str, str]]]


class VServices(v_service_pb2_grpc.VServicesServicer):
    def __init__(self, registry: Registry, count: Count | None = None) -> None:
        self._registry = registry
        self._count = count or _nothing

    async def GetVService(self, request: Any, _context: Any) -> Any:
        return await standard.get(self._registry, request)

    async def ListVServices(self, request: Any, _context: Any) -> Any:
        return await standard.list_page(self._registry, request, v_service_pb2.ListVServicesResponse)

    async def CreateVService(self, request: Any, _context: Any) -> Any:
        return await standard.create(self._registry, request)

    async def UpdateVService(self, request: Any, _context: Any) -> Any:
        return await standard.update(self._registry, request)

    async def DeleteVService(self, request: Any, _context: Any) -> Any:
        return await standard.delete(self._registry, request)

    async def GetVServiceStatistics(self, request: Any, _context: Any) -> Any:
        """Zeros for one that HAProxy does not know of yet: there may be none."""
        message = await standard.get(self._registry, request)
        vservice = model.v_service(message)
        totals = await self._count(plan.sections(vservice)) if _is_known(message) else plan.Totals()
        return plan.statistics(vservice, totals)

    async def ListVServiceStatistics(self, _request: Any, _context: Any) -> AsyncGenerator[Any, None]:
        """HAProxy is asked once for all."""
        living = [each for each in await self._all() if not each.HasField("delete_time")]
        vservices = [(model.v_service(each), _is_known(each)) for each in living if _is_valid(each)]
        sections = [section for vservice, is_known in vservices if is_known for section in plan.sections(vservice)]
        totals = await self._count(sections) if sections else plan.Totals()
        for vservice, is_known in vservices:
            yield plan.statistics(vservice, totals if is_known else plan.Totals())

    async def _all(self) -> list[v_service_pb2.VService]:
        found: list[Any] = []
        token = ""
        while True:
            page, token = await self._registry.page(f"{model.COLLECTION}/", PAGE_SIZE, token)
            found += page
            if not token:
                return found


class ImpactParts(impact_pb2_grpc.ImpactPartsServicer):
    """`desired`: what HAProxy should serve at this moment; `ways`: by which link addresses are reached in a table, by its id."""

    def __init__(self, desired: Callable[[], model.Desired], ways: Ways) -> None:
        self._desired = desired
        self._ways = ways

    async def AnalyzePart(self, request: Any, _context: Any) -> Any:
        desired = self._desired()
        members = plan.members_in(desired, request.route_table)
        ways = await self._ways(names.resource_id(request.route_table), members) if members else {}
        return impact_pb2.AnalyzePartResponse(items=plan.part(desired, request, ways))


def _is_known(message: v_service_pb2.VService) -> bool:
    """Whether HAProxy has, or has had, something of it."""
    return any(part.service == plan.SERVICE for part in message.status.frontends)


def _is_valid(message: v_service_pb2.VService) -> bool:
    """One that was stored by another version may not be; then it is told by its status, and the others all the same."""
    try:
        model.v_service(message)
    except errors.InvalidSpec:
        return False
    return True


async def _nothing(_sections: Sequence[str]) -> plan.Totals:
    return plan.Totals()


def draft(message: Resource) -> Draft:
    """Each frontend claims its port of the VIP in its table; every route table that is named must exist and stay."""
    assert isinstance(message, v_service_pb2.VService)  # noqa: S101 - by its kind
    vservice = model.v_service(message)
    return Draft(claims(vservice), references(vservice))


def claims(vservice: model.VService) -> tuple[Claim, ...]:
    return tuple(
        Claim(
            kind="vip",
            key=f"{frontend.table}/{frontend.address}/tcp",
            reason="VIP_TAKEN",
            message=f"spec.frontends[{index}]: {{owner}} listens on {frontend.sockets[0]} in {frontend.table} already: "
            "give another address or port",
            first=frontend.port,
            last=frontend.end_port,
        )
        for index, frontend in enumerate(vservice.frontends)
    )


def references(vservice: model.VService) -> tuple[Reference, ...]:
    """Each route table once, with the first field that names it."""
    fields: dict[str, str] = {}
    for index, frontend in enumerate(vservice.frontends):
        fields.setdefault(frontend.table, f"spec.frontends[{index}].route_table")
    for pool_index, pool in enumerate(vservice.pools):
        for index, member in enumerate(pool.members):
            fields.setdefault(member.table, f"spec.pools[{pool_index}].members[{index}].route_table")
    return tuple(Reference(target, field) for target, field in fields.items())


V_SERVICE = Kind("vServices", "v_service", draft)
