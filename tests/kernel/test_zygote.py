"""A zygote that is killed while somebody waits for what it was asked for. test_launcher has its end at rest."""

import os
import signal

import pytest

from crossns.testing.device import wait_until
from services.nsmanager.agent.spares import KEPT
from tests.kernel.privileged import Tree, own_loop, own_tree, process_status, spares

__all__ = ["own_loop", "own_tree"]
pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]


async def test_agent_that_a_killed_zygote_was_asked_for_is_asked_for_again_at_once(tree: Tree) -> None:
    made = await tree.create("a")
    zygote = int(process_status(made.agent_pid)["PPid"])

    async def agent_pid() -> int:
        return (await tree.namespaces())["a"].agent_pid

    async def is_asked_for() -> bool:
        return await agent_pid() == 0

    async def is_back() -> bool:
        return await agent_pid() not in {0, made.agent_pid}

    os.kill(zygote, signal.SIGSTOP)
    os.kill(made.agent_pid, signal.SIGKILL)
    await wait_until(is_asked_for)
    os.kill(zygote, signal.SIGKILL)
    # Not when the launcher would have lost its patience.
    await wait_until(is_back, timeout_s=1.5)
    await wait_until(lambda: len(spares()) == KEPT)
