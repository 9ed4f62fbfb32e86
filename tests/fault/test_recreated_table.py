"""A route table that goes and comes again under its name, while others are served: its VIP and its members are reached in the new
namespace and nowhere else, also where somebody keeps the dead one alive.

The dead namespace has its witness from before the table comes again until the end, and a client that asks all the while takes an
answer from nobody but the member in the new one.
"""

import asyncio
import contextlib
import json
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from crossns import errors, proc
from crossns.testing.device import Device, doc, wait_until
from crossns.testing.lab import Cable, Lab
from tests.fault.crossing import S1, T1, TRAFFIC, WEB, Connection, Service, answer, backends, connected, network

pytestmark = [pytest.mark.fault, pytest.mark.asyncio(loop_scope="module")]

# Of another network, with a member of its own: nothing that happens here is its business.
OTHER = Service("other", "TCP", "198.51.100.10", table="d")
MEMBER = S1["address"]
# How soon a VIP serves behind its table.
SERVED_MAX_S = 2.0
# A connection that is not answered by then is given up: where the VIP is not there yet, the next SYN leaves a second later.
_ATTEMPT_MAX_S = 0.1
_DEFAULT = Path("/proc/self/ns/net")
_WITNESS = """
table inet witness {
    counter seen { }
    chain in { type filter hook prerouting priority -400; jump both; }
    chain out { type filter hook output priority -400; jump both; }
    chain both {
        ip saddr { %(all)s } counter name seen
        ip daddr { %(all)s } counter name seen
    }
}
"""
# A stranger in a namespace: it keeps it alive, and answers there at the member's own address.
_IMPOSTOR = [*TRAFFIC, "serve", "--listen", f"{MEMBER}:8080", "--name", "dead"]


async def inside(namespace: Path, *argv: str, stdin: str = "") -> str:
    return (await proc.run(["nsenter", f"--net={namespace}", "--", *argv], stdin=stdin)).check().stdout


@contextlib.asynccontextmanager
async def witness(namespace: Path) -> AsyncIterator[Callable[[], Awaitable[int]]]:
    """Tells how many packets from or to the VIP and its member the namespace has seen since."""
    await inside(namespace, "nft", "-f", "-", stdin=_WITNESS % {"all": f"{WEB.address}, {MEMBER}"})

    async def seen() -> int:
        listed = json.loads(await inside(namespace, "nft", "-j", "list", "counter", "inet", "witness", "seen"))
        return next(int(each["counter"]["packets"]) for each in listed["nftables"] if "counter" in each)

    try:
        yield seen
    finally:
        await inside(namespace, "nft", "delete", "table", "inet", "witness")


@contextlib.contextmanager
def kept(device: Device, table: str) -> Any:
    """A path to the table's present namespace, which lives on as long as this lasts."""
    fd = os.open(device.layout.netns / table, os.O_RDONLY)
    try:
        yield Path(f"/proc/{os.getpid()}/fd/{fd}")
    finally:
        os.close(fd)


@contextlib.asynccontextmanager
async def haunted(namespace: Path) -> AsyncIterator[None]:
    """The VIP and the member's address stay reachable in a dead namespace, for whoever still is there."""
    await inside(namespace, "ip", "-batch", "-", stdin=f"addr replace {WEB.address}/32 dev lo\naddr replace {MEMBER}/32 dev lo\n")
    stranger = await proc.start(["nsenter", f"--net={namespace}", "--", *_IMPOSTOR])
    try:
        assert stranger.stdout is not None
        assert b"listening" in await stranger.stdout.readline()
        yield
    finally:
        proc.kill(stranger)
        await stranger.wait()


@contextlib.asynccontextmanager
async def answering(connection: Connection) -> AsyncIterator[None]:
    """The connection is asked all the time, and answers by the same member."""

    async def ask() -> None:
        while True:
            assert await connection.ask() == "t1"
            await asyncio.sleep(0.01)

    asking = asyncio.create_task(ask())
    try:
        yield
        assert not asking.done(), asking
    finally:
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking


@contextlib.asynccontextmanager
async def answered(client: Path) -> AsyncIterator[list[float]]:
    """WEB is asked all the time, on one new connection after the other; the body fails at once where anybody but its member
    answers. Yields the moments of the answers so far."""
    moments: list[float] = []

    async def ask() -> None:
        while True:
            with contextlib.suppress(OSError, EOFError):
                async with asyncio.timeout(_ATTEMPT_MAX_S):
                    assert await answer(client, WEB.target) == "s1"
                moments.append(time.monotonic())
            await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as group:
        asked = group.create_task(ask())
        yield moments
        asked.cancel()


@contextlib.asynccontextmanager
async def others_served(device: Device, lab: Lab, networks: list[str]) -> AsyncIterator[Path]:
    """WEB and OTHER are READY in `networks` and those of OTHER; a connection of OTHER answers all the time, and `default` sees
    nothing of WEB. Yields the namespace of WEB's client."""
    client = await lab.host("client", Cable("card-c"), ["203.0.113.6/24"])
    other = await lab.host("other", Cable("card-d"), ["198.51.100.6/24"])
    await backends(lab)
    await device.apply(*networks, *network("d", "198.51.100.1/24"), *network("t", "10.0.0.1/24"), WEB.doc(S1), OTHER.doc(T1))
    async with witness(_DEFAULT) as seen, connected(other.namespace, OTHER.target) as held, answering(held):
        assert await answer(client.namespace, WEB.target) == "s1"
        yield client.namespace
        assert await seen() == 0


