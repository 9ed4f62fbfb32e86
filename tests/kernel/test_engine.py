"""HAProxy under the launcher: real traffic between namespaces, and what remains of it when somebody is killed."""

import os
import signal
import socket
import time

import pytest

from crossns import operation
from crossns.launcher import Launcher
from crossns.testing.device import wait_until
from tests.kernel.engine import backend, config, digest, engines, is_another, is_served, shown, start, table
from tests.kernel.privileged import LAYOUT, Tree, process_status, running_for_a_module, tree

__all__ = ["backend", "running_for_a_module", "tree"]
pytestmark = [pytest.mark.kernel, pytest.mark.needs("haproxy"), pytest.mark.asyncio(loop_scope="module")]

# The goal for an engine that died.
BACK_MAX_S = 1.0


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
    await wait_until(lambda: is_another(proxy, before.pid))
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
    await wait_until(lambda: is_another(proxy, before.pid))
    await wait_until(lambda: is_served(tree, "front"))


async def test_engine_that_died_with_the_launcher_is_back_with_it(tree: Tree, backend: operation.Namespace) -> None:
    before = await start(await tree.launcher("proxy"), config(await table(tree, "front"), backend))
    await tree.end()
    os.kill(before.pid, signal.SIGKILL)
    await tree.start()
    await wait_until(lambda: is_served(tree, "front"))
    assert len(engines()) == 2


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


async def test_workers_that_a_reload_has_replaced_are_ended_and_never_the_current_one(
    tree: Tree, backend: operation.Namespace
) -> None:
    proxy = await tree.launcher("proxy")
    front = await table(tree, "front")
    text = config(front, backend).replace("global\n", "global\n    grace 24h\n")
    await start(proxy, text)
    old = engines()[-1]
    await start(proxy, text + "# another one\n")
    (new,) = set(engines()) - {old, (await engine_of(proxy)).pid}
    await proxy.call(operation.EndWorkers(engine="haproxy", pids=(new, (await engine_of(proxy)).pid, os.getpid())))
    assert {old, new} <= set(engines())
    await proxy.call(operation.EndWorkers(engine="haproxy", pids=(old,)))
    await wait_until(lambda: old not in engines())
    assert await is_served(tree, "front")
    assert (await engine_of(proxy)).restarts == 0


async def engine_of(proxy: Launcher) -> operation.Engine:
    found = await shown(proxy)
    assert found
    return found
