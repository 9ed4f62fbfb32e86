"""The proxy service dies at any moment of any sequence of changes. When it is back, the running HAProxy is what is desired, and
its file as well: a HAProxy that starts with it is as the one that ran.
"""

import asyncio
import contextlib
import csv
import os
import random
import signal
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from crossns.testing.device import Device, wait_until
from crossns.testing.lab import Host
from tests.fault.crossing import S1, S2, SITE, T1, WEB, Member, Service, Spec, client, member, patiently, settled

__all__ = ["client"]

pytestmark = [pytest.mark.fault, pytest.mark.asyncio(loop_scope="module")]

Count = Callable[[int, int], int]
# All of them answer.
MEMBERS = (S1, S2, member("s3", "s", "10.0.0.6", 8081), T1)
SERVICES = (WEB, SITE, Service("more", "TCP", "203.0.113.12"))
ALGORITHMS = ("ROUND_ROBIN", "LEAST_CONNECTIONS", "SOURCE_HASH", "RANDOM", "FIRST")
# Section, table, socket -> weight, enabled, most connections.
Servers = dict[tuple[str, str, str], tuple[int, bool, int]]


def any_member(dice: random.Random, of: Member, *, is_enabled: bool) -> Member:
    state = "ENABLED" if is_enabled else dice.choice(["ENABLED", "DRAIN", "DISABLED"])
    return {**of, "weight": dice.randint(1, 9), "state": state, "maxConnections": dice.choice([0, 0, 100, 200])}


def any_spec(dice: random.Random, service: Service, before: Spec) -> Spec:
    """Mostly members that come, go and change; now and then another structure, and now and then none at all."""
    if before is not None and dice.random() < 0.1:
        return None
    chosen = dice.sample(MEMBERS, dice.randint(1, len(MEMBERS)))
    members = [any_member(dice, each, is_enabled=not number) for number, each in enumerate(chosen)]
    if before is not None and dice.random() < 0.7:
        pool = {**before["pools"][0], "members": members}
        return {**before, "pools": [pool]}
    pool = {"name": "p", "algorithm": dice.choice(ALGORITHMS), "members": members}
    ports = [80, *dice.sample(range(81, 90), dice.randint(0, 2))]
    frontends = [service.frontend(f"f{port}", port) for port in ports]
    return {
        "protocol": service.protocol,
        "frontends": frontends,
        "pools": [pool],
        "timeouts": {"connect": f"{dice.randint(1, 9)}s"},
    }


def reweighted(dice: random.Random, before: Spec) -> Spec:
    """No other structure: HAProxy changes while it runs, and its file without a reload."""
    if before is None:
        return None
    members = [{**each, "weight": dice.randint(10, 99)} for each in before["pools"][0]["members"]]
    return {**before, "pools": [{**before["pools"][0], "members": members}]}


def desired(wanted: Mapping[Service, Spec]) -> Servers:
    """The servers that HAProxy should have for members."""
    return {
        (f"vs.{service.id}.po.p", each["routeTable"].split("/")[1], f"{each['address']}:{each['port']}"): (
            0 if each["state"] == "DRAIN" else each["weight"],
            each["state"] != "DISABLED",
            each["maxConnections"],
        )
        for service, spec in wanted.items()
        if spec is not None
        for each in spec["pools"][0]["members"]
    }


async def ask(device: Device, command: str) -> str:
    """HAProxy's current worker."""
    reader, writer = await asyncio.open_unix_connection(device.layout.haproxy_master)
    try:
        writer.write(f"@1 {command}\n".encode())
        writer.write_eof()
        return (await reader.read()).decode()
    finally:
        writer.close()


async def running(device: Device, expected: Servers) -> dict[str, Any]:
    """What HAProxy runs: listeners and server lines by name. One that is nobody's rests; where it points is of no interest."""
    lines: dict[str, Any] = {}
    for row in csv.DictReader((await ask(device, "show stat -1 12 -1")).removeprefix("# ").splitlines()):
        section, name, socket = row["pxname"], row["svname"], row["addr"]
        if row["type"] == "3":
            lines[f"{section}/{name}/{socket}"] = row["status"]
            continue
        key = section, name.split(".")[1], socket
        server = int(row["uweight"]), not row["status"].startswith("MAINT"), int(row["slim"] or 0)
        is_used = server[1] or key in expected
        lines[f"{section}/{name}"] = (row["sid"], key, server) if is_used else (row["sid"], "rests")
    return lines


def servers_of(lines: Mapping[str, Any]) -> Servers:
    return {line[1]: line[2] for line in lines.values() if isinstance(line, tuple) and len(line) == 3}


@contextlib.contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Meanwhile the process mends nothing."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def crash(device: Device) -> None:
    """HAProxy, all of it; it starts with its file."""
    before = device.pids("haproxy")
    for pid in before:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    async def is_back() -> bool:
        with contextlib.suppress(OSError):
            return not set(before) & set(device.pids("haproxy")) and "pxname" in await ask(device, "show stat")
        return False

    await wait_until(is_back)


# Who dies again and again is started again later and later.
@pytest.mark.timeout(600)
async def test_killed_proxy_leaves_an_engine_that_is_as_desired_and_so_is_its_file(
    device: Device, client: Host, count: Count, dice: random.Random
) -> None:
    await device.delete(WEB.name, SITE.name)
    wanted: dict[Service, Spec] = dict.fromkeys(SERVICES)
    for _ in range(count(3, 20)):
        changes = dice.randint(2, 6)
        killed_after = dice.randrange(changes)
        for number in range(changes):
            service = dice.choice(SERVICES)
            is_last = number == changes - 1
            wanted[service] = reweighted(dice, wanted[service]) if is_last else any_spec(dice, service, wanted[service])
            await patiently(device, service, wanted[service])
            if number == killed_after:
                await asyncio.sleep(dice.uniform(0, 0.2))
                await device.kill("proxy")
        await settled(device, wanted)
        if not any(wanted.values()):
            assert device.pids("haproxy") == []
            continue
        # A master and a worker: those that were replaced while nobody looked after them have ended, too.
        await wait_until(lambda: len(device.pids("haproxy")) == 2)
        expected = desired(wanted)
        before = await running(device, expected)
        assert servers_of(before) == expected
        with frozen(device.pid("proxy")):
            await crash(device)
            assert await running(device, expected) == before
    await check_idle(device)


async def check_idle(device: Device) -> None:
    """A proxy that comes back to this finds nothing to do: one more vService is one write, and no other came before it."""
    writes = await device.kernel_writes()
    await device.kill("proxy")
    await wait_until(device.serves)
    await device.apply(Service("probe", "TCP", "203.0.113.13").doc(S1))
    assert (await device.kernel_writes())["launcher"] == writes["launcher"] + 1
    await device.delete("vServices/probe")
