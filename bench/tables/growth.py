"""From no table to 500 and back: create, kill nsmanager, delete.

Called by `bench.tables`.
"""

import asyncio
import os
import signal
import time

from bench import client, process
from bench.row import Goal, Row, Series
from bench.tables.place import ALL, LABEL, STANDING, Place
from crossns import errors
from crossns.testing.device import wait_until

# Of the first and of the last creations, what they are compared by.
_ENDS = 50
_RESTARTS = 5
_DELETED_AT_ONCE = 100
# Who spends less than this share of a core for so long is quiet.
_QUIET_S, _QUIET_SHARE = 0.25, 0.04
_STEP_S = 0.05
_RESTART_MAX_S = 60.0


async def first(place: Place) -> list[Row]:
    """Up to STANDING tables; their rows come with `rest`."""
    await _grow(place, STANDING)
    return []


async def rest(place: Place) -> list[Row]:
    await _grow(place, ALL)
    first_ones = Series(f"the first {_ENDS}", tuple(place.created_ms[:_ENDS]))
    last_ones = Series(f"the last {_ENDS} of {ALL}", tuple(place.created_ms[-_ENDS:]))
    all_of_them = Series("CreateRouteTable to READY", tuple(place.created_ms))
    return [
        Row("tables.create_ready_p50", f"ms, last {_ENDS} of {ALL}", last_ones, goal=20),
        Row("tables.create_ready_p99", f"ms, all of {ALL}", all_of_them, goal=Goal(50, "p99")),
        Row("tables.create_slope", "ms", last_ones, first_ones, goal=Goal(1.5, "ratio")),
    ]


async def _grow(place: Place, wanted: int) -> None:
    while len(place.tables) < wanted:
        table = f"bench-{len(place.tables)}"
        place.created_ms.append(round(await client.timed_ms(client.create(place.gateway, table, LABEL)), 3))
        place.tables.append(table)


async def restart(place: Place) -> list[Row]:
    took_s, writes = [], []
    for _ in range(_RESTARTS):
        before = await _writes(place)
        took_s.append(round(await _restart_s(place), 3))
        writes.append(float(await _writes(place) - before))
    return [
        Row(f"tables.restart_{ALL}", "s, until quiet", Series("nsmanager killed", tuple(took_s)), goal=5),
        Row("tables.restart_writes", "changes of the kernel", Series("nsmanager killed", tuple(writes)), goal=Goal(0, "worst")),
    ]


async def _writes(place: Place) -> int:
    return sum((await place.device.kernel_writes("default", *place.tables)).values())


async def _restart_s(place: Place) -> float:
    """Until the next nsmanager answers and has nothing more to do, nor has anybody whom it asks."""
    killed = process.service_pid("nsmanager")
    if killed is None:
        raise errors.FailedPrecondition("FAILED_PRECONDITION", "there is no nsmanager to be killed")
    asked = [each.pid for kind, running in process.by_kind().items() if kind in {"launcher", "agent"} for each in running]
    begun = time.monotonic()
    os.kill(killed, signal.SIGKILL)
    await wait_until(lambda: process.service_pid("nsmanager") not in {None, killed}, _RESTART_MAX_S)
    await wait_until(place.device.serves, _RESTART_MAX_S)
    return await _until_quiet([process.service_pid("nsmanager") or 0, *asked]) - begun


async def _until_quiet(pids: list[int]) -> float:
    """When the quiet began."""
    since, spent_s = time.monotonic(), _cpu_s(pids)
    async with asyncio.timeout(_RESTART_MAX_S):
        while time.monotonic() - since < _QUIET_S:
            await asyncio.sleep(_STEP_S)
            if _cpu_s(pids) - spent_s > _QUIET_SHARE * _QUIET_S:
                since, spent_s = time.monotonic(), _cpu_s(pids)
    return since


def _cpu_s(pids: list[int]) -> float:
    return sum(process.cpu_s(pid) for pid in pids)


async def delete(place: Place) -> list[Row]:
    """All, a hundred at a time."""
    took_s = []
    while place.tables:
        gone, place.tables = place.tables[:_DELETED_AT_ONCE], place.tables[_DELETED_AT_ONCE:]
        took_s.append(round(await client.timed_ms(client.delete(place.gateway, *gone)) / 1e3, 3))
    unit = f"s, {ALL // _DELETED_AT_ONCE} x {_DELETED_AT_ONCE}"
    return [Row(f"tables.delete_{ALL}", unit, Series("DeleteRouteTable to gone", tuple(took_s)), goal=Goal(5, "sum"))]
