"""HAProxy under the launcher: real traffic between namespaces, and what remains of it when somebody is killed or refused."""

import asyncio
import contextlib
import hashlib
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from crossns import errors, operation
from crossns.launcher import Launcher
from crossns.testing.device import wait_until
from tests.kernel.privileged import LAYOUT, Tree, address, process_status, refusal, running_for_a_module, tree

__all__ = ["running_for_a_module", "tree"]
pytestmark = [pytest.mark.kernel, pytest.mark.needs("haproxy"), pytest.mark.asyncio(loop_scope="module")]

VIP, PORT = "10.0.0.1", 8080
# The goal for an engine that died.
BACK_MAX_S = 1.0


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


async def is_served(tree: Tree, name: str) -> bool:
    """Whether a connection that is made in the table reaches the backend."""
    made = await (await tree.agent(name)).open_socket(operation.OpenSocket(family="inet", kind="stream"))
    with made, contextlib.suppress(OSError):
        async with asyncio.timeout(2):
            await asyncio.get_running_loop().sock_connect(made, (VIP, PORT))
            return await asyncio.get_running_loop().sock_recv(made, 64) == b"backend"
    return False


async def start(proxy: Launcher, text: str) -> operation.Engine:
    engine = await proxy.call(operation.StartEngine(engine="haproxy", config=text))
    assert isinstance(engine, operation.Engine)
    return engine


async def shown(proxy: Launcher) -> operation.Engine | None:
    listed = await proxy.call(operation.ListEngines())
    assert isinstance(listed, operation.Engines)
    return listed.items[0] if listed.items else None


def engines() -> list[int]:
    """Pids of everything that runs under the engine's uid, masters before their workers."""
    uid = LAYOUT.uid("haproxy")
    pids = [int(entry) for entry in os.listdir("/proc") if entry.isdecimal()]
    return sorted(pid for pid in pids if Path(f"/proc/{pid}").exists() and Path(f"/proc/{pid}").stat().st_uid == uid)


async def test_traffic_crosses_from_a_namespace_that_is_younger_than_the_engine(tree: Tree, backend: operation.Namespace) -> None:
    proxy = await tree.launcher("proxy")
    first = await start(proxy, config(await table(tree, "old"), backend))
    assert await is_served(tree, "old")
    text = config(await table(tree, "young"), backend)
    second = await start(proxy, text)
    assert (second.pid, second.reloads) == (first.pid, first.reloads + 1)
    assert second.config_digest == hashlib.sha256(text.encode()).hexdigest()
    assert await is_served(tree, "young")


async def test_same_name_of_another_incarnation_is_another_namespace(tree: Tree, backend: operation.Namespace) -> None:
    proxy = await tree.launcher("proxy")
    await start(proxy, config(await table(tree, "front"), backend))
    assert await is_served(tree, "front")
    await (await tree.launcher()).call(operation.DestroyNamespace(table="front"))
    await start(proxy, config(await table(tree, "front"), backend))
    assert await is_served(tree, "front")


@pytest.mark.parametrize("which", ["master", "worker"])
async def test_killed_engine_is_back_within_a_second(tree: Tree, backend: operation.Namespace, which: str) -> None:
    events: list[operation.Event] = []
    proxy = await tree.launcher("proxy", on_event=events.append)
    before = await start(proxy, config(await table(tree, "front"), backend))
    await wait_until(lambda: is_served(tree, "front"))
    victim = before.pid if which == "master" else engines()[-1]
    began = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    await wait_until(lambda: any(isinstance(event, operation.EngineExited) for event in events))
    await wait_until(lambda: is_served(tree, "front"))
    assert time.monotonic() - began < BACK_MAX_S
    after = await shown(proxy)
    assert after
    assert (after.restarts, after.config_digest) == (before.restarts + 1, before.config_digest)
    # Nobody is left of the former one.
    assert len(engines()) == 2


async def test_engine_that_lost_its_master_leaves_no_worker_behind(tree: Tree, backend: operation.Namespace) -> None:
    """A worker that cannot notice the death of its master, because it is stopped, goes nevertheless."""
    proxy = await tree.launcher("proxy")
    before = await start(proxy, config(await table(tree, "front"), backend))
    worker = engines()[-1]
    os.kill(worker, signal.SIGSTOP)
    os.kill(before.pid, signal.SIGKILL)
    await wait_until(lambda: _is_another(proxy, before.pid))
    await wait_until(lambda: worker not in engines())


async def test_engine_outlives_the_launcher_and_is_adopted(tree: Tree, backend: operation.Namespace) -> None:
    before = await start(await tree.launcher("proxy"), config(await table(tree, "front"), backend))
    await tree.end()
    assert await is_served(tree, "front")
    await tree.start()
    proxy = await tree.launcher("proxy")
    after = await shown(proxy)
    assert after
    assert (after.pid, after.config_digest) == (before.pid, before.config_digest)
    os.kill(before.pid, signal.SIGKILL)
    await wait_until(lambda: _is_another(proxy, before.pid))
    await wait_until(lambda: is_served(tree, "front"))


