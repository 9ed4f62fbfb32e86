"""One vService that cannot be is nobody else's trouble: twenty others keep changing, each change really takes effect, nothing of
their traffic is lost, and the one says what is wrong with it until that is over.
"""

import asyncio
import contextlib
import itertools
import json
import os
import random
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from crossns import errors, names, proc, settings, store
from crossns.etcd.client import EtcdStore
from crossns.testing.device import Device, doc, wait_until
from crossns.testing.lab import Cable, Host, Lab
from crossns.v1 import config_pb2
from tests.fault.crossing import S1, S2, T1, Service, answer, backends, network, socket_in

pytestmark = [pytest.mark.fault, pytest.mark.asyncio(loop_scope="module")]

Count = Callable[[int, int], int]
CROWD = tuple(Service(f"v{number}", ("TCP", "HTTP")[number % 2], f"203.0.113.{100 + number}") for number in range(20))
BAD = Service("bad", "TCP", "203.0.113.99")
WORSE = Service("worse", "TCP", "203.0.113.98")
# A client of all of them: on each a kept connection and new ones, RATE requests a second of either kind, none made twice. What it
# saw of each is told on SIGTERM, of all the time: no moment is missed.
RATE = 10
_CLIENTS = """
import asyncio, json, signal, sys
from crossns.testing.traffic import load
async def main():
    rate = float(sys.argv[1])
    loads = [load.Load(load.Plan(target=each, connections=1, rate=rate, rate_new=rate, seconds=600)) for each in sys.argv[2:]]
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: [each.stop() for each in loads])
    running = [asyncio.ensure_future(each.run()) for each in loads]
    await asyncio.sleep(0)
    print("running", flush=True)
    print(json.dumps(await asyncio.gather(*running)))
asyncio.run(main())
"""
# The least that is answered of either kind on each of the twenty, per second; the most that an answer takes, or there is none:
# half of what HAProxy pauses where it tells its former worker to let go of a port.
ANSWERED_MIN = 0.9 * RATE
SILENCE_MAX_MS = 1000


@dataclass(frozen=True, slots=True)
class Crowd:
    device: Device
    client: Host


@pytest_asyncio.fixture(loop_scope="module")
async def crowd(device: Device, lab: Lab) -> Crowd:
    """The twenty, READY, with a client of theirs."""
    client = await lab.host("client", Cable("card-c"), ["203.0.113.6/24"])
    await backends(lab)
    networks = [*network("c", "203.0.113.1/24"), *network("s", "10.0.0.1/24"), *network("t", "10.0.0.1/24")]
    await device.apply(*networks, *(shape(service, 0) for service in CROWD))
    return Crowd(device, client)


def shape(service: Service, step: int) -> str:
    """How a service is at a step: every second one changes its member, the others its frontends."""
    return service.doc(member_at(step), frontends=[service.frontend("g", port_at(step))])


