"""Whatever process dies while vServices change all the time, by member and by structure: no request is lost under load, and in
the end they are as was last asked, which no worker of HAProxy from before gainsays.
"""

import asyncio
import contextlib
import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from crossns.testing.device import Device, doc, wait_until
from crossns.testing.lab import Host
from tests.fault.crossing import (
    BOTH,
    S1,
    S2,
    T1,
    WEB,
    Connection,
    Member,
    Service,
    answer,
    check,
    client,
    connected,
    loading,
    patiently,
    ready,
    settled,
)

__all__ = ["client"]

pytestmark = [pytest.mark.fault, pytest.mark.alone, pytest.mark.asyncio(loop_scope="module")]

Count = Callable[[int, int], int]
PROCESSES = ("gateway", "nsmanager", "proxy", "etcd", "agent c", "agent s", "agent t", "launcher")
# What a service has from one change to the next, round and round.
MEMBERS: Sequence[Sequence[Member]] = (
    (S1, T1),
    ({**S1, "weight": 8}, T1),
    (S1, {**T1, "state": "DRAIN"}),
    (S1, T1, S2),
)
MORE_PORTS: Sequence[Sequence[int]] = ((), (81,), (81, 82), (82,))
# Between two changes of a service.
_PAUSE_S = 0.2
# How soon workers from before accept nothing any more, and are gone once they have no connection.
_GONE_MAX_S = 5.0


def spec(service: Service, members: Sequence[Member], more_ports: Sequence[int] = ()) -> dict[str, Any]:
    frontends = [service.frontend(), *(service.frontend(f"f{port}", port) for port in more_ports)]
    return {"protocol": service.protocol, "frontends": frontends, "pools": [{"name": "p", "members": [*members]}]}


def spec_at(service: Service, step: int) -> dict[str, Any]:
    """Each second step is another structure, the others are another member."""
    return spec(service, MEMBERS[(step + 1) // 2 % len(MEMBERS)], MORE_PORTS[step // 2 % len(MORE_PORTS)])


@contextlib.asynccontextmanager
async def changing(device: Device) -> AsyncIterator[Counter[Service]]:
    """Both services change all the time while the body runs. Yields how often each has."""
    made: Counter[Service] = Counter()

    async def change(service: Service) -> None:
        for step in itertools.count(1):
            await patiently(device, service, spec_at(service, step))
            made[service] += 1
            await asyncio.sleep(_PAUSE_S)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(change(service)) for service in BOTH]
        yield made
        for task in tasks:
            task.cancel()


async def changed(made: Counter[Service]) -> None:
    """Until each service has changed once more by member, and once by structure."""
    before = made.copy()
    await wait_until(lambda: all(made[service] >= before[service] + 2 for service in BOTH))


async def kill(device: Device, process: str) -> None:
    """And wait until there is another one."""
    pid = await device.kill(process)
    await wait_until(lambda: device.pids(process) and device.pids(process)[0] != pid)


def last(service: Service, serving: str) -> dict[str, Any]:
    """One frontend, and one member that is not DISABLED."""
    return spec(service, [each if each["name"] == serving else {**each, "state": "DISABLED"} for each in (S1, T1)])


async def check_last(device: Device, client: Host, serving: str) -> None:
    """Both are READY as `last` has them, and new connections soon find nothing of what was before, however often they try."""
    await settled(device, {service: last(service, serving) for service in BOTH})
    await wait_until(lambda: is_alone(client, serving), timeout_s=_GONE_MAX_S)


async def is_alone(client: Host, serving: str) -> bool:
    """Whether no other member answers, and the ports that were removed are refused."""
    targets = [service.target for service in BOTH for _ in range(20)]
    removed = [f"{service.address}:{port}" for service in BOTH for port in (81, 82)]
    answering = {await answer(client.namespace, target) for target in targets}
    return answering == {serving} and not any([await is_accepted(client, target) for target in removed])


async def is_accepted(client: Host, target: str) -> bool:
    with contextlib.suppress(ConnectionRefusedError):
        async with connected(client.namespace, target):
            return True
    return False


@contextlib.asynccontextmanager
async def old_worker(device: Device, client: Host) -> AsyncIterator[Connection]:
    """A connection that the worker of now keeps, whatever follows it; behind it a master and one worker are all that is left."""
    async with connected(client.namespace, WEB.target) as held:
        yield held
    await wait_until(lambda: len(device.pids("haproxy")) <= 2, timeout_s=_GONE_MAX_S)


@pytest.mark.long  # The same kills with nothing changing are in test_suite, in every run.
@pytest.mark.parametrize("process", PROCESSES)
async def test_killed_process_loses_no_request_of_vservices_that_change_all_the_time(
    device: Device, client: Host, process: str, count: Count, dice: random.Random
) -> None:
    """Both change, and one after the other is under the load; each time the process is killed."""
    await ready(device)
    async with old_worker(device, client) as held:
        serving = await held.ask()
        async with changing(device) as made:
            for service in BOTH:
                async with loading(client, count(2, 10), service) as seen:
                    for _ in range(count(1, 3)):
                        await changed(made)
                        await asyncio.sleep(dice.uniform(0, 0.2))
                        await kill(device, process)
                    await changed(made)
                check(seen)
        for service in BOTH:
            await patiently(device, service, last(service, serving))
        await check_last(device, client, serving)
        assert await held.ask() == serving


# Who dies again and again is started again later and later.
@pytest.mark.timeout(600)
async def test_launcher_that_is_killed_behind_a_reload_leaves_no_worker_that_goes_on_accepting(
    device: Device, client: Host, count: Count, dice: random.Random
) -> None:
    """Frontends are removed and a member is DISABLED: the reload for it is some 100 ms old then, or about to be."""
    for _ in range(count(6, 30)):
        for service in BOTH:
            await device.apply(doc(service.name, **spec(service, (S1, T1), (81, 82))))
        async with old_worker(device, client) as held:
            serving = await held.ask()
            await asyncio.gather(*(patiently(device, service, last(service, serving)) for service in BOTH))
            await asyncio.sleep(dice.uniform(0.04, 0.2))
            await kill(device, "launcher")
            await check_last(device, client, serving)
            assert await held.ask() == serving
