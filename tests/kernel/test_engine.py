"""HAProxy under the launcher: real traffic between namespaces, and what remains of it when somebody is killed or refused."""

import asyncio
import contextlib
import hashlib
import os
import re
import signal
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from crossns import errors, operation
from crossns.launcher import Launcher
from crossns.testing.device import wait_until
from tests.kernel.privileged import LAYOUT, Tree, address, process_status, refusal, running_for_a_module, socket_in, tree

__all__ = ["running_for_a_module", "tree"]
pytestmark = [pytest.mark.kernel, pytest.mark.needs("haproxy"), pytest.mark.asyncio(loop_scope="module")]

VIP, PORT = "10.0.0.1", 8080
# The goal for an engine that died.
BACK_MAX_S = 1.0
# What HAProxy rests before it tries again to open a listener, where it may tell its former worker to pause.
PAUSE_S = 2.0


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
    return text + "".join(front.replace("frontend f", f"frontend f{port}").replace(str(PORT), str(port)) for port in ports)


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


async def test_traffic_crosses_from_a_namespace_that_is_younger_than_the_engine(tree: Tree, backend: operation.Namespace) -> None:
    proxy = await tree.launcher("proxy")
    first = await start(proxy, config(await table(tree, "old"), backend))
    assert await is_served(tree, "old")
    text = config(await table(tree, "young"), backend)
    second = await start(proxy, text)
    assert (second.pid, second.reloads) == (first.pid, first.reloads + 1)
    assert second.config_digest == digest(text)
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
    second = with_listeners(text, [8081])
    with held("front", [8081]):
        assert (await refused_start(proxy, second)).reason == "ENGINE_REFUSED"
        after = await shown(proxy)
        assert after
        assert (after.pid, after.config_digest) == (before.pid, before.config_digest)
        assert await is_served(tree, "front")
    assert (await start(proxy, second)).pid == before.pid


@pytest.mark.parametrize("count", [1, 5, 70])
@pytest.mark.parametrize("runs", [True, False])
async def test_every_listener_that_cannot_be_opened_is_named_at_once(
    tree: Tree, backend: operation.Namespace, count: int, *, runs: bool
) -> None:
    proxy = await tree.launcher("proxy")
    text = config(await table(tree, "front"), backend)
    if runs:
        await start(proxy, text)
    taken = range(9000, 9000 + count)
    broken = with_listeners(text, [8081, *taken, 8082])
    with held("front", taken):
        began = time.monotonic()
        refused = await refused_start(proxy, broken)
        assert time.monotonic() - began < PAUSE_S
    assert (type(refused), refused.reason) == (errors.PermanentError, "ENGINE_REFUSED")
    named = {int(number) for number in re.findall(r"Binding \[[^]]*:(\d+)\]", refused.message)}
    assert named == lines_of(broken, taken)
    assert "Address already in use" in refused.message
    assert (await shown(proxy) is not None) == runs == bool(engines())


async def test_words_of_an_engine_reach_the_answer_and_the_log_of_a_later_launcher(
    tree: Tree, backend: operation.Namespace
) -> None:
    text = config(await table(tree, "front"), backend)
    await start(await tree.launcher("proxy"), text)
    await tree.end()
    with tempfile.TemporaryFile("w+") as log, held("front", [8081]):
        await tree.start(log.fileno())
        refused = await refused_start(await tree.launcher("proxy"), with_listeners(text, [8081]))
        assert "Binding [" in refused.message
        log.seek(0)
        assert "haproxy: [ALERT]" in log.read()


async def test_first_configuration_that_fails_when_it_starts_leaves_no_engine(tree: Tree, backend: operation.Namespace) -> None:
    proxy = await tree.launcher("proxy")
    text = config(await table(tree, "front"), backend)
    with held("front", [PORT]):
        await refused_start(proxy, text)
    assert (await shown(proxy), engines()) == (None, [])
    await start(proxy, text)
    assert await is_served(tree, "front")


