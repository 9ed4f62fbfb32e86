"""The vServices' rows: traffic through the suite's HAProxy against one configured by hand, and how soon changes take effect.

Called by `bench.__main__` inside the sandbox, where the suite is up. What a change takes is seen by a client on the network, who
asks all the time: nobody's word is taken for it.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from rich.console import Console

from bench import crossing, process, tool, watch
from bench.crossing import AS_IT_COMES, BY_HAND, HTTP_PORT, STREAM_PORT, VIP, Crossing
from bench.row import Goal, Row, Series, alternate, p99
from crossns import rpc
from crossns.cli import document, kinds
from crossns.layout import Layout
from crossns.testing.device import Device, wait_until
from crossns.v1 import config_pb2, v_service_pb2, v_service_pb2_grpc

# Short runs in turn: a noisy moment of the machine costs each contestant a run or two, and medians do not care.
ROUNDS = 14
# A sample is the time within which 99 of these had their effect.
CHANGES = 100
CHANGE_BATCHES = 5
# Beside many vServices each takes longer.
CHANGES_AT_500 = 20
STANDING = 500
ADDITIONS = 10
MEMORY_SAMPLES = 5
_MEMORY_STEP_S = 0.3
# Whom the memory of a vService is asked of; HAProxy's is the row itself.
_KINDS = ("haproxy", "proxy", "nsmanager", "gateway", "etcd")
_DEADLINE_S = 20.0
_KIND = kinds.BY_COLLECTION["vServices"]
_HTTP = {name: f"{address}:{crossing.BACKEND_PORT}" for name, address in crossing.MEMBERS.items()}
_AT_LEAST_EQUAL, _AT_MOST_EQUAL = Goal(0.97, "ratio", "at least"), Goal(1.03, "ratio")
_OURS, _BY_HAND, _AS_IT_COMES = "vService", "HAProxy by hand, same tuning", "HAProxy by hand, as it comes"


async def measure(progress: Console) -> list[Row]:
    """All rows, in the order of the table."""
    layout = Layout()
    rows: list[Row] = []
    async with rpc.channel(f"unix:{layout.gateway_socket}") as gateway:
        device = Device(layout, gateway)
        async with crossing.built(device) as place:
            for measurement in (_traffic, _member_change, _at_500):
                progress.print(f"vservice: {measurement.__name__.lstrip('_')} ...")
                rows += await measurement(place)
                await _clear(device)
    return rows


async def _clear(device: Device) -> None:
    """Delete all vServices; tables and interfaces stay."""
    gone = [each.name async for each in device.client.list(_KIND)]
    await device.delete(*gone)


async def _traffic(place: Crossing) -> list[Row]:
    web = crossing.v_service("bench-http", "HTTP", (VIP, HTTP_PORT), {"a": _HTTP["a"]})
    stream = crossing.v_service("bench-stream", "TCP", (VIP, STREAM_PORT), {"a": f"{crossing.MEMBERS['a']}:{STREAM_PORT}"})
    await place.device.apply(web, stream)
    await crossing.wait_until_listens(place.client, f"{VIP}:{HTTP_PORT}")
    async with crossing.by_hand(place):
        return [*await _kept(place), await _new(place), *await _streams(place)]


async def _kept(place: Crossing) -> list[Row]:
    seen: dict[int, list[float]] = {0: [], BY_HAND: []}

    def contestant(offset: int) -> Callable[[], Awaitable[float]]:
        async def run() -> float:
            told = await tool.http(place.client, f"{VIP}:{HTTP_PORT + offset}", is_kept=True)
            seen[offset].append(told.p99_ms)
            return told.rate

        return run

    rates = await alternate(ROUNDS, (_OURS, contestant(0)), (_BY_HAND, contestant(BY_HAND)))
    # Of the same runs, the one that warms up left out here too.
    ours, by_hand = (Series(rate.name, tuple(seen[offset][1:])) for rate, offset in zip(rates, seen, strict=True))
    return [
        Row("vservice.http_rps", "requests/s", rates[0], rates[1], goal=_AT_LEAST_EQUAL),
        Row("vservice.p99", "ms", ours, by_hand, goal=_AT_MOST_EQUAL),
    ]


async def _new(place: Crossing) -> Row:
    def contestant(offset: int) -> Callable[[], Awaitable[float]]:
        async def run() -> float:
            return (await tool.http(place.client, f"{VIP}:{HTTP_PORT + offset}", is_kept=False)).rate

        return run

    ours, by_hand = await alternate(ROUNDS, (_OURS, contestant(0)), (_BY_HAND, contestant(BY_HAND)))
    return Row("vservice.new_conn", "connections/s", ours, by_hand, goal=_AT_LEAST_EQUAL)


async def _streams(place: Crossing) -> list[Row]:
    def contestant(offset: int) -> Callable[[], Awaitable[float]]:
        return lambda: tool.stream(place.client, f"{VIP}:{STREAM_PORT + offset}")

    contestants = ((_OURS, contestant(0)), (_BY_HAND, contestant(BY_HAND)), (_AS_IT_COMES, contestant(AS_IT_COMES)))
    ours, by_hand, as_it_comes = await alternate(ROUNDS, *contestants)
    return [
        Row("vservice.bulk", "Gbit/s", ours, by_hand, goal=_AT_LEAST_EQUAL),
        Row("vservice.bulk_stock", "Gbit/s", ours, as_it_comes, goal=Goal(1.3, "ratio", "at least")),
    ]


class _Watcher:
    """Reads what `bench.watch` tells in the client's host."""

    def __init__(self, output: asyncio.StreamReader) -> None:
        self._output = output

    async def until(self, *names: str) -> float:
        """When one of `names` was next seen to answer, in seconds of the monotonic clock."""
        async with asyncio.timeout(_DEADLINE_S):
            while True:
                at_ns, name = (await self._output.readline()).decode().split()
                if name in names:
                    return int(at_ns) / 1e9


