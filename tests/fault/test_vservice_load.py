"""Changes of every kind to services under load: what can change while they are served changes without a lost request.

"Nothing failed" counts under the minimum of `crossing` only, by clients that do not retry.
"""

import asyncio
import contextlib
import itertools
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from crossns import operation
from crossns.launcher import Launcher
from crossns.testing.device import Device
from crossns.testing.lab import Host, Lab
from tests.fault.crossing import (
    BOTH,
    S1,
    S2,
    SITE,
    T1,
    Member,
    Service,
    check,
    client,
    connected,
    loading,
    member,
    ready,
    socket_in,
)

__all__ = ["client"]

pytestmark = [pytest.mark.fault, pytest.mark.alone, pytest.mark.asyncio(loop_scope="module")]

Count = Callable[[int, int], int]
# Where S1 is while it is elsewhere: another address and port of its network, where S2 answers.
_ELSEWHERE = {"address": "10.0.0.6", "port": 8081}


@dataclass(frozen=True, slots=True)
class Shape:
    """How a service is to be at one moment of the run; `neighbour`: whether there is another vService beside it."""

    members: tuple[Member, ...] = (S1, T1)
    algorithm: str = "ROUND_ROBIN"
    connect: str = "5s"
    more_frontends: tuple[int, ...] = ()
    more_pools: tuple[str, ...] = ()
    neighbour: bool = False

    def doc(self, service: Service) -> str:
        pools = [{"name": "p", "algorithm": self.algorithm, "members": [*self.members]}]
        pools += [{"name": name, "members": [T1]} for name in self.more_pools]
        # The last pool serves the further frontends.
        last = pools[-1]["name"]
        frontends = [service.frontend(f"f{port}", port, str(last)) for port in self.more_frontends]
        return service.doc(pools=pools, frontends=frontends, timeouts={"connect": self.connect})


# Each is what becomes different by one change; round and round.
MEMBER_CHANGES: Sequence[dict[str, Any]] = (
    {"members": ({**S1, "weight": 8}, T1)},
    {"members": (S1, {**T1, "state": "DRAIN"})},
    {"members": (S1, T1)},
    {"members": (S1, T1, S2)},
    {"members": (S1, T1)},
    {"members": ({**S1, **_ELSEWHERE}, T1)},
    {"members": (S1, T1)},
    {"members": ({**S1, "maxConnections": 500}, T1)},
    {"members": (S1, {**T1, "state": "DRAIN"})},
    # Nothing is on it any more where each request is balanced; connections that are kept would end, and do so by design.
    {"members": (S1, {**T1, "state": "DISABLED"})},
    {"members": (S1, T1)},
)
STRUCTURAL_CHANGES: Sequence[dict[str, Any]] = (
    {"neighbour": True},
    {"more_frontends": (81,)},
    {"algorithm": "LEAST_CONNECTIONS"},
    {"more_pools": ("q",)},
    {"connect": "4s"},
    {"neighbour": False},
    {"algorithm": "RANDOM"},
    {"more_frontends": ()},
    {"more_pools": ()},
    {"algorithm": "ROUND_ROBIN", "connect": "5s"},
)


def schedule(protocol: str, members: int, structural: int) -> list[tuple[float, dict[str, Any]]]:
    """So many changes of either kind, evenly spread over the run: (moment, as a part of the run; what becomes different)."""
    possible = [delta for delta in MEMBER_CHANGES if protocol == "HTTP" or "DISABLED" not in str(delta)]
    changes = [
        *zip(_moments(members), itertools.cycle(possible), strict=False),
        *zip(_moments(structural), itertools.cycle(STRUCTURAL_CHANGES), strict=False),
    ]
    return sorted(changes, key=lambda change: change[0])


def _moments(count: int) -> list[float]:
    return [0.9 * (number + 0.5) / count for number in range(count)]


async def become(device: Device, service: Service, before: Shape, wanted: Shape) -> None:
    """Make the change and wait until it is in force."""
    neighbour = replace(service, id="neighbour", address="203.0.113.20")
    if before.neighbour and not wanted.neighbour:
        await device.delete(neighbour.name)
    elif wanted.neighbour and not before.neighbour:
        await device.apply(neighbour.doc(T1))
    else:
        await device.apply(wanted.doc(service))


async def reloads(device: Device) -> int:
    session = await Launcher.connect(device.layout.launcher_socket, "observer", operation.Token(0, 0))
    try:
        engines = await session.call(operation.ListEngines())
    finally:
        await session.close()
    assert isinstance(engines, operation.Engines)
    return engines.items[0].reloads


@pytest.mark.parametrize("service", BOTH, ids=lambda service: service.protocol)
async def test_changes_under_load_lose_no_request(device: Device, client: Host, service: Service, count: Count) -> None:
    await ready(device)
    seconds, structural = count(6, 30), count(5, 20)
    shape = Shape()
    await device.apply(shape.doc(service))
    before = await reloads(device)
    loop = asyncio.get_running_loop()
    async with loading(client, seconds, service) as seen:
        began = loop.time()
        for moment, delta in schedule(service.protocol, count(11, 50), structural):
            await asyncio.sleep(max(0.0, began + moment * seconds - loop.time()))
            former, shape = shape, replace(shape, **delta)
            await become(device, service, former, shape)
    check(seen)
    assert {name for each in seen for name in each["by_backend"]} == {"s1", "s2", "t1"}
    assert await reloads(device) - before == structural


async def _answer_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A member that wants a new connection for each request."""
    with contextlib.suppress(EOFError):
        await reader.readuntil(b"\r\n\r\n")
        body = b'{"backend": "closing"}'
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    writer.close()


@pytest.mark.parametrize("asked_before", [True, False])
async def test_kept_http_connection_without_a_request_under_way_is_answered_behind_a_reload(
    device: Device, client: Host, lab: Lab, asked_before: bool
) -> None:
    """By the worker that it came to, which must go on to reach the members for it."""
    where = ("10.0.0.5", 8090)
    listener = socket_in(lab.hosts["s"].namespace, lambda: socket.create_server(where))
    async with await asyncio.start_server(_answer_and_close, sock=listener):
        only = member("closing", "s", *where)
        await device.apply(SITE.doc(only))
        async with connected(client.namespace, SITE.target) as connection:
            if asked_before:
                await connection.ask()
            await device.apply(SITE.doc(only, timeouts={"connect": "4s"}))
            await device.apply(SITE.doc(only, timeouts={"connect": "5s"}))
            assert await connection.ask() == "closing"
