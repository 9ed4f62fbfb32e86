"""The ground floor's rows: how long a table takes, a big file, a call, the command line; what an idle suite costs.

Called by `bench.__main__` inside the sandbox, where the suite is up and nobody else asks it for anything.
"""

import asyncio
import itertools
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from rich.console import Console

from bench import client, process
from bench.row import Row, Series, alternate
from crossns import proc, rpc
from crossns.layout import Layout
from crossns.v1 import (
    route_table_pb2,
    route_table_pb2_grpc,
    v_service_pb2,
    v_service_pb2_grpc,
)

COMMAND = str(Path(__file__).parent.parent / ".venv/bin/crossns")
LABEL = {"bench": "ground"}
# What stands while the idle suite is looked at. `ground.memory.agent` is the mean of its agents.
IDLE_TABLES = 10
IDLE_WINDOW_S = 20.0
_SERVICE = f"unix:{Layout().service_socket('nsmanager')}"
_ids = (f"bench-{number}" for number in itertools.count(1))


async def measure(progress: Console) -> list[Row]:
    """All rows, in the order of the table."""
    measurements = (_create_ready, _apply_50, _gateway_call, _cli_start, _memory_and_idle)
    rows: list[Row] = []
    async with rpc.channel(client.GATEWAY) as gateway:
        for measurement in measurements:
            progress.print(f"ground: {measurement.__name__.lstrip('_')} ...")
            rows += await measurement(gateway)
    return rows


async def _create_ready(gateway: client.Channel) -> list[Row]:
    async def ours() -> float:
        table = next(_ids)
        took_ms = await client.timed_ms(client.create(gateway, table, LABEL))
        await client.delete(gateway, table)
        return took_ms

    async def by_hand(name: str) -> None:
        (await proc.run(["ip", "netns", "add", name])).check()
        (await proc.run(["ip", "-netns", name, "link", "set", "lo", "up"])).check()

    async def theirs() -> float:
        name = next(_ids)
        took_ms = await client.timed_ms(by_hand(name))
        (await proc.run(["ip", "netns", "delete", name])).check()
        return took_ms

    measured, against = await alternate(20, ("CreateRouteTable to READY", ours), ("ip netns add, ip link set lo up", theirs))
    return [Row("ground.create_ready", "ms", measured, against, goal=30)]


def fifty_tables() -> Iterator[dict[str, object]]:
    """The documents of the big file: 50 tables, each with 2 interfaces and 3 routes."""
    for table in range(50):
        spec: dict[str, object]
        name = f"routeTables/bench-{table}"
        yield {"kind": "RouteTable", "name": name, "labels": LABEL, "spec": {}}
        for side in range(2):
            spec = {"routeTable": name, "linkName": f"br{side}", "bridge": {}, "addresses": [f"10.{side}.0.1/24"]}
            yield {"kind": "Interface", "name": f"interfaces/bench-{table}-{side}", "labels": LABEL, "spec": spec}
        for number in range(3):
            hop = {"address": f"10.{number % 2}.0.{number + 2}"}
            spec = {"destination": f"192.168.{number}.0/24", "gateways": [hop]}
            yield {"kind": "Route", "name": f"{name}/routes/r{number}", "labels": LABEL, "spec": spec}


async def _apply_50(gateway: client.Channel) -> list[Row]:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "fifty.yaml"
        file.write_text(yaml.safe_dump_all(fifty_tables()), encoding="utf-8")

        async def ours() -> float:
            took_ms = await client.timed_ms(_run([COMMAND, "apply", "-f", str(file)]))
            await client.delete_all(gateway, LABEL)
            return took_ms

        (measured,) = await alternate(6, ("crossns apply", ours))
    return [Row("ground.apply_50", "ms", measured, goal=5000)]


async def _run(argv: list[str]) -> None:
    (await proc.run(argv, timeout_s=client.DEADLINE_S)).check()


async def _gateway_call(gateway: client.Channel) -> list[Row]:
    identity = rpc.Identity("bench", "admin").metadata
    request = route_table_pb2.GetRouteTableRequest(name="routeTables/default")

    def calls(channel: client.Channel) -> Callable[[], Awaitable[float]]:
        stub = route_table_pb2_grpc.RouteTablesStub(channel)

        async def run() -> float:
            # One after the other, as a person's or a script's calls are.
            with rpc.translated():
                took_ms = [await client.timed_ms(stub.GetRouteTable(request, metadata=identity)) for _ in range(200)]
            return statistics.median(took_ms)

        return run

    async with rpc.channel(_SERVICE) as service:
        measured, against = await alternate(10, ("through the gateway", calls(gateway)), ("the service itself", calls(service)))
    return [Row("ground.gateway_call", "ms", measured, against, goal=3)]


async def _cli_start(_gateway: client.Channel) -> list[Row]:
    measured, against = await alternate(
        10,
        ("crossns get routeTables", lambda: client.timed_ms(_run([COMMAND, "get", "routeTables"]))),
        ("crossns --help", lambda: client.timed_ms(_run([COMMAND, "--help"]))),
    )
    return [Row("ground.cli_start", "ms", measured, against, goal=400)]


@asynccontextmanager
async def _something_there(gateway: client.Channel) -> AsyncIterator[None]:
    """IDLE_TABLES tables with an agent each, and a vService, for whose sake HAProxy runs."""
    tables = [next(_ids) for _ in range(IDLE_TABLES)]
    for table in tables:
        await client.create(gateway, table, LABEL)
    front, back = (f"routeTables/{table}" for table in tables[:2])
    spec = v_service_pb2.VServiceSpec(
        protocol=v_service_pb2.PROTOCOL_TCP,
        frontends=[v_service_pb2.Frontend(name="front", route_table=front, address="192.0.2.1", port=80)],
        pools=[
            v_service_pb2.Pool(
                name="pool", members=[v_service_pb2.Member(name="m", route_table=back, address="192.0.2.2", port=80)]
            )
        ],
    )
    service = v_service_pb2.VService(labels=LABEL, spec=spec)
    request = v_service_pb2.CreateVServiceRequest(v_service_id="bench", v_service=service)
    with rpc.translated():
        await v_service_pb2_grpc.VServicesStub(gateway).CreateVService(request, timeout=client.DEADLINE_S)
    await client.wait(gateway, "vServices/bench")
    yield
    await client.delete_all(gateway, LABEL)


async def _memory_and_idle(gateway: client.Channel) -> list[Row]:
    async with _something_there(gateway):
        memory: dict[str, list[float]] = {}
        idle: list[float] = []
        for _ in range(6):
            begun, spent_s = time.monotonic(), _cpu_s()
            await asyncio.sleep(IDLE_WINDOW_S)
            idle.append(round(100 * (_cpu_s() - spent_s) / (time.monotonic() - begun), 3))
            for kind, running in process.by_kind().items():
                used_mb = sum(each.pss_bytes or 0 for each in running) / 1e6
                memory.setdefault(kind, []).append(round(used_mb / len(running) if kind == "agent" else used_mb, 2))
    rows = [Row(f"ground.memory.{kind}", "MB", Series("PSS", tuple(samples))) for kind, samples in sorted(memory.items())]
    return [*rows, Row("ground.idle_cpu", "% of a core", Series("the whole suite", tuple(idle)))]


def _cpu_s() -> float:
    return sum(process.cpu_s(each.pid) for running in process.by_kind().values() for each in running)
