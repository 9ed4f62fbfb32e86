"""One vService that cannot be is nobody else's trouble: twenty others keep changing, each change really takes effect, nothing of
their traffic is lost, and the one says what is wrong with it until that is over.
"""

import asyncio
import contextlib
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from crossns import errors, names, proc, settings, store
from crossns.etcd.client import EtcdStore
from crossns.testing.device import Device, doc, wait_until
from crossns.testing.lab import Cable, Host, Lab
from tests.fault.crossing import S1, S2, T1, Service, answer, backends, network, socket_in

pytestmark = [pytest.mark.fault, pytest.mark.asyncio(loop_scope="module")]

Count = Callable[[int, int], int]
CROWD = tuple(Service(f"v{number}", ("TCP", "HTTP")[number % 2], f"203.0.113.{100 + number}") for number in range(20))
BAD = Service("bad", "TCP", "203.0.113.99")
# A client of all of them: on each a kept connection and new ones, ten requests a second of either kind, until its time is over.
_CLIENTS = """
import asyncio, json, sys
from crossns.testing.traffic import load
async def run(target):
    plan = load.Plan(target=target, connections=1, rate=10, rate_new=10, seconds=float(sys.argv[1]))
    return {"target": target, **await load.run(plan)}
async def main():
    print(json.dumps(await asyncio.gather(*map(run, sys.argv[2:]))))
asyncio.run(main())
"""
_CLIENTS_S = 2.0


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
async def clients(host: Host) -> AsyncIterator[list[dict[str, Any]]]:
    """Clients of all twenty while the body runs; what they saw is in the list then."""
    seen: list[dict[str, Any]] = []
    is_over = False
    argv = [sys.executable, "-c", _CLIENTS, str(_CLIENTS_S), *(service.target for service in CROWD)]

    async def run() -> None:
        while not is_over:
            seen.extend(json.loads((await host.run(argv)).check().stdout))

    running = asyncio.create_task(run())
    try:
        yield seen
        is_over = True
        await running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def change_all(crowd: Crowd, changes: int) -> None:
    """Two at a time, of either kind; they are READY then, and serve as they now should on both of their ports."""
    for number in range(1, changes, 2):
        pair = {CROWD[step % len(CROWD)]: step for step in (number, number + 1)}
        await crowd.device.apply(*(shape(service, step) for service, step in pair.items()))
        for service, step in pair.items():
            for port in (80, port_at(step)):
                assert await answer(crowd.client.namespace, f"{service.address}:{port}") == member_at(step)["name"]


Fault = Callable[[Crowd], AbstractAsyncContextManager[str]]


@asynccontextmanager
async def port_is_taken(crowd: Crowd) -> AsyncIterator[str]:
    with socket_in(crowd.device.layout.netns / "c", lambda: socket.create_server((BAD.address, 80))):
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


async def is_said(device: Device, said: str) -> bool:
    with contextlib.suppress(errors.NotFound):
        return (await said_of(device, BAD)).endswith(said)
    return False


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_twenty_vservices_change_and_are_served_while_another_cannot_be(crowd: Crowd, fault: Fault, count: Count) -> None:
    device = crowd.device
    async with clients(crowd.client) as seen:
        async with fault(crowd) as said:
            await wait_until(lambda: is_said(device, said))
            await change_all(crowd, count(20, 100))
            assert await said_of(device, BAD) == said
            assert {await device.state(service.name) for service in CROWD} == {"READY"}
        await wait_until(lambda: is_said(device, "OK"))
    lost = [each for each in seen if each["kept"]["errors"] or each["new"]["errors"]]
    assert lost == []
    assert len(seen) >= len(CROWD)
    assert all(each["kept"]["ok"] and each["new"]["ok"] for each in seen)
