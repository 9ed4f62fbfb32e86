"""The whole suite under fault: whatever process dies, freezes or comes back, traffic goes on and nothing is done twice."""

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crossns import errors, proc, settings
from crossns.etcd.client import EtcdStore
from crossns.supervisor import jail
from crossns.testing.device import Device, doc, wait_until
from crossns.testing.lab import Host
from tests.fault.crossing import BOTH, check, client, loading, ready

__all__ = ["client"]

pytestmark = [pytest.mark.fault, pytest.mark.alone, pytest.mark.asyncio(loop_scope="module")]

Count = Callable[[int, int], int]


def operations_since(device: Device, mark: int) -> list[str]:
    """Lines that say that a loop changed something."""
    return [line for _, line in device.log[mark:] if '"operations"' in line]


@pytest.mark.parametrize("process", ["gateway", "nsmanager", "proxy", "etcd", "agent c", "agent s", "agent t", "launcher"])
async def test_killed_process_loses_no_request_and_plans_nothing_when_it_is_back(
    device: Device, client: Host, process: str, count: Count
) -> None:
    await ready(device)
    mark = len(device.log)
    before = await device.kernel_writes()
    async with loading(client, count(6, 20), *BOTH) as seen:
        pid = await device.kill(process)
        await wait_until(lambda: device.pids(process) and device.pids(process)[0] != pid)
    check(seen)
    await ready(device)
    if process.startswith("agent "):
        # What it was told of the vServices in its table died with it, and nothing else.
        await wait_until(lambda: operations_since(device, mark))
        (told,) = operations_since(device, mark)
        assert "PutStandings" in told
        assert f'"routeTables/{process.removeprefix("agent ")}"' in told
    else:
        assert operations_since(device, mark) == []
    # The launcher counts from its own start.
    if process != "launcher":
        assert await device.kernel_writes() == before


async def test_killed_zygote_is_replaced_when_the_next_agent_is_wanted(device: Device) -> None:
    await device.kill("zygote")
    await device.apply(doc("routeTables/late"))


async def test_killed_launcher_answers_again_within_a_second(device: Device) -> None:
    before = await device.kernel_writes()

    async def answers() -> bool:
        with contextlib.suppress(errors.AgentUnavailable):
            return await device.kernel_writes() != {}
        return False

    os.kill(device.pid("launcher"), signal.SIGKILL)
    await asyncio.sleep(0.05)
    await wait_until(answers, timeout_s=1)
    assert set(before) == {"launcher"}


@pytest.mark.parametrize("which", ["worker", "master", "master and worker"])
async def test_killed_engine_serves_again_within_a_second(device: Device, client: Host, which: str) -> None:
    await ready(device)
    master, worker = await engine_processes(device)
    async with loading(client, 3, *BOTH) as seen:
        for pid in {"worker": [worker], "master": [master]}.get(which, [master, worker]):
            os.kill(pid, signal.SIGKILL)
        # Gone by itself, too.
        await wait_until(lambda: not {master, worker} & set(device.pids("haproxy")))
    for each in seen:
        assert each["longest_gap_ms"] <= 1000, each
        assert each["kept"]["failed"] > 0, "the kill was not felt: nothing was proven"


async def engine_processes(device: Device) -> tuple[int, int]:
    """HAProxy's master and its only worker, once those that a reload left have ended."""
    await wait_until(lambda: len(device.pids("haproxy")) == 2)
    one, other = device.pids("haproxy")
    is_child = f"\nPPid:\t{one}\n" in Path(f"/proc/{other}/status").read_text(encoding="ascii")
    return (one, other) if is_child else (other, one)