@contextlib.asynccontextmanager
async def _watching(place: Crossing, target: str) -> AsyncIterator[_Watcher]:
    running = await place.client.start(watch.command(target))
    try:
        assert running.stdout is not None  # noqa: S101 - a pipe is what `start` makes
        watcher = _Watcher(running.stdout)
        await watcher.until(watch.NOBODY)
        yield watcher
    finally:
        await place.client.stop(running)


async def _member_change(place: Crossing) -> list[Row]:
    seen = await _changes(place, "bench-http", VIP, CHANGES)
    return [Row("vservice.member_change", f"ms, p99 of {CHANGES}", seen, goal=50)]


async def _changes(place: Crossing, identifier: str, vip: str, count: int) -> Series:
    """The first of two members is drained and enabled in turn; all goes to the first as long as it may."""
    text = crossing.v_service(identifier, "HTTP", (vip, HTTP_PORT), _HTTP, algorithm="FIRST")
    await place.device.apply(text)
    async with _watching(place, f"{vip}:{HTTP_PORT}") as watcher:
        await watcher.until("a")
        batches = [
            [await _change_ms(place.device, text, watcher, is_out) for is_out in (True, False) * (count // 2)]
            for _ in range(CHANGE_BATCHES)
        ]
    return Series("seen by a client", tuple(round(p99(batch), 3) for batch in batches))


async def _change_ms(device: Device, text: str, watcher: _Watcher, is_out: bool) -> float:
    """From the answer to UpdateVService until the client is served by another member; the effect may be there first.

    The change before is done with by then: what its configuration file takes to be checked is not this one's."""
    service = _parse(text)
    if is_out:
        service.spec.pools[0].members[0].state = v_service_pb2.MEMBER_STATE_DRAIN
    request = v_service_pb2.UpdateVServiceRequest(v_service=service)
    client = device.client
    stored = await client.call(v_service_pb2_grpc.VServicesStub(client.channel).UpdateVService, request)
    returned_at = time.monotonic()
    seen_at = await watcher.until("b" if is_out else "a")
    await device.wait([config_pb2.WaitTarget(name=stored.name, generation=stored.generation)])
    return max(0.0, (seen_at - returned_at) * 1e3)


def _parse(text: str) -> v_service_pb2.VService:
    (service,) = document.parse(text, "bench")
    assert isinstance(service, v_service_pb2.VService)  # noqa: S101 - so it was written
    return service


async def _at_500(place: Crossing) -> list[Row]:
    """One vService to begin with, so that HAProxy is there, then many."""
    device = place.device
    await device.apply(_numbered(0))
    before = [await _memory_kb() for _ in range(MEMORY_SAMPLES)]
    await device.apply(*(_numbered(number) for number in range(1, STANDING)))
    additions = []
    for number in range(STANDING, STANDING + ADDITIONS):
        additions.append(await _add_ms(place, number))
        await device.delete(f"vServices/bench-{number}")
    # A worker that HAProxy replaced is still ending.
    await wait_until(lambda: len(device.pids("haproxy")) == 2)
    after = [await _memory_kb() for _ in range(MEMORY_SAMPLES)]
    changes = await _changes(place, "bench-0", _vip(0), CHANGES_AT_500)
    return [
        Row("vservice.add_at_500", "ms", Series("CreateVService to an answer at its VIP", tuple(additions)), goal=300),
        Row("vservice.member_change_at_500", f"ms, worst of {CHANGES_AT_500}", changes),
        *(_per_service(kind, before, after) for kind in _KINDS),
    ]


def _per_service(kind: str, before: Sequence[dict[str, float]], after: Sequence[dict[str, float]]) -> Row:
    grown = tuple(round((then[kind] - first[kind]) / (STANDING - 1), 2) for first, then in zip(before, after, strict=True))
    slug = "vservice.memory_per_vservice" + ("" if kind == "haproxy" else f".{kind}")
    return Row(slug, "kB", Series(f"PSS of {kind}", grown))


def _numbered(number: int) -> str:
    return crossing.v_service(f"bench-{number}", "HTTP", (_vip(number), HTTP_PORT), _HTTP)


def _vip(number: int) -> str:
    """Of the range for benchmarks (RFC 2544); on no link's network, as VIPs that are routed to a device are."""
    return f"198.18.{number // 250}.{number % 250 + 1}"


async def _add_ms(place: Crossing, number: int) -> float:
    """From the call to the first answer."""
    async with _watching(place, f"{_vip(number)}:{HTTP_PORT}") as watcher:
        begun = time.monotonic()
        await place.device.client.create(_KIND, f"bench-{number}", _parse(_numbered(number)))
        return round((await watcher.until(*_HTTP) - begun) * 1e3, 3)


async def _memory_kb() -> dict[str, float]:
    await asyncio.sleep(_MEMORY_STEP_S)
    return {kind: sum(each.pss_bytes or 0 for each in running) / 1e3 for kind, running in process.by_kind().items()}
