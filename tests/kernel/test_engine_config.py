"""Which configuration HAProxy runs with under the launcher: what is refused, saved, on trial, and said about it."""

import asyncio
import os
import re
import signal
import tempfile
import time
from collections.abc import Sequence

import pytest

from crossns import errors, operation
from crossns.launcher import Launcher
from crossns.testing.device import wait_until
from tests.kernel.engine import (
    PORT,
    backend,
    config,
    digest,
    engines,
    held,
    is_another,
    is_served,
    lines_of,
    refused_start,
    save,
    shown,
    start,
    table,
    with_listeners,
)
from tests.kernel.privileged import LAYOUT, Tree, refusal, running_for_a_module, tree

__all__ = ["backend", "running_for_a_module", "tree"]
pytestmark = [pytest.mark.kernel, pytest.mark.needs("haproxy"), pytest.mark.asyncio(loop_scope="module")]

# What HAProxy rests before it tries again to open a listener, where it may tell its former worker to pause.
PAUSE_S = 2.0


@pytest.mark.parametrize("victim", ["master", "worker"])
@pytest.mark.parametrize("reason", ["unknown namespace", "forbidden directive", "nonsense"])
async def test_refused_configuration_leaves_the_old_one_for_good(
    tree: Tree, backend: operation.Namespace, reason: str, victim: str
) -> None:
    proxy = await tree.launcher("proxy")
    text = config(await table(tree, "front"), backend)
    before = await start(proxy, text)
    broken = {
        "unknown namespace": text.replace("namespace back.", "namespace gone."),
        # HAProxy itself would take it.
        "forbidden directive": text.replace("    maxconn", "    setenv PATH /tmp\n    maxconn"),
        "nonsense": text + "    timeout wurst 5\n",
    }[reason]
    refused = await refusal(proxy, operation.StartEngine(engine="haproxy", config=broken))
    assert (type(refused), refused.reason) == (errors.PermanentError, "ENGINE_REFUSED")
    assert len(refused.message) < 400
    after = await shown(proxy)
    assert after
    assert (after.pid, after.config_digest) == (before.pid, before.config_digest)
    assert await is_served(tree, "front")
    # What it starts with again is what it last accepted.
    os.kill(before.pid if victim == "master" else engines()[-1], signal.SIGKILL)
    await wait_until(lambda: is_another(proxy, before.pid))
    await wait_until(lambda: is_served(tree, "front"))


async def test_configuration_that_fails_only_when_it_starts_leaves_the_old_one(tree: Tree, backend: operation.Namespace) -> None:
    """An address that is in use would pass a check of the file, and fails the reload."""
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
    assert (await shown(proxy) is not None) == runs


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
    assert await shown(proxy) is None
    await wait_until(lambda: engines() == [])
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


async def test_each_configuration_that_an_engine_comes_up_with_is_told_of(tree: Tree, backend: operation.Namespace) -> None:
    """Also to those who did not ask for it, or did not hear the answer."""
    events: list[operation.Event] = []
    other = await tree.launcher("observer", on_event=events.append)
    proxy = await tree.launcher("proxy")
    text = config(await table(tree, "front"), backend)
    for wanted in (text, with_listeners(text, [8081])):
        await start(proxy, wanted)
    await save(proxy, text)
    await shown(other)
    assert [event for event in events if isinstance(event, operation.EngineReloaded)] == [
        operation.EngineReloaded(engine="haproxy")
    ] * 2


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
    assert await shown(proxy) is None
    await wait_until(lambda: engines() == [])


async def test_configurations_that_come_at_once_are_taken_one_after_the_other(tree: Tree, backend: operation.Namespace) -> None:
    proxy = await tree.launcher("proxy")
    texts = [config(await table(tree, f"front{number}"), backend) for number in range(4)]
    taken = await asyncio.gather(*(start(proxy, text) for text in texts))
    assert len({engine.pid for engine in taken}) == 1
    assert [engine.reloads - taken[0].reloads for engine in taken] == [0, 1, 2, 3]
    assert await is_served(tree, "front3")