async def test_frozen_nsmanager_that_wakes_up_changes_nothing(device: Device) -> None:
    """SIGSTOP the leader, a second one takes over and works, SIGCONT the first: it does not one operation, and ends."""
    await device.apply(doc("routeTables/a"), doc("interfaces/x", routeTable="routeTables/a", bridge={}))
    stale = device.pid("nsmanager")
    os.kill(stale, signal.SIGSTOP)
    environ = {**os.environ, "PYTHONPATH": str(jail.CODE)}
    second = await proc.start([sys.executable, "-m", "services.nsmanager"], environ=environ, output=None)
    try:
        # What the stale one will find undone when it wakes: it would delete the bridge that the second one makes anew.
        await wait_until(device.serves, timeout_s=40)
        await device.apply(doc("interfaces/y", routeTable="routeTables/a", bridge={}))
        await device.delete("interfaces/x")
        before = await device.kernel_writes("a", "default")
        mark = len(device.log)
        os.kill(stale, signal.SIGCONT)
        await wait_until(lambda: any("another process leads" in line or "ended" in line for _, line in device.log[mark:]))
        assert await device.kernel_writes("a", "default") == before
        assert operations_since(device, mark) == []
    finally:
        proc.kill(second)
        await second.wait()
    await wait_until(device.serves, timeout_s=40)


async def test_deletion_interrupted_anywhere_leaves_nothing_over(device: Device, count: Count, dice: random.Random) -> None:
    """kill -9 of nsmanager or launcher at any moment of a deletion: when they are back everything goes."""
    for _ in range(count(6, 60)):
        await device.apply(
            doc("routeTables/a"),
            doc("interfaces/x", routeTable="routeTables/a", bridge={}, addresses=["10.0.0.1/24"]),
            doc("routeTables/a/routes/r", destination="0.0.0.0/0", gateways=[{"address": "10.0.0.9"}]),
        )
        victim = dice.choice(["nsmanager", "nsmanager", "launcher", "agent a"])
        await device.delete("routeTables/a/routes/r", "interfaces/x", wait=False)
        await device.delete("routeTables/a", wait=False)
        await asyncio.sleep(dice.uniform(0, 0.06))
        with contextlib.suppress(LookupError, ProcessLookupError):
            os.kill(device.pid(victim), signal.SIGKILL)
        await wait_until(lambda: _is_nothing_left(device))
        await wait_until(device.serves)


async def _is_nothing_left(device: Device) -> bool:
    backend = await EtcdStore.connect(settings.Etcd((f"unix:{device.layout.etcd_socket}",)))
    try:
        keys = [entry.key for entry in (await backend.list("/crossns/")).entries]
    finally:
        await backend.close()
    left = [key for key in keys if "routeTables/a" in key or "interfaces/x" in key or "claims/link/a" in key]
    incarnations = [path.name for path in device.layout.incarnations.iterdir() if not path.name.startswith("default.")]
    return not left and not incarnations and not (device.layout.netns / "a").exists() and not device.pids("agent a")


async def test_cold_boot_brings_every_table_back_with_its_index(device: Device, count: Count) -> None:
    """State kept, every namespace and every process gone, as after a power cut: only the supervisor is there again."""
    number = count(20, 50)
    await device.apply(*(doc(f"routeTables/t{each}") for each in range(number)))
    before: dict[str, Any] = {f"t{each}": (await device.client.get(f"routeTables/t{each}")).status for each in range(number)}
    agents = [device.pid(f"agent t{each}") for each in range(number)]
    mounts = [*device.layout.incarnations.glob("t*.*"), *device.layout.netns.glob("t*")]
    (await proc.run(["umount", *map(str, mounts)])).check()
    for mount in mounts:
        mount.unlink()
    services = [device.pid(name) for name in ("etcd", "nsmanager", "proxy", "gateway", "launcher")]
    for pid in [*agents, *services]:
        # An agent whose namespace is gone may have been sent away already.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    await wait_until(device.serves, timeout_s=60)

    async def is_back(table: str) -> bool:
        status: Any = (await device.client.get(f"routeTables/{table}")).status
        return bool(status.state == before[table].state and status.netns_cookie != before[table].netns_cookie)

    for table, old in before.items():
        await wait_until(lambda table=table: is_back(table))
        assert (await device.client.get(f"routeTables/{table}")).status.index == old.index  # type: ignore[union-attr]
