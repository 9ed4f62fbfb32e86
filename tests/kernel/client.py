"""Raw clients and servers in the lab's hosts, spoken to by the test itself: connections that are held, half closed, or begin with
what no usual client says. Test modules import the fixture `dial`; such tests share their module's event loop.
"""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

import pytest_asyncio

from crossns.testing.device import Device, doc, wait_until
from crossns.testing.lab import Host
from crossns.testing.traffic import address
from tests.kernel.privileged import socket_in
from tests.kernel.test_proxy import TRAFFIC, engine, frontend

VIP, VIP6 = "203.0.113.10", "2001:db8:1::10"
# What a loaded machine may take for what usually takes milliseconds.
PATIENCE_S = 10.0
REQUEST = b"GET / HTTP/1.1\r\nHost: vip\r\n\r\n"
# Nothing else that a client meets is an end: neither silence nor half an answer.
_ENDS = (ConnectionError, asyncio.IncompleteReadError)

Answer = dict[str, str]


class Client:
    """One connection. Whatever is asked fails after PATIENCE_S."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        local: tuple[Any, ...] = writer.get_extra_info("sockname")
        self.local = address.render(*local[:2])

    async def ask(self) -> Answer:
        """One more request on this connection, and who answered it; it must be answered well."""
        self.send()
        return await self.answered()

    def send(self, request: bytes = REQUEST) -> None:
        self.writer.write(request)

    async def answer(self) -> tuple[int, bytes]:
        """Status and body of the next answer."""
        async with asyncio.timeout(PATIENCE_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]
            return int(head.split(b" ", 2)[1]), await self.reader.readexactly(int(length))

    async def answered(self) -> Answer:
        """What a backend of the lab tells in the next answer."""
        status, body = await self.answer()
        assert status == 200, (status, body)
        answer: Answer = json.loads(body)
        return answer

    async def is_left_waiting(self, for_s: float) -> bool:
        """Whether nothing comes for so long, neither an answer nor the end."""
        try:
            async with asyncio.timeout(for_s):
                await self.reader.readuntil(b"\r\n\r\n")
        except TimeoutError:
            return True
        except _ENDS:
            return False
        return False

    async def name(self) -> str:
        return (await self.ask())["backend"]

    async def is_kept(self) -> bool:
        """Whether another request is answered, rather than the connection found closed."""
        with contextlib.suppress(*_ENDS):
            await self.ask()
            return True
        return False

    async def ended(self) -> bytes:
        """What comes until the other side ends the connection."""
        received = b""
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(ConnectionError):
                while piece := await self.reader.read(65536):
                    received += piece
        return received

    async def finish(self) -> None:
        """End it as a well-behaved client does: once the other side has said so too, nobody counts it any more."""
        with contextlib.suppress(OSError):
            self.writer.write_eof()
        await self.ended()
        await self.close()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


class Dial(Protocol):
    """Connects from a host to `address[:port]`, from a source address of choice; `first` is sent before anything else."""

    async def __call__(self, host: Host, target: str, *, source: str = "", first: bytes = b"") -> Client: ...


@pytest_asyncio.fixture(loop_scope="module")
async def dial() -> AsyncIterator[Dial]:
    async with contextlib.AsyncExitStack() as stack:

        async def connect(host: Host, target: str, *, source: str = "", first: bytes = b"") -> Client:
            where, port = address.parse(target) if _has_port(target) else (target, 80)
            family = socket.AF_INET6 if ":" in where else socket.AF_INET
            wire = stack.enter_context(socket_in(host.namespace, family, socket.SOCK_STREAM))
            wire.setblocking(False)  # noqa: FBT003 - the name of the parameter is the method's
            if source:
                wire.bind((source, 0))
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.get_running_loop().sock_connect(wire, (where, port))
            client = Client(*await asyncio.open_connection(sock=wire))
            stack.push_async_callback(client.close)
            client.writer.write(first)
            return client

        yield connect


def _has_port(target: str) -> bool:
    return target.startswith("[") or target.count(":") == 1


@contextlib.asynccontextmanager
async def served(
    host: Host, where: str, serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
) -> AsyncIterator[None]:
    """A server of the test's own on `address:port` of a host."""
    with socket_in(host.namespace, socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(address.parse(where))
        async with await asyncio.start_server(serve, sock=listener, limit=1 << 20):
            yield


async def backend(host: Host, name: str, *listen: str, expects_header: bool = False) -> None:
    """A backend of the lab that calls itself `name`, listening."""
    where = [part for each in listen for part in ("--listen", each)]
    flags = ["--proxy-protocol"] if expects_header else []
    process = await host.start([*TRAFFIC, "serve", *where, "--name", name, *flags])
    assert process.stdout is not None
    assert b"listening" in await process.stdout.readline()


def single(
    *members: dict[str, Any],
    protocol: str = "TCP",
    entry: dict[str, Any] | None = None,
    pool: dict[str, Any] | None = None,
    **spec: Any,
) -> str:
    """vServices/web: one frontend in `dmz` and one pool; `entry` and `pool` are what else their messages hold."""
    fe = frontend("dmz", "dmz", VIP) | (entry or {})
    po = {"name": "main", "members": [*members], **(pool or {})}
    return doc("vServices/web", protocol=protocol, frontends=[fe], pools=[po], **spec)


async def reloads(device: Device) -> int:
    return (await engine(device)).reloads


async def killed(device: Device) -> None:
    """HAProxy, and back again from the file that the launcher keeps."""
    before = (await engine(device)).restarts
    await device.kill("haproxy")

    async def is_back() -> bool:
        return (await engine(device)).restarts > before

    await wait_until(is_back)
