"""Statistics of route tables: asked of their agents when somebody wants them, never stored.

Called by RouteTables. The agents are asked all at once and none is waited for longer than the others may wait: one that hangs is
told as absent.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from typing import Any, Protocol

from crossns import counter, errors, names
from crossns.v1 import statistics_pb2
from services.nsmanager import plan

# An agent answers within milliseconds; one that was just forked, or is dumping a large table, is given its time.
PATIENCE_S = 2.0
# Of all tables at once: a scrape of 200 tables takes less than a second, also while one of them hangs.
ALL_PATIENCE_S = 0.5
INTERVAL_MIN_S, INTERVAL_MAX_S, INTERVAL_S = 0.1, 3600.0, 1.0


class Source(Protocol):
    async def count(self, table: str) -> counter.KernelCounters:
        """By the table's id; AgentUnavailable where its agent does not answer."""

    async def agent_restarts(self) -> Mapping[str, int]:
        """By id, of the tables that there are; AgentUnavailable where the launcher does not answer."""


class Statistics:
    """`tables`: the names of the route tables that are wanted."""

    def __init__(self, source: Source, tables: Callable[[], Iterable[str]]) -> None:
        self._source = source
        self._tables = tables

    async def read(self, name: str, patience_s: float = PATIENCE_S) -> statistics_pb2.RouteTableStatistics:
        try:
            async with asyncio.timeout(patience_s):
                return plan.statistics(name, await self._source.count(names.resource_id(name)))
        except TimeoutError as error:
            message = (
                f"the agent of {name} does not answer within {patience_s:g} s: try again, `crossns status` shows its process"
            )
            raise errors.AgentUnavailable("AGENT_UNAVAILABLE", message, resource=name) from error

    async def watch(self, name: str, interval_s: float) -> AsyncGenerator[statistics_pb2.RouteTableStatistics, None]:
        """Now and at every interval from now on. Whoever reads slowly is told less often, never the same twice."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            yield await self.read(name)
            due = max(due + interval_s, loop.time())
            await asyncio.sleep(due - loop.time())

    async def read_all(self) -> list[statistics_pb2.TableStatistics]:
        """By name."""
        tables = sorted(self._tables())
        counting = asyncio.gather(*(self._read_or_not(name) for name in tables))
        restarts, counted = await asyncio.gather(self._restarts(), counting)
        return [
            statistics_pb2.TableStatistics(
                name=name, statistics=statistics, agent_restarts_total=restarts.get(names.resource_id(name))
            )
            for name, statistics in zip(tables, counted, strict=True)
        ]

    async def _read_or_not(self, name: str) -> statistics_pb2.RouteTableStatistics | None:
        try:
            return await self.read(name, ALL_PATIENCE_S)
        except errors.TemporaryError:
            return None

    async def _restarts(self) -> Mapping[str, int]:
        try:
            async with asyncio.timeout(ALL_PATIENCE_S):
                return await self._source.agent_restarts()
        except (TimeoutError, errors.TemporaryError):
            return {}


def interval(request: Any) -> float:
    """Seconds, as a WatchStatisticsRequest says; InvalidSpec where they are out of bounds."""
    if not request.HasField("interval"):
        return INTERVAL_S
    interval_s = float(request.interval.seconds + request.interval.nanos / 1e9)
    if not INTERVAL_MIN_S <= interval_s <= INTERVAL_MAX_S:
        message = (
            f"{interval_s:g}s is out of bounds: give {INTERVAL_MIN_S:g}s to {INTERVAL_MAX_S:g}s, or none for {INTERVAL_S:g}s"
        )
        raise errors.InvalidSpec("interval", message)
    return interval_s
