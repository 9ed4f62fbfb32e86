"""Two services that cross, TCP and HTTP, with real clients and real backends: what the tests of the whole suite put faults to.

Test modules import the fixture `client`; such tests share their module's event loop. "Nothing failed" counts only under a stated
minimum of load, by clients that do not retry: `loading` makes it, `check` holds it.
"""

import asyncio
import contextlib
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest_asyncio

from crossns import errors, netns
from crossns.testing.device import Device, doc, wait_until
from crossns.testing.lab import Cable, Host, Lab
from crossns.testing.traffic import address

TRAFFIC = [sys.executable, "-m", "crossns.testing.traffic"]
# The least load under which "0 failed" means anything: requests on kept connections and on new ones, answered per second.
KEPT_ALIVE_MIN = 2000
NEW_MIN = 200
# What clients try: enough for the least if they are held up for a moment.
_CONNECTIONS = 16
_RATES = ["--connections", str(_CONNECTIONS), "--rate", "2400", "--rate-new", "240"]
# How long they go on at a time where what they are there for takes longer than it was to.
_MORE_S = 3.0

Seen = dict[str, Any]
Member = dict[str, Any]
# What is wanted of a vService; None where it is to be gone.
Spec = dict[str, Any] | None


def member(name: str, table: str, where: str, port: int = 8080, **more: Any) -> Member:
    return {"name": name, "routeTable": f"routeTables/{table}", "address": where, "port": port, **more}


# The two networks have the same addresses.
S1 = member("s1", "s", "10.0.0.5")
S2 = member("s2", "s", "10.0.0.6")
T1 = member("t1", "t", "10.0.0.5")


@dataclass(frozen=True, slots=True)
class Service:
    """One with the frontend `f` in a table and the pool `p`."""

    id: str
    protocol: str
    address: str
    table: str = "c"

    @property
    def name(self) -> str:
        return f"vServices/{self.id}"

    @property
    def target(self) -> str:
        return f"{self.address}:80"

    def frontend(self, name: str = "f", port: int = 80, pool: str = "p") -> dict[str, Any]:
        return {"name": name, "routeTable": f"routeTables/{self.table}", "address": self.address, "port": port, "pool": pool}

    def doc(self, *members: Member, frontends: Sequence[dict[str, Any]] = (), **spec: Any) -> str:
        """Its document; `frontends` are further ones, `spec` is what else there is."""
        pools = [{"name": "p", "members": [*members]}]
        return doc(self.name, protocol=self.protocol, frontends=[self.frontend(), *frontends], **{"pools": pools} | spec)


WEB = Service("web", "TCP", "203.0.113.10")
SITE = Service("site", "HTTP", "203.0.113.11")
BOTH = (WEB, SITE)


def network(table: str, *addresses: str) -> list[str]:
    """The table and its interface, on the cable `card-<table>`."""
    card = {"linkName": f"card-{table}"}
    lan = doc(f"interfaces/{table}", routeTable=f"routeTables/{table}", physical=card, addresses=[*addresses])
    return [doc(f"routeTables/{table}"), lan]


async def serve(host: Host, name: str, *listen: str) -> None:
    """A backend that calls itself `name`."""
    where = [part for each in listen for part in ("--listen", each)]
    backend = await host.start([*TRAFFIC, "serve", *where, "--name", name])
    assert backend.stdout is not None
    assert b"listening" in await backend.stdout.readline()


async def backends(lab: Lab) -> None:
    """The hosts in the networks `s` and `t`, serving as S1, S2 and T1."""
    s = await lab.host("s", Cable("card-s"), ["10.0.0.5/24", "10.0.0.6/24"])
    t = await lab.host("t", Cable("card-t"), ["10.0.0.5/24"])
    await asyncio.gather(
        serve(s, "s1", "10.0.0.5:8080"), serve(s, "s2", "10.0.0.6:8080", "10.0.0.6:8081"), serve(t, "t1", "10.0.0.5:8080")
    )


@pytest_asyncio.fixture(loop_scope="module")
async def client(device: Device, lab: Lab) -> AsyncIterator[Host]:
    """A client in the network `c` of WEB and SITE, which are READY, each with the members S1 and T1."""
    host = await lab.host("client", Cable("card-c"), ["203.0.113.6/24"])
    await backends(lab)
    networks = [*network("c", "203.0.113.1/24"), *network("s", "10.0.0.1/24"), *network("t", "10.0.0.1/24")]
    await device.apply(*networks, *(service.doc(S1, T1) for service in BOTH))
    yield host
    await device.delete(*(service.name for service in BOTH), allow_missing=True)


