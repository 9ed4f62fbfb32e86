"""Neighbors: the standard methods."""

from typing import Any

from crossns import standard
from crossns.registry import Registry
from crossns.v1 import neighbor_pb2, neighbor_pb2_grpc


class Neighbors(neighbor_pb2_grpc.NeighborsServicer):
    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def GetNeighbor(self, request: Any, _context: Any) -> Any:
        return await standard.get(self._registry, request)

    async def ListNeighbors(self, request: Any, _context: Any) -> Any:
        return await standard.list_page(self._registry, request, neighbor_pb2.ListNeighborsResponse)

    async def CreateNeighbor(self, request: Any, _context: Any) -> Any:
        return await standard.create(self._registry, request)

    async def UpdateNeighbor(self, request: Any, _context: Any) -> Any:
        return await standard.update(self._registry, request)

    async def DeleteNeighbor(self, request: Any, _context: Any) -> Any:
        return await standard.delete(self._registry, request)
