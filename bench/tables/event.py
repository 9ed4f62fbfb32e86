"""How soon a subscriber hears of what happens in the kernel of a route table, while nothing else does and beside a storm.

Called by `bench.tables`. Routes are changed in one table after the other; in the storm's rounds one more table has 50,000 changes
a second, which must not delay what the others tell.
"""

import asyncio
import contextlib
import itertools
import socket
import sys
import time
from collections.abc import AsyncIterable, AsyncIterator

from bench import client, process, route
from bench.row import Goal, Row, Series, p99
from bench.tables.place import Place
from crossns import proc, rpc
from crossns.v1 import events_pb2, events_pb2_grpc

_ROUNDS, _CHANGES = 5, 100
_RATE, _STORM_S, _SETTLED_S = 50_000, 3.0, 0.5
_STRONG_ENOUGH = 0.95
_PATIENCE_S = 10.0
_PAUSE_S = 0.002


class _Subscriber:
    """Hears all events of routes, of every table."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[float]] = {}

    def expect(self, destination: str) -> asyncio.Future[float]:
        """When the next event of that route comes, by the monotonic clock."""
        self._waiting[destination] = heard = asyncio.get_running_loop().create_future()
        return heard

    async def listen(self, events: AsyncIterable[events_pb2.Event]) -> None:
        async for event in events:
            heard = self._waiting.pop(event.route.destination, None)
            if heard is not None:
                heard.set_result(time.monotonic())


async def events(place: Place) -> list[Row]:
    stormed, *others = place.tables
    quiet, beside, cpu, rates = [], [], [], []
    numbers = itertools.count(_CHANGES * 10)
    async with _subscribed(place) as subscriber:
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(route.opened(place.device.layout.netns / table)) for table in others]
            await _batch_ms(subscriber, sockets, numbers)
            for _ in range(_ROUNDS):
                quiet.append(p99(await _batch_ms(subscriber, sockets, numbers)))
                storm = asyncio.create_task(_storm(place, stormed))
                await asyncio.sleep(_SETTLED_S)
                beside.append(p99(await _batch_ms(subscriber, sockets, numbers)))
                rate, share = await storm
                rates.append(rate)
                cpu.append(share)
    unit, at_rest = f"ms, p99 of {_CHANGES}", Series("nothing else happens", tuple(quiet))
    in_storm = Series("beside the storm", tuple(beside))
    return [
        Row("tables.event_p99", unit, at_rest, goal=10),
        Row("tables.event_storm", unit, in_storm, at_rest, goal=Goal(2, "ratio")),
        Row("tables.storm_agent_cpu", "% of a core", Series("the stormed agent", tuple(cpu)), goal=50),
        Row("tables.storm_rate", "changes/s", Series("made", tuple(rates)), goal=Goal(_STRONG_ENOUGH * _RATE, sense="at least")),
    ]


@contextlib.asynccontextmanager
async def _subscribed(place: Place) -> AsyncIterator[_Subscriber]:
    """Misses nothing from the first moment on."""
    subscriber = _Subscriber()
    with rpc.translated():
        call = events_pb2_grpc.EventsStub(place.gateway).Watch(events_pb2.WatchRequest(kinds=[events_pb2.EVENT_KIND_ROUTE]))
        await call.initial_metadata()
        listening = asyncio.create_task(subscriber.listen(call))
        try:
            yield subscriber
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            call.cancel()


async def _batch_ms(subscriber: _Subscriber, sockets: list[socket.socket], numbers: "itertools.count[int]") -> list[float]:
    """From each change until it was heard of: half of them put a route, half remove it."""
    took_ms = []
    for number, kernel in zip(itertools.islice(numbers, _CHANGES // 2), itertools.cycle(sockets), strict=False):
        for is_new in (True, False):
            heard = subscriber.expect(f"{route.address(number)}/32")
            begun = time.monotonic()
            route.change(kernel, number, is_new=is_new)
            took_ms.append(round((await asyncio.wait_for(heard, _PATIENCE_S) - begun) * 1e3, 3))
            await asyncio.sleep(_PAUSE_S)
    return took_ms


async def _storm(place: Place, table: str) -> tuple[float, float]:
    """The rate that it reached, and the share of a core in percent that the table's agent took."""
    agent = next(each.pid for each in process.by_kind()["agent"] if each.name == f"agent {table}")
    spent_s = process.cpu_s(agent)
    inside = ["nsenter", f"--net={place.device.layout.netns / table}", "--"]
    program = [sys.executable, "-P", "-m", "bench.route", str(_RATE), str(_STORM_S)]
    done = await proc.run([*inside, *program], timeout_s=client.DEADLINE_S)
    share = 100 * (process.cpu_s(agent) - spent_s) / _STORM_S
    return round(float(done.check().stdout)), round(share, 2)
