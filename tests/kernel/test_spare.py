"""Agents that wait for a table: each is given to one at most, and holds nothing of any before. test_launcher has their end."""

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from crossns import netns
from crossns.testing.device import wait_until
from services.nsmanager.agent.spares import KEPT
from tests.kernel.privileged import LAYOUT, Tree, running, spares

pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="shared")
async def started_tree() -> AsyncIterator[Tree]:
    async with running() as tree:
        # Before the first test counts what it leaves.
        await wait_until(lambda: len(spares()) == KEPT)
        yield tree


@pytest_asyncio.fixture(loop_scope="module")
async def tree(shared: Tree) -> AsyncIterator[Tree]:
    """With all of its spares."""
    await wait_until(lambda: len(spares()) == KEPT)
    yield shared
    await shared.clear()


def open_namespaces(pid: int) -> set[str]:
    links = (os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir())
    return {link for link in links if link.startswith("net:")}


async def test_spare_becomes_the_agent_of_a_table_and_another_one_takes_its_place(tree: Tree) -> None:
    waiting = spares()
    made = await tree.create("a")
    assert made.agent_pid in waiting
    assert (await tree.dump("a")).cookie == made.cookie
    await wait_until(lambda: len(spares()) == KEPT)
    assert made.agent_pid not in spares()


async def test_agent_that_ended_is_followed_by_a_spare(tree: Tree) -> None:
    made = await tree.create("a")
    waiting = spares()
    os.kill(made.agent_pid, signal.SIGKILL)

    async def next_agent() -> int:
        return (await tree.namespaces())["a"].agent_pid

    async def is_back() -> bool:
        return await next_agent() not in {0, made.agent_pid}

    await wait_until(is_back)
    assert await next_agent() in waiting
    assert (await tree.dump("a")).cookie == made.cookie


async def test_agent_keeps_nothing_of_the_time_in_which_it_was_nobodys(tree: Tree) -> None:
    (one, *_) = spares()
    nobody = os.readlink(f"/proc/{one}/ns/net")
    made = await tree.create("a")
    own, default = os.readlink(f"/proc/{made.agent_pid}/ns/net"), os.readlink("/proc/self/ns/net")
    assert nobody not in {own, default}
    assert open_namespaces(made.agent_pid) == {default}
    assert netns.is_same(Path(f"/proc/{made.agent_pid}/ns/net"), LAYOUT.incarnations / f"a.{made.cookie}")
    await wait_until(lambda: not list((LAYOUT.launcher_dir / "rehearsals").glob("*.sock")))


async def test_spares_that_were_killed_delay_no_table(tree: Tree) -> None:
    for pid in spares():
        os.kill(pid, signal.SIGKILL)
    await wait_until(lambda: not spares())
    # What is not there by then is asked for once more only 2 s later.
    made = await tree.create("a")
    assert made.agent_restarts == 0
    await wait_until(lambda: len(spares()) == KEPT)