@pytest.mark.parametrize("taken", [(8081,), ()])
async def test_launcher_that_died_during_a_reload_finds_out_how_it_went(
    tree: Tree, backend: operation.Namespace, taken: Sequence[int]
) -> None:
    proxy = await tree.launcher("proxy")
    text = config(await table(tree, "front"), backend)
    before = await start(proxy, text)
    second = with_listeners(text, [8081])
    with held("front", taken):
        # A master that does not answer keeps the launcher waiting.
        os.kill(before.pid, signal.SIGSTOP)
        asked = asyncio.ensure_future(start(proxy, second))
        await wait_until(lambda: digest(second) == on_trial())
        await tree.end()
        assert isinstance((await asyncio.gather(asked, return_exceptions=True))[0], errors.TemporaryError)
        os.kill(before.pid, signal.SIGCONT)
        await tree.start()
        proxy = await tree.launcher("proxy")
        await wait_until(lambda: _is_settled(proxy))
    after = await shown(proxy)
    assert after
    assert (after.pid, after.config_digest) == (before.pid, digest(text if taken else second))
    assert await is_served(tree, "front", PORT if taken else 8081)


def on_trial() -> str:
    """Digest of the configuration that the engine is to come up with, "" where none is on trial."""
    path = LAYOUT.engine_dir("haproxy").with_name("haproxy.cfg")
    return digest(path.read_text()) if path.with_suffix(".former").exists() else ""


async def _is_settled(proxy: Launcher) -> bool:
    return not on_trial() and isinstance(await proxy.call(operation.ListEngines()), operation.Engines)


async def test_saved_configuration_counts_from_the_next_start_on(tree: Tree, backend: operation.Namespace) -> None:
    proxy = await tree.launcher("proxy")
    text = config(await table(tree, "front"), backend)
    before, running = await start(proxy, text), engines()
    second = with_listeners(text, [8081])
    saved = await save(proxy, second)
    assert (saved.pid, saved.reloads, saved.config_digest) == (before.pid, before.reloads, digest(second))
    assert await shown(proxy) == saved
    assert engines() == running
    assert [await is_served(tree, "front", port) for port in (PORT, 8081)] == [True, False]
    os.kill(before.pid, signal.SIGKILL)
    await wait_until(lambda: is_served(tree, "front", 8081))
    assert await is_served(tree, "front")


async def test_saved_configuration_starts_the_engine_where_none_runs(tree: Tree, backend: operation.Namespace) -> None:
    proxy = await tree.launcher("proxy")
    text = config(await table(tree, "front"), backend)
    with held("front", [PORT]):
        refused = await refusal(proxy, operation.SaveEngine(engine="haproxy", config=text))
        assert "Binding [" in refused.message
    saved = await save(proxy, text)
    assert saved.pid in engines()
    assert await is_served(tree, "front")


@pytest.mark.parametrize("line", ["    timeout wurst 5\n", "program x\n"])
async def test_configuration_that_is_refused_is_not_saved(tree: Tree, backend: operation.Namespace, line: str) -> None:
    proxy = await tree.launcher("proxy")
    text = config(await table(tree, "front"), backend)
    before = await start(proxy, text)
    assert (await refusal(proxy, operation.SaveEngine(engine="haproxy", config=text + line))).reason == "ENGINE_REFUSED"
    assert await shown(proxy) == before


async def test_what_is_asked_for_at_once_is_done_in_its_order(tree: Tree, backend: operation.Namespace) -> None:
    proxy = await tree.launcher("proxy")
    text = config(await table(tree, "front"), backend)
    texts = [with_listeners(text, range(8081, 8081 + number)) for number in range(4)]
    asked = [start(proxy, texts[0]), save(proxy, texts[1]), start(proxy, texts[2]), save(proxy, texts[3])]
    done = await asyncio.gather(*asked)
    assert [engine.config_digest for engine in done] == [digest(each) for each in texts]
    assert [engine.reloads - done[0].reloads for engine in done] == [0, 0, 1, 1]
    assert [await is_served(tree, "front", port) for port in (8081, 8082, 8083)] == [True, True, False]
    stopped = proxy.call(operation.StopEngine(engine="haproxy"))
    await asyncio.gather(start(proxy, texts[1]), stopped)
    assert (await shown(proxy), engines()) == (None, [])


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
        assert (status["NoNewPrivs"], status["Seccomp"], status["Uid"]) == ("1", "2", str(LAYOUT.uid("haproxy")))
    master = LAYOUT.haproxy_master.stat()
    assert (master.st_gid, master.st_mode & 0o777) == (LAYOUT.uid("proxy"), 0o660)
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(os.fspath(LAYOUT.haproxy_master))
