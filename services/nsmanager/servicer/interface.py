"""Interfaces: the standard methods, moves, and what a move would touch."""

from typing import Any

from crossns import standard
from crossns.registry import Registry
from crossns.v1 import interface_pb2, interface_pb2_grpc
from services.nsmanager.servicer.impact import Impacts
from services.nsmanager.servicer.move import Moves
from services.nsmanager.servicer.own_session import OwnSession


class Interfaces(interface_pb2_grpc.InterfacesServicer):
    def __init__(self, registry: Registry, impacts: Impacts, moves: Moves) -> None:
        self._registry = registry
        self._impacts = impacts
        self._moves = moves
        self._own_session = OwnSession(registry, impacts)

    async def GetInterface(self, request: Any, _context: Any) -> Any:
        return await standard.get(self._registry, request)

    async def ListInterfaces(self, request: Any, _context: Any) -> Any:
        return await standard.list_page(self._registry, request, interface_pb2.ListInterfacesResponse)

    async def CreateInterface(self, request: Any, _context: Any) -> Any:
        await self._own_session.check_created(request)
        return await standard.create(self._registry, request)

    async def UpdateInterface(self, request: Any, _context: Any) -> Any:
        await self._own_session.check_updated(request)
        return await standard.update(self._registry, request)

    async def DeleteInterface(self, request: Any, _context: Any) -> Any:
        await self._own_session.check_deleted(request)
        return await standard.delete(self._registry, request)

    async def AnalyzeImpact(self, request: Any, _context: Any) -> Any:
        return (await self._impacts.of_move(request)).impact

    async def Move(self, request: Any, _context: Any) -> Any:
        return await self._moves.move(request)
