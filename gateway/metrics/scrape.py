"""Asks the services what they count, all at once, and gives none of them longer than a scrape may take.

Called by `page` for each scrape. Whoever does not answer is told as such; what he had said until then is told, too.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterable
from typing import Any

from grpc import aio

from crossns import rpc
from crossns.v1 import route_table_pb2, route_table_pb2_grpc, v_service_pb2, v_service_pb2_grpc
from gateway.metrics.family import Scrape
from gateway.owner import Channels

# Longer than nsmanager gives the agents, and short enough for the whole scrape to take less than a second.
WITHIN_S = 0.8
_CALLER = rpc.Identity("metrics", "viewer").metadata

_log = logging.getLogger(__name__)


class Scraper:
    def __init__(self, channels: Channels) -> None:
        self._tables = route_table_pb2_grpc.RouteTablesStub(channels["nsmanager"])
        self._v_services = v_service_pb2_grpc.VServicesStub(channels["proxy"])

    async def scrape(self) -> Scrape:
        begun = time.monotonic()
        tables: list[Any] = []
        v_services: list[Any] = []
        how: dict[str, Any] = {"timeout": WITHIN_S, "metadata": _CALLER}
        nsmanager_up, proxy_up = await asyncio.gather(
            _take(self._tables.ListStatistics(route_table_pb2.ListStatisticsRequest(), **how), "nsmanager", tables),
            _take(
                self._v_services.ListVServiceStatistics(v_service_pb2.ListVServiceStatisticsRequest(), **how),
                "proxy",
                v_services,
            ),
        )
        up = {"nsmanager": nsmanager_up, "proxy": proxy_up}
        return Scrape(tables, v_services, up, time.monotonic() - begun)


async def _take(answers: AsyncIterable[Any], service: str, told: list[Any]) -> bool:
    """Whether the service told all."""
    try:
        async for each in answers:
            told.append(each)  # noqa: PERF401 - what came before a failure stays
    except aio.AioRpcError as failure:
        _log.info("%s does not tell what it counts: %s", service, rpc.error_of(failure).message)
        return False
    return True
