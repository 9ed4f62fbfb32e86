"""HAProxy between two namespaces, for tests that stand where the proxy service stands: configurations, a backend, clients."""

import asyncio
import contextlib
import hashlib
import os
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest_asyncio

from crossns import errors, operation
from crossns.launcher import Launcher
from tests.kernel.privileged import LAYOUT, Tree, address, refusal, socket_in

VIP, PORT = "10.0.0.1", 8080


def config(front: operation.Namespace, back: operation.Namespace) -> str:
    return f"""\
global
    stats socket {LAYOUT.engine_dir("haproxy")}/stats.sock mode 660 level admin
    maxconn 500
defaults
    mode tcp
    timeout connect 2s
    timeout client 5s
    timeout server 5s
frontend f
    bind {VIP}:{PORT} namespace {front.table}.{front.cookie}
    default_backend b
backend b
    server s {VIP}:9090 namespace {back.table}.{back.cookie}
"""


def with_listeners(text: str, ports: Sequence[int]) -> str:
    """The same with further frontends, each with its own line for its listener."""
    front = text[text.index("frontend f") : text.index("\nbackend b") + 1]
    # Not the bare number: it may be in the cookie of the namespace, too.
    return text + "".join(
        front.replace("frontend f", f"frontend f{port}").replace(f"{VIP}:{PORT}", f"{VIP}:{port}") for port in ports
    )


def lines_of(text: str, ports: Sequence[int]) -> set[int]:
    """Numbers of the lines that open the ports."""
    return {number for number, line in enumerate(text.splitlines(), start=1) for port in ports if f"{VIP}:{port} " in line}


@contextlib.contextmanager
def held(name: str, ports: Sequence[int]) -> Iterator[None]:
    """Ports of the VIP in the table that another process listens on."""
    with contextlib.ExitStack() as stack:
        for port in ports:
            holder = stack.enter_context(socket_in(LAYOUT.netns / name, socket.AF_INET, socket.SOCK_STREAM))
            holder.bind((VIP, port))
            holder.listen()
        yield


async def table(tree: Tree, name: str) -> operation.Namespace:
    """A new namespace that has the VIP."""
    made = await tree.create(name)
    await address(await tree.agent(name), f"{VIP}/32", "lo", operation.VIP_PROTOCOL)
    return made


@pytest_asyncio.fixture(loop_scope="module")
async def backend(tree: Tree) -> AsyncIterator[operation.Namespace]:
    """A namespace in which somebody answers."""

    def say(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"backend")
        writer.close()

    made = await table(tree, "back")
    listener = await (await tree.agent("back")).open_socket(operation.OpenSocket(family="inet", kind="stream"))
    listener.bind((VIP, 9090))
    server = await asyncio.start_server(say, sock=listener)
    yield made
    server.close()
    await server.wait_closed()


async def is_served(tree: Tree, name: str, port: int = PORT) -> bool:
    """Whether a connection that is made in the table reaches the backend."""
    made = await (await tree.agent(name)).open_socket(operation.OpenSocket(family="inet", kind="stream"))
    with made, contextlib.suppress(OSError):
        async with asyncio.timeout(2):
            await asyncio.get_running_loop().sock_connect(made, (VIP, port))
            return await asyncio.get_running_loop().sock_recv(made, 64) == b"backend"
    return False


async def start(proxy: Launcher, text: str) -> operation.Engine:
    engine = await proxy.call(operation.StartEngine(engine="haproxy", config=text))
    assert isinstance(engine, operation.Engine)
    return engine


async def save(proxy: Launcher, text: str) -> operation.Engine:
    engine = await proxy.call(operation.SaveEngine(engine="haproxy", config=text))
    assert isinstance(engine, operation.Engine)
    return engine


async def refused_start(proxy: Launcher, text: str) -> errors.CrossnsError:
    return await refusal(proxy, operation.StartEngine(engine="haproxy", config=text))


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


async def shown(proxy: Launcher) -> operation.Engine | None:
    listed = await proxy.call(operation.ListEngines())
    assert isinstance(listed, operation.Engines)
    return listed.items[0] if listed.items else None


def engines() -> list[int]:
    """Pids of everything that runs under the engine's uid, masters before their workers."""
    uid = LAYOUT.uid("haproxy")
    pids = [int(entry) for entry in os.listdir("/proc") if entry.isdecimal()]
    return sorted(pid for pid in pids if Path(f"/proc/{pid}").exists() and Path(f"/proc/{pid}").stat().st_uid == uid)


async def is_another(proxy: Launcher, pid: int) -> bool:
    engine = await shown(proxy)
    return engine is not None and engine.pid not in {0, pid}