async def ready(device: Device) -> None:
    wanted = ["routeTables/c", "routeTables/s", "routeTables/t", *(service.name for service in BOTH)]

    async def is_ready() -> bool:
        with contextlib.suppress(Exception):
            return {await device.state(name) for name in wanted} == {"READY"}
        return False

    await wait_until(is_ready)


async def patiently(device: Device, service: Service, spec: Spec) -> None:
    """Have it stored, however often the service is away."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(errors.TemporaryError):
                if spec is None:
                    await device.delete(service.name, wait=False, allow_missing=True)
                else:
                    await device.apply(doc(service.name, **spec), wait=False)
                return
            await asyncio.sleep(0.02)


async def settled(device: Device, wanted: Mapping[Service, Spec]) -> None:
    """Until all is READY or gone, as last written."""

    async def is_settled(service: Service, spec: Spec) -> bool:
        with contextlib.suppress(errors.TemporaryError):
            try:
                found = await device.client.get(service.name)
            except errors.NotFound:
                return spec is None
            return spec is not None and not found.reconciling and await device.state(service.name) == "READY"
        return False

    for service, spec in wanted.items():
        await wait_until(lambda service=service, spec=spec: is_settled(service, spec))


async def load(host: Host, seconds: float, *services: Service) -> list[Seen]:
    """What a client of each service saw, all at the same time, that kept connections busy at a steady rate and opened others."""
    argv = [*TRAFFIC, "load", *_RATES, "--seconds", str(seconds)]
    runs = (host.run([*argv, "--target", service.target], timeout_s=seconds + 30) for service in services)
    return [
        {"service": service.id, **json.loads(done.check().stdout)}
        for service, done in zip(services, await _all(runs), strict=True)
    ]


async def _all(runs: Any) -> Any:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run) for run in runs]
    return [task.result() for task in tasks]


@contextlib.asynccontextmanager
async def loading(host: Host, seconds: float, *services: Service) -> AsyncIterator[list[Seen]]:
    """Load on the services while the body runs, and for at least `seconds`: then the list has what clients saw."""
    seen: list[Seen] = []
    is_over = False

    async def load_on() -> None:
        seen.extend(await load(host, seconds, *services))
        while not is_over:
            seen.extend(await load(host, min(seconds, _MORE_S), *services))

    clients = asyncio.create_task(load_on())
    try:
        await wait_until(lambda: _is_busy(host, len(services) * _CONNECTIONS))
        yield seen
        is_over = True
        await clients
    finally:
        clients.cancel()
        await asyncio.gather(clients, return_exceptions=True)


async def _is_busy(host: Host, connections: int) -> bool:
    established = await host.run(["ss", "-Htn", "state", "established"])
    return len(established.check().stdout.splitlines()) >= connections


def check(seen: Sequence[Seen]) -> None:
    """It was as much as it must be, and nothing of it was lost."""
    for each in seen:
        assert each["kept"]["ok"] / each["seconds"] >= KEPT_ALIVE_MIN, each
        assert each["new"]["ok"] / each["seconds"] >= NEW_MIN, each
        assert (each["kept"]["errors"], each["new"]["errors"]) == ({}, {}), each


class Connection:
    """A connection that is held; whatever is asked on it fails after two seconds, as an OSError or EOFError."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self) -> str:
        """One more request on it; who answered."""
        self._writer.write(b"GET / HTTP/1.1\r\nHost: vip\r\n\r\n")
        async with asyncio.timeout(2):
            head = await self._reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
            body = await self._reader.readexactly(length)
        if not head.startswith(b"HTTP/1.1 200 "):
            raise ConnectionError(head)
        return str(json.loads(body)["backend"])

    def close(self) -> None:
        self._writer.transport.abort()


def socket_in(namespace: Path, make: Callable[[], socket.socket]) -> socket.socket:
    """What `make` makes within a network namespace."""
    fd = os.open(namespace, os.O_RDONLY)
    try:
        return netns.inside(fd, make)
    finally:
        os.close(fd)


@contextlib.asynccontextmanager
async def connected(namespace: Path, target: str) -> AsyncIterator[Connection]:
    """A connection from within a network namespace; an OSError within a second where there is none."""
    with socket_in(namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as wire:
        wire.setblocking(False)  # noqa: FBT003 - the name of the parameter is the method's
        async with asyncio.timeout(1):
            await asyncio.get_running_loop().sock_connect(wire, address.parse(target))
        connection = Connection(*await asyncio.open_connection(sock=wire))
        try:
            yield connection
        finally:
            connection.close()


async def answer(namespace: Path, target: str) -> str:
    """Who answers one request on a new connection; an OSError or EOFError where nobody does."""
    async with connected(namespace, target) as connection:
        return await connection.ask()


async def serves(namespace: Path, target: str) -> bool:
    with contextlib.suppress(OSError, EOFError):
        return bool(await answer(namespace, target))
    return False