async def _is_another(proxy: Launcher, pid: int) -> bool:
    engine = await shown(proxy)
    return engine is not None and engine.pid not in {0, pid}


async def test_engine_that_died_with_the_launcher_is_back_with_it(tree: Tree, backend: operation.Namespace) -> None:
    before = await start(await tree.launcher("proxy"), config(await table(tree, "front"), backend))
    await tree.end()
    os.kill(before.pid, signal.SIGKILL)
    await tree.start()
    await wait_until(lambda: is_served(tree, "front"))
    assert len(engines()) == 2


@pytest.mark.parametrize("reason", ["unknown namespace", "forbidden directive", "nonsense"])
async def test_refused_configuration_leaves_the_old_one_for_good(tree: Tree, backend: operation.Namespace, reason: str) -> None:
    proxy = await tree.launcher("proxy")
    text = config(await table(tree, "front"), backend)
    before = await start(proxy, text)
    broken = {
        "unknown namespace": text.replace("namespace back.", "namespace gone."),
        "forbidden directive": text + "program x\n    command /bin/true\n",
        "nonsense": text + "    timeout wurst 5\n",
    }[reason]
    refused = await refusal(proxy, operation.StartEngine(engine="haproxy", config=broken))
    assert (type(refused), refused.reason) == (errors.PermanentError, "ENGINE_REFUSED")
    assert len(refused.message) < 400
    assert await shown(proxy) == before
    assert await is_served(tree, "front")
    # What it starts with again is what it last accepted.
    os.kill(before.pid, signal.SIGKILL)
    await wait_until(lambda: _is_another(proxy, before.pid))
    await wait_until(lambda: is_served(tree, "front"))


async def test_configuration_that_fails_only_when_it_starts_leaves_the_old_one(tree: Tree, backend: operation.Namespace) -> None:
    """An address that is in use passes the check and fails the reload."""
    proxy = await tree.launcher("proxy")
    text = config(await table(tree, "front"), backend)
    before = await start(proxy, text)
    taken = await (await tree.agent("front")).open_socket(operation.OpenSocket(family="inet", kind="stream"))
    with taken:
        taken.bind((VIP, 8081))
        taken.listen()
        front = text[text.index("frontend f") : text.index("\nbackend b") + 1]
        second = text + front.replace("frontend f", "frontend g").replace("8080", "8081")
        assert (await refusal(proxy, operation.StartEngine(engine="haproxy", config=second))).reason == "ENGINE_REFUSED"
        after = await shown(proxy)
        assert after
        assert (after.pid, after.config_digest) == (before.pid, before.config_digest)
        assert await is_served(tree, "front")
    assert (await start(proxy, second)).pid == before.pid


async def test_stopped_engine_stays_away(tree: Tree, backend: operation.Namespace) -> None:
    proxy = await tree.launcher("proxy")
    await start(proxy, config(await table(tree, "front"), backend))
    for _ in range(2):
        await proxy.call(operation.StopEngine(engine="haproxy"))
    await wait_until(lambda: engines() == [])
    assert await shown(proxy) is None
    await tree.end(signal.SIGTERM)
    await tree.start()
    assert await shown(await tree.launcher("proxy")) is None
    assert engines() == []


async def test_configurations_that_come_at_once_are_taken_one_after_the_other(tree: Tree, backend: operation.Namespace) -> None:
    proxy = await tree.launcher("proxy")
    texts = [config(await table(tree, f"front{number}"), backend) for number in range(4)]
    taken = await asyncio.gather(*(start(proxy, text) for text in texts))
    assert len({engine.pid for engine in taken}) == 1
    assert [engine.reloads - taken[0].reloads for engine in taken] == [0, 1, 2, 3]
    assert await is_served(tree, "front3")


async def test_engine_runs_with_two_capabilities_under_its_own_uid(tree: Tree, backend: operation.Namespace) -> None:
    await start(await tree.launcher("proxy"), config(await table(tree, "front"), backend))
    # CAP_NET_BIND_SERVICE and CAP_SYS_ADMIN.
    kept = f"{1 << 10 | 1 << 21:016x}"
    for pid in engines():
        status = process_status(pid)
        assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {kept}
        assert (status["NoNewPrivs"], status["Uid"]) == ("1", str(LAYOUT.uid("haproxy")))
    master = LAYOUT.haproxy_master.stat()
    assert (master.st_gid, master.st_mode & 0o777) == (LAYOUT.uid("proxy"), 0o660)
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(os.fspath(LAYOUT.haproxy_master))
