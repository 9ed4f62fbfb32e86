"""Interfaces: the standard methods."""

from typing import Any

from crossns import standard
from crossns.registry import Registry
from crossns.v1 import interface_pb2, interface_pb2_grpc


class Interfaces(interface_pb2_grpc.InterfacesServicer):
    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def GetInterface(self, request: Any, _context: Any) -> Any:
        return await standard.get(self._registry, request)

    async def ListInterfaces(self, request: Any, _context: Any) -> Any:
        return await standard.list_page(self._registry, request, interface_pb2.ListInterfacesResponse)

    async def CreateInterface(self, request: Any, _context: Any) -> Any:
        return await standard.create(self._registry, request)

    async def UpdateInterface(self, request: Any, _context: Any) -> Any:
        return await standard.update(self._registry, request)

    async def DeleteInterface(self, request: Any, _context: Any) -> Any:
        return await standard.delete(self._registry, request)
