"""A proof of isolation that is broken off leaves nothing, and says what was in its way."""

import asyncio
import os
import signal

import pytest

from crossns import errors
from crossns.testing.device import Device, wait_until
from tests.kernel.test_isolation import TABLES, state, verify
from tests.kernel.view import ip

pytestmark = [pytest.mark.kernel, pytest.mark.long, pytest.mark.asyncio(loop_scope="module")]


async def test_nsmanager_that_is_killed_in_the_middle_leaves_nothing(device: Device) -> None:
    await device.apply(*TABLES)

    async def trials(table: str) -> bool:
        return any(each["ifname"].startswith("~") for each in await ip("link", table=table))

    verifying = asyncio.create_task(verify(device, "a", "b"))
    while not await trials("a"):
        assert not verifying.done()
    await device.kill("nsmanager")
    with pytest.raises(errors.TemporaryError):
        await verifying
    await wait_until(device.serves)
    # Sooner than the agents' patience ends.
    async with asyncio.timeout(10):
        while await trials("a") or await trials("b"):
            await asyncio.sleep(0.1)
    assert (await verify(device, "a", "b"))[0] == "ISOLATED"


async def test_agent_that_hangs_is_named_and_the_others_are_left_as_they_were(device: Device) -> None:
    await device.apply(*TABLES)
    before = await state("a")
    pid = device.pid("agent b")
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(errors.AgentUnavailable, match="the agent of b does not answer"):
            await verify(device, "a", "b")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert await state("a") == before
