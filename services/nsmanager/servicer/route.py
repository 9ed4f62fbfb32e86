"""Routes: the standard methods."""

from typing import Any

from crossns import standard
from crossns.registry import Registry
from crossns.v1 import route_pb2, route_pb2_grpc


class Routes(route_pb2_grpc.RoutesServicer):
    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def GetRoute(self, request: Any, _context: Any) -> Any:
        return await standard.get(self._registry, request)

    async def ListRoutes(self, request: Any, _context: Any) -> Any:
        return await standard.list_page(self._registry, request, route_pb2.ListRoutesResponse)

    async def CreateRoute(self, request: Any, _context: Any) -> Any:
        return await standard.create(self._registry, request)

    async def UpdateRoute(self, request: Any, _context: Any) -> Any:
        return await standard.update(self._registry, request)

    async def DeleteRoute(self, request: Any, _context: Any) -> Any:
        return await standard.delete(self._registry, request)
