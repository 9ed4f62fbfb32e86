"""Rules: the standard methods."""

from typing import Any

from crossns import standard
from crossns.registry import Registry
from crossns.v1 import rule_pb2, rule_pb2_grpc


class Rules(rule_pb2_grpc.RulesServicer):
    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def GetRule(self, request: Any, _context: Any) -> Any:
        return await standard.get(self._registry, request)

    async def ListRules(self, request: Any, _context: Any) -> Any:
        return await standard.list_page(self._registry, request, rule_pb2.ListRulesResponse)

    async def CreateRule(self, request: Any, _context: Any) -> Any:
        return await standard.create(self._registry, request)

    async def UpdateRule(self, request: Any, _context: Any) -> Any:
        return await standard.update(self._registry, request)

    async def DeleteRule(self, request: Any, _context: Any) -> Any:
        return await standard.delete(self._registry, request)
