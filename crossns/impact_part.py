"""Asks every service of the device for its part of an impact, all at once; who does not answer is told, not left out.

Called by nsmanager, which merges the parts. The caller's identity goes along.
"""

import asyncio
from collections.abc import Sequence

from crossns import errors, names, rpc
from crossns.layout import Layout
from crossns.v1 import impact_pb2, impact_pb2_grpc

# A service looks its part up at agents, which answer within milliseconds.
PATIENCE_S = 3.0

Part = tuple[Sequence[impact_pb2.ImpactItem], impact_pb2.UnansweredPart | None]


class Parts:
    """`own`: the service that asks, which knows its own part."""

    def __init__(self, layout: Layout, own: str) -> None:
        self._sockets = {service: layout.peer_socket(service) for service in names.SERVICES if service != own}

    async def add(self, request: impact_pb2.AnalyzePartRequest, impact: impact_pb2.Impact) -> None:
        """Put the parts into the impact."""
        for items, unanswered in await asyncio.gather(*(self._part(service, request) for service in self._sockets)):
            impact.items.extend(items)
            impact.unanswered.extend([unanswered] if unanswered is not None else [])

    async def _part(self, service: str, request: impact_pb2.AnalyzePartRequest) -> Part:
        try:
            async with rpc.channel(f"unix:{self._sockets[service]}") as channel:
                method = impact_pb2_grpc.ImpactPartsStub(channel).AnalyzePart
                with rpc.translated():
                    answer = await method(request, timeout=PATIENCE_S, metadata=rpc.caller().metadata)
            return answer.items, None
        except errors.CrossnsError as error:
            return (), impact_pb2.UnansweredPart(service=service, message=error.message)
