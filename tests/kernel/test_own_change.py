"""What a round of nsmanager changes itself, it does not take for somebody else's; and a look at what is known costs little."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from crossns import operation, proc
from crossns.agent import Agent
from crossns.testing.device import wait_until
from services.nsmanager.agent import observe, rtnl
from services.nsmanager.driver import Device
from services.nsmanager.launcher import session
from services.nsmanager.plan import At
from tests.kernel.privileged import LAYOUT, Tree, address, agent, bridge, dump, running_for_a_module, token, tree

__all__ = ["agent", "running_for_a_module", "tree"]
pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]

UNIT = "routeTables/a"


@contextlib.asynccontextmanager
async def _device(woken: list[str]) -> AsyncIterator[Device]:
    """nsmanager's hands; `woken` gets the units whose world has changed."""
    device = Device(LAYOUT, token(), woken.append, lambda: None, lambda *_: None)
    try:
        yield device
    finally:
        for each in (*device._agents.values(), device._launcher):
            if each is not None:
                await each.close()


async def _has_address(agent: Agent, prefix: str) -> bool:
    return prefix in [each.prefix for each in (await dump(agent)).addresses]


async def test_what_a_dump_shows_was_told_before_it(tree: Tree, agent: Agent) -> None:
    events: list[operation.Event] = []
    listening = await tree.agent("a", on_event=events.append)
    await bridge(listening)
    await dump(listening)
    for number in range(1, 10):
        events.clear()
        await address(listening, f"10.0.0.{number}/24")
        await dump(listening)
        assert [event for event in events if isinstance(event, operation.Changed)]


async def test_own_change_wakes_nobody_and_a_strangers_does(tree: Tree) -> None:
    await tree.create("a")
    woken: list[str] = []
    async with _device(woken) as device:
        added = operation.AddAddress(link="lo", prefix="10.0.0.1/32", protocol=operation.VIP_PROTOCOL)
        await device.observe(UNIT)
        await device.observe(UNIT)
        woken.clear()
        await device.apply(At(UNIT, "a", added))
        observed = await device.observe(UNIT)
        assert observed.snapshot is not None
        assert "10.0.0.1/32" in [each.prefix for each in observed.snapshot.addresses]
        # Long after the agent would have said it.
        await asyncio.sleep(0.1)
        assert woken == []
        (await proc.run(["ip", "-netns", "a", "address", "add", "10.0.0.2/32", "dev", "lo"])).check()
        await wait_until(lambda: UNIT in woken)


async def test_address_that_is_as_it_was_is_not_decoded_again(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    original = rtnl.decoded

    def counted(kind: int, received: bytes, offset: int = 0) -> object:
        decoded.append(kind)
        return original(kind, received, offset)

    monkeypatch.setattr(rtnl, "decoded", counted)
    own = rtnl.Rtnl(session.Tally())
    names = {link.index: link.name for link in observe.links(own)}

    def look() -> tuple[set[str], int]:
        decoded.clear()
        return {each.prefix for each in observe.addresses(own, names)}, len(decoded)

    before, _ = look()
    try:
        (
            await proc.run(["ip", "-batch", "-"], stdin="\n".join(f"address add 10.9.0.{n}/32 dev lo" for n in range(1, 51)))
        ).check()
        added = {f"10.9.0.{n}/32" for n in range(1, 51)}
        assert look() == (before | added, 50)
        assert look() == (before | added, 0)
        (await proc.run(["ip", "address", "del", "10.9.0.1/32", "dev", "lo"])).check()
        assert look() == (before | added - {"10.9.0.1/32"}, 0)
        # What is gone is not kept.
        assert sum(map(len, own._memory.values())) == len(before | added) - 1
    finally:
        (await proc.run(["ip", "address", "flush", "dev", "lo", "to", "10.9.0.0/24"])).check()
        own.close()
