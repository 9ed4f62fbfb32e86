"""What 200 tables cost while they stand: memory, one scrape, an agent that is killed, time on the processor when nothing happens.

Called by `bench.tables`.
"""

import asyncio
import os
import re
import signal
import time

from bench import process
from bench.client import timed_ms
from bench.row import Goal, Row, Series
from bench.tables.place import METRICS, Place
from crossns import errors, operation
from crossns.agent import Agent
from crossns.v1 import isolation_pb2, route_table_pb2_grpc

_SCRAPES = 6
_UP = re.compile(rb"^crossns_table_up\{[^}]*\} 1\.0$", re.MULTILINE)
_KILLS = 50
_BACK_MAX_S = 10.0
# All tables are tried at once, each in its turn on the processors.
_VERIFY_MAX_S = 300.0
# Together longer than any pause between two looks at everything (60 s and a fifth): each process does one within.
_IDLE_WINDOWS, _IDLE_WINDOW_S = 5, 15.0


async def agent_pss(place: Place) -> list[Row]:
    """Of each agent, the zygote's share of what it has in common with them left out: while it has only looked at its table, and
    behind a trial of all tables."""
    unit = f"MB at {len(place.tables)} tables"
    unused = Series("PSS of agents that have tried nothing yet", _pss_mb())
    request = isolation_pb2.VerifyIsolationRequest()
    async for _ in route_table_pb2_grpc.RouteTablesStub(place.gateway).VerifyIsolation(request, timeout=_VERIFY_MAX_S):
        pass
    used = Series("PSS behind `verify isolation`", _pss_mb())
    return [Row("tables.agent_pss", unit, used, goal=6.5), Row("tables.agent_pss_unused", unit, unused)]


def _pss_mb() -> tuple[float, ...]:
    return tuple(round((agent.pss_bytes or 0) / 1e6, 2) for agent in process.by_kind()["agent"])


async def scrape(place: Place) -> list[Row]:
    took_s, absent = [], []
    for _ in range(_SCRAPES):
        begun = time.monotonic()
        told = await _get()
        took_s.append(round(time.monotonic() - begun, 3))
        absent.append(float(len(place.tables) + 1 - len(_UP.findall(told))))
    return [
        Row(f"tables.scrape_{len(place.tables)}", "s", Series("GET /metrics", tuple(took_s)), goal=1),
        Row("tables.scrape_absent", "tables not told of", Series("GET /metrics", tuple(absent)), goal=0),
    ]


async def _get() -> bytes:
    """One GET of the metrics, all of the answer."""
    host, _, port = METRICS.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(f"GET /metrics HTTP/1.1\r\nHost: {METRICS}\r\n\r\n".encode())
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


async def agent_back(place: Place) -> list[Row]:
    """From SIGKILL until the table's next agent answers."""
    pids = {agent.name.partition(" ")[2]: agent.pid for agent in process.by_kind()["agent"]}
    back_ms = []
    for table in place.tables[:_KILLS]:
        os.kill(pids[table], signal.SIGKILL)
        back_ms.append(round(await timed_ms(_until_back(place, table, pids[table])), 3))
    return [
        Row("tables.agent_back", f"ms, {_KILLS} kills", Series("killed to answering", tuple(back_ms)), goal=Goal(300, "worst"))
    ]


async def _until_back(place: Place, table: str, killed: int) -> None:
    deadline = time.monotonic() + _BACK_MAX_S
    while True:
        try:
            agent = await Agent.connect(place.device.layout.agent_socket(table), "observer", operation.Token(0, 0))
        except errors.AgentUnavailable:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.001)
            continue
        await agent.close()
        if agent.welcome.pid != killed:
            return


async def idle(place: Place) -> list[Row]:
    """Nobody asks for anything; what every process does by itself from time to time is within."""
    shares: dict[str, list[float]] = {"etcd": [], "all": []}
    for _ in range(_IDLE_WINDOWS):
        begun, before = time.monotonic(), _spent_s()
        await asyncio.sleep(_IDLE_WINDOW_S)
        passed_s, after = time.monotonic() - begun, _spent_s()
        etcd_s = after.pop("etcd", 0.0) - before.pop("etcd", 0.0)
        shares["etcd"].append(round(100 * etcd_s / passed_s, 3))
        shares["all"].append(round(100 * (sum(after.values()) - sum(before.values())) / passed_s, 3))
    etcd = Series("etcd", tuple(shares["etcd"]))
    unit = f"% of a core at {len(place.tables)} tables"
    return [
        Row("tables.idle_cpu", unit, Series("the suite but etcd", tuple(shares["all"])), goal=Goal(3, "mean")),
        Row("tables.idle_cpu_etcd", unit, etcd),
    ]


def _spent_s() -> dict[str, float]:
    return {kind: sum(process.cpu_s(each.pid) for each in running) for kind, running in process.by_kind().items()}