async def ready_again(device: Device, table: str, dead: int) -> None:
    """Until the table is READY in another namespace than `dead`."""

    async def is_back() -> bool:
        with contextlib.suppress(Exception):
            found: Any = await device.client.get(f"routeTables/{table}")
            return await device.state(found.name) == "READY" and found.status.netns_cookie not in {0, dead}
        return False

    await wait_until(is_back)


async def check_served_soon(device: Device, client: Path, answers: list[float], began: float) -> None:
    """WEB is answered and READY again, and no worker from before accepts any more: from then on its member always answers."""

    async def is_as_before() -> bool:
        return bool(answers) and await device.state(WEB.name) == "READY" and len(await workers(device)) == 1

    await wait_until(is_as_before)
    assert answers[0] - began <= SERVED_MAX_S
    assert time.monotonic() - began <= SERVED_MAX_S
    for _ in range(20):
        assert await answer(client, WEB.target) == "s1"


async def cookie_of(device: Device, table: str) -> int:
    return (await device.client.identity(f"routeTables/{table}")).netns_cookie


async def workers(device: Device) -> set[str]:
    """Who accepts WEB's connections."""
    listening = await inside(device.layout.netns / WEB.table, "ss", "-Hltnp", "src", WEB.target)
    return set(re.findall(r"pid=\d+", listening))


async def check_left(dead: Path) -> None:
    """Nobody of ours listens in the dead namespace."""
    with pytest.raises(ConnectionRefusedError):
        await answer(dead, WEB.target)


@pytest.mark.parametrize("table", ["c", "s"])
async def test_table_that_was_deleted_and_made_again_serves_within_two_seconds_from_its_new_namespace(
    device: Device, lab: Lab, table: str
) -> None:
    """The two seconds begin with the call that makes the table, its interface and WEB anew, before any of them is in force."""
    networks = {"c": network("c", "203.0.113.1/24"), "s": network("s", "10.0.0.1/24")}
    async with others_served(device, lab, [*networks["c"], *networks["s"]]) as client:
        with kept(device, table) as dead:
            cookie = await cookie_of(device, table)
            await device.delete(WEB.name)
            await device.delete(f"interfaces/{table}", f"routeTables/{table}")
            async with witness(dead) as seen, haunted(dead), answered(client) as answers:
                began = time.monotonic()
                await device.apply(*networks[table], WEB.doc(S1), wait=False)
                await ready_again(device, table, cookie)
                await check_served_soon(device, client, answers, began)
                assert await seen() == 0
            await check_left(dead)


def network_that_returns(table: str, prefix: str) -> list[str]:
    """The table on a link that nsmanager makes again by itself: its cable ends in `default`."""
    card = doc(f"interfaces/{table}-card", routeTable="routeTables/default", physical={"linkName": f"card-{table}"})
    spec: dict[str, Any] = {"macvlan": {"parent": f"interfaces/{table}-card"}, "addresses": [prefix]}
    return [
        card,
        doc(f"routeTables/{table}"),
        doc(f"interfaces/{table}", routeTable=f"routeTables/{table}", linkName="lan", **spec),
    ]


async def destroy(device: Device, table: str) -> None:
    """By force, under everybody: all mounts of the namespace, and its agent."""
    agent = device.pid(f"agent {table}")
    mounts = [device.layout.netns / table, *device.layout.incarnations.glob(f"{table}.*")]
    (await proc.run(["umount", "--lazy", *map(str, mounts)])).check()
    for mount in mounts:
        mount.unlink()
    os.kill(agent, signal.SIGKILL)


async def replaced(device: Device, before: set[str]) -> None:
    """Until only others than the workers `before` accept WEB's connections."""

    async def is_replaced() -> bool:
        # The table's namespace may not be there yet.
        with contextlib.suppress(errors.PermanentError):
            return bool(accepting := await workers(device)) and not accepting & before
        return False

    await wait_until(is_replaced)


@pytest.mark.needs("macvlan")
@pytest.mark.parametrize("table", ["c", "s"])
async def test_table_whose_namespace_was_destroyed_serves_within_two_seconds_from_its_new_one(
    device: Device, lab: Lab, table: str
) -> None:
    """The two seconds begin before the destruction. HAProxy holds what it serves from until it is told of the new namespace: no
    client asks before, and none of the check is there any more, so from the destruction on the dead one sees nothing at all."""
    networks = [*network_that_returns("c", "203.0.113.1/24"), *network_that_returns("s", "10.0.0.1/24")]
    async with others_served(device, lab, networks) as client:
        with kept(device, table) as dead:
            cookie, accepting = await cookie_of(device, table), await workers(device)
            async with witness(dead) as seen:
                began = time.monotonic()
                await destroy(device, table)
                before = await seen()
                # As an unplugged card: two owners of one address would be another fault.
                await inside(dead, "ip", "link", "delete", "lan")
                async with haunted(dead):
                    await replaced(device, accepting)
                    async with answered(client) as answers:
                        await ready_again(device, table, cookie)
                        await check_served_soon(device, client, answers, began)
                    assert await seen() == before
            await check_left(dead)