def member_at(step: int) -> dict[str, Any]:
    return (S1, T1, S2)[step // 2 % 3]


def port_at(step: int) -> int:
    return 8000 + (step + 1) // 2


@asynccontextmanager
async def served(crowd: Crowd) -> AsyncIterator[None]:
    """While the body runs clients of all twenty are answered: all that they ask, often enough, and soon."""
    argv = [sys.executable, "-c", _CLIENTS, str(RATE), *(service.target for service in CROWD)]
    running = await crowd.client.start(argv)
    try:
        assert running.stdout is not None
        assert await running.stdout.readline() == b"running\n"
        yield
        running.terminate()
        seen = json.loads(await running.stdout.read())
    finally:
        await crowd.client.stop(running)
    assert len(seen) == len(CROWD)
    for each in seen:
        check(each)


def check(seen: dict[str, Any]) -> None:
    """What a client of one of the twenty saw is what it may."""
    for kind in ("kept", "new"):
        assert seen[kind]["errors"] == {}, seen
        assert seen[kind]["ok"] / seen["seconds"] >= ANSWERED_MIN, seen
        assert seen[kind]["latency_ms"]["max"] <= SILENCE_MAX_MS, seen
    assert seen["longest_gap_ms"] <= SILENCE_MAX_MS, seen


async def change_all(crowd: Crowd, changes: int) -> None:
    """Two at a time, of either kind; they are READY then, and serve as they now should on both of their ports."""
    for number in range(1, changes, 2):
        pair = {CROWD[step % len(CROWD)]: step for step in (number, number + 1)}
        await crowd.device.apply(*(shape(service, step) for service, step in pair.items()))
        for service, step in pair.items():
            for port in (80, port_at(step)):
                assert await answer(crowd.client.namespace, f"{service.address}:{port}") == member_at(step)["name"]


Fault = Callable[[Crowd], AbstractAsyncContextManager[str]]


@contextlib.contextmanager
def taken(crowd: Crowd, service: Service) -> Iterator[None]:
    """A foreign process listens where the service is to."""
    with socket_in(crowd.device.layout.netns / service.table, lambda: socket.create_server((service.address, 80))):
        yield


@asynccontextmanager
async def port_is_taken(crowd: Crowd) -> AsyncIterator[str]:
    with taken(crowd, BAD):
        await crowd.device.apply(BAD.doc(S1), wait=False)
        yield "ERROR ENGINE_REFUSED"
    # What was refused is tried again when it is written again.
    await crowd.device.apply(BAD.doc(T1))


@asynccontextmanager
async def table_is_gone(crowd: Crowd) -> AsyncIterator[str]:
    bad = Service(BAD.id, BAD.protocol, BAD.address, table="x")
    await crowd.device.apply(doc("routeTables/x"), bad.doc(S1))
    async with without_namespace(crowd.device, "x"):
        yield "PENDING ROUTE_TABLE_ABSENT"


@asynccontextmanager
async def member_is_in_a_table_that_is_gone(crowd: Crowd) -> AsyncIterator[str]:
    await crowd.device.apply(doc("routeTables/x"), BAD.doc({**S1, "routeTable": "routeTables/x"}))
    async with without_namespace(crowd.device, "x"):
        yield "PENDING ROUTE_TABLE_ABSENT"


@asynccontextmanager
async def without_namespace(device: Device, table: str) -> AsyncIterator[None]:
    """Its namespace destroyed; a foreign file stands where a new one would have to be."""
    agent = device.pid(f"agent {table}")
    name, incarnation = device.layout.netns / table, next(device.layout.incarnations.glob(f"{table}.*"))
    (await proc.run(["umount", "--lazy", str(name), str(incarnation)])).check()
    incarnation.unlink()
    os.kill(agent, 9)
    try:
        yield
    finally:
        name.unlink()


@asynccontextmanager
async def member_is_in_a_table_that_is_being_deleted(crowd: Crowd) -> AsyncIterator[str]:
    """The deletion does not end while a service has a part of the table."""
    await crowd.device.apply(doc("routeTables/x"))
    backend = await EtcdStore.connect(settings.Etcd((f"unix:{crowd.device.layout.etcd_socket}",)))
    device = (await backend.list("/crossns/", limit=1)).entries[0].key.split("/")[2]
    part = names.Keys(device, "proxy").status("routeTables/x")
    try:
        await backend.commit([], [store.Put(part, b"")])
        await crowd.device.delete("routeTables/x", wait=False)
        with pytest.raises(errors.FailedPrecondition, match="is being deleted"):
            await crowd.device.apply(BAD.doc({**S1, "routeTable": "routeTables/x"}))
        await crowd.device.apply(BAD.doc(S1))
        with pytest.raises(errors.FailedPrecondition, match="is being deleted"):
            await crowd.device.apply(BAD.doc({**S1, "routeTable": "routeTables/x"}))
        yield "READY OK"
        assert await crowd.device.state("routeTables/x") == "DELETING"
    finally:
        await backend.commit([], [store.Delete(part)])
        await backend.close()


FAULTS: tuple[Fault, ...] = (
    port_is_taken,
    table_is_gone,
    member_is_in_a_table_that_is_gone,
    member_is_in_a_table_that_is_being_deleted,
)


async def said_of(device: Device, service: Service) -> str:
    """Its state, and whether HAProxy has it, or why not."""
    found: Any = await device.client.get(service.name)
    reasons = [each.reason for each in found.status.conditions if each.type == "Programmed"]
    return f"{await device.state(service.name)} {reasons[0] if reasons else ''}"


async def is_said(device: Device, service: Service, said: str) -> bool:
    with contextlib.suppress(errors.NotFound):
        return (await said_of(device, service)).endswith(said)
    return False


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_twenty_vservices_change_and_are_served_while_another_cannot_be(crowd: Crowd, fault: Fault, count: Count) -> None:
    async with served(crowd):
        async with fault(crowd) as said:
            await wait_until(lambda: is_said(crowd.device, BAD, said))
            await change_all(crowd, count(20, 100))
            assert await said_of(crowd.device, BAD) == said
            assert {await crowd.device.state(service.name) for service in CROWD} == {"READY"}
        await wait_until(lambda: is_said(crowd.device, BAD, "OK"))


async def check_told(crowd: Crowd, said: Mapping[Service, str], changes: int) -> None:
    """The twenty change, and that is what each of the others says of itself before and after."""
    for service, words in said.items():
        await wait_until(lambda service=service, words=words: is_said(crowd.device, service, words))
    await change_all(crowd, changes)
    assert {service: await said_of(crowd.device, service) for service in said} == said


async def test_twenty_vservices_change_and_are_served_while_two_others_lose_their_ports_at_different_times(
    crowd: Crowd, count: Count
) -> None:
    """The one is refused when the other comes, and still is when that is served."""
    device, changes = crowd.device, count(6, 24)
    refused, serves = "ERROR ENGINE_REFUSED", "READY OK"
    async with served(crowd):
        with taken(crowd, WORSE):
            with taken(crowd, BAD):
                await device.apply(BAD.doc(S1), wait=False)
                await check_told(crowd, {BAD: refused}, changes)
                await device.apply(WORSE.doc(S1), wait=False)
                await check_told(crowd, {BAD: refused, WORSE: refused}, changes)
            await device.apply(BAD.doc(T1))
            await check_told(crowd, {BAD: serves, WORSE: refused}, changes)
        await device.apply(WORSE.doc(T1))
        await check_told(crowd, {BAD: serves, WORSE: serves}, changes)


async def after(delay_s: float, asked: Awaitable[Any]) -> None:
    await asyncio.sleep(delay_s)
    await asked


async def race(crowd: Crowd, delays_s: tuple[float, float], *, is_update: bool) -> str:
    """The one vService comes to have a member in a table while that is deleted; who lost. Neither is there any more then."""
    device = crowd.device
    await device.apply(doc("routeTables/x"), *([BAD.doc(S1)] if is_update else []))
    coming = device.apply(BAD.doc({**S1, "routeTable": "routeTables/x"}), wait=False)
    going = device.delete("routeTables/x", wait=False)
    outcomes = await asyncio.gather(after(delays_s[0], coming), after(delays_s[1], going), return_exceptions=True)
    (lost,) = (each for each in outcomes if each is not None)
    assert isinstance(lost, errors.FailedPrecondition), lost
    if lost is outcomes[1]:
        assert lost.reason == "STILL_REFERENCED"
        assert await device.state("routeTables/x") == "READY"
        await device.delete(BAD.name)
        await device.delete("routeTables/x")
        return "table"
    assert lost.reason in {"TARGET_BEING_DELETED", "TARGET_NOT_FOUND"}
    await device.wait([config_pb2.WaitTarget(name="routeTables/x", deleted=True)])
    assert not is_update or await said_of(device, BAD) == "READY OK"
    await device.delete(BAD.name, allow_missing=not is_update)
    return "vService"


async def test_twenty_vservices_change_and_are_served_while_a_table_is_deleted_against_a_member_that_comes_into_it(
    crowd: Crowd, count: Count, dice: random.Random
) -> None:
    """A member is never in a table that is being deleted: what names such a table is refused, and so is the deletion of one that
    is named. Of two that are asked for at the same time one always loses, with FAILED_PRECONDITION, and nothing of it is left."""
    # First with a start for either, then with next to none.
    delays_s = itertools.chain([(0.2, 0.0), (0.0, 0.2)], iter(lambda: (dice.uniform(0, 0.01), dice.uniform(0, 0.01)), None))
    losers: list[str] = []
    async with served(crowd), asyncio.TaskGroup() as group:
        changing = group.create_task(change_all(crowd, count(20, 100)))
        while not changing.done() or len(losers) < count(8, 40):
            losers.append(await race(crowd, next(delays_s), is_update=len(losers) % 4 > 1))
    assert set(losers) == {"table", "vService"}
