"""What one tenant's flood costs another: the p99 of his requests while it is quiet, and while the other's table is flooded.

Called by `bench.tables`. Two tables with the same addresses, a vService with a member behind in each; the flooded one has a
budget. The flood is bounded in rate and time, and comes from a host of its own tenant.
"""

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import client
from bench.crossing import wait_until_listens
from bench.row import Goal, Row, Series
from bench.tables.place import Place
from crossns.testing.device import Device, doc
from crossns.testing.lab import Cable, Host, Lab
from crossns.v1 import route_table_pb2, route_table_pb2_grpc

_FLOODED, _OTHER = "bench-flooded", "bench-other"
_VIP, _MEMBER, _GATEWAY = "203.0.113.10", "10.0.0.6", "10.0.0.1"
_PORT, _BEHIND = 80, 8080
_BUDGET = {"newSessionsPerSecond": 200, "maxSessions": 1000}
_ROUNDS = 6
_RATE, _FLOOD_S = 10_000, 4.0
# The other tenant's requests: that many a second on a few connections, begun when the flood is under way.
_REQUESTS_RATE, _CONNECTIONS, _LOOK_S, _SETTLED_S = 200, 4, 2.5, 0.7
# Hundreds of times what the budget takes, or it was no flood.
_STRONG_ENOUGH = 0.8


async def flood(place: Place) -> list[Row]:
    async with Lab() as lab:
        with TemporaryDirectory() as directory:
            hosts = [await _tenant(place.device, lab, table, Path(directory)) for table in (_FLOODED, _OTHER)]
            try:
                return await _measured(place, *hosts)
            finally:
                await _remove(place.device)


async def _measured(place: Place, flooded: Host, other: Host) -> list[Row]:
    quiet, beside, rates = [], [], []
    await _p99_ms(other)
    for _ in range(_ROUNDS):
        quiet.append(await _p99_ms(other))
        storm = asyncio.create_task(_storm(flooded))
        await asyncio.sleep(_SETTLED_S)
        beside.append(await _p99_ms(other))
        rates.append(await storm)
    share = await _dropped(place) / (sum(rates) * _FLOOD_S)
    at_rest, in_flood = Series("while it is quiet", tuple(quiet)), Series("beside the flood", tuple(beside))
    return [
        Row("tables.flood", "ms, p99", in_flood, at_rest, goal=Goal(2, "ratio")),
        Row("tables.flood_rate", "tries/s", Series("made", tuple(rates)), goal=Goal(_STRONG_ENOUGH * _RATE, sense="at least")),
        Row("tables.flood_dropped", "% of the tries", Series("dropped", (round(100 * share, 2),) * _ROUNDS)),
    ]


async def _tenant(device: Device, lab: Lab, table: str, directory: Path) -> Host:
    """A table with its host, which is client and member, and a vService between them."""
    host = await lab.host(table, Cable(f"c-{table}"), [f"{_MEMBER}/24"], [_GATEWAY])
    config = directory / f"{table}.cfg"
    answer = f'http-request return status 200 content-type text/plain string "{table} {"x" * 1000}"'
    head = "global\n    maxconn 1000\ndefaults\n    mode http\n    timeout client 1h\n    timeout http-keep-alive 1h\n"
    config.write_text(f"{head}frontend f\n    bind {_MEMBER}:{_BEHIND}\n    {answer}\n", encoding="utf-8")
    await host.start(["haproxy", "-db", "-q", "-f", str(config)], output=None)
    await wait_until_listens(host, f"{_MEMBER}:{_BEHIND}")
    await device.apply(*_documents(table))
    await wait_until_listens(host, f"{_VIP}:{_PORT}")
    return host


def _documents(table: str) -> Sequence[str]:
    name = f"routeTables/{table}"
    budget = {"budget": _BUDGET} if table == _FLOODED else {}
    link = doc(f"interfaces/{table}", routeTable=name, physical={"linkName": f"c-{table}"}, addresses=[f"{_GATEWAY}/24"])
    frontend = {"name": "f", "routeTable": name, "address": _VIP, "port": _PORT}
    member = {"name": "m", "routeTable": name, "address": _MEMBER, "port": _BEHIND}
    pools = [{"name": "p", "members": [member]}]
    return doc(name, **budget), link, doc(f"vServices/{table}", protocol="TCP", frontends=[frontend], pools=pools)


async def _remove(device: Device) -> None:
    await device.delete(*(f"vServices/{table}" for table in (_FLOODED, _OTHER)))
    await device.delete(*(f"routeTables/{table}" for table in (_FLOODED, _OTHER)), evacuate=True)


async def _p99_ms(host: Host) -> float:
    load = ["load", "--target", f"{_VIP}:{_PORT}", "--connections", str(_CONNECTIONS), "--rate", str(_REQUESTS_RATE)]
    argv = [sys.executable, "-P", "-m", "crossns.testing.traffic", *load, "--seconds", str(_LOOK_S)]
    kept = json.loads((await host.run(argv, timeout_s=client.DEADLINE_S)).check().stdout)["kept"]
    if kept["failed"]:
        raise RuntimeError(f"{kept['failed']} requests of the other tenant failed: {kept['errors']}")
    return float(kept["latency_ms"]["p99"])


async def _storm(host: Host) -> float:
    argv = [sys.executable, "-P", "-m", "bench.syn", _VIP, str(_PORT), str(_RATE), str(_FLOOD_S)]
    return round(float((await host.run(argv, timeout_s=client.DEADLINE_S)).check().stdout))


async def _dropped(place: Place) -> int:
    request = route_table_pb2.GetStatisticsRequest(name=f"routeTables/{_FLOODED}")
    stub = route_table_pb2_grpc.RouteTablesStub(place.gateway)
    told = (await stub.GetStatistics(request, timeout=client.DEADLINE_S)).budget
    return int(told.too_fast_total + told.too_many_total)
