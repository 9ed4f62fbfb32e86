"""How often nsmanager's driver looks at a route table."""

import asyncio
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from crossns import errors, operation
from crossns.layout import Layout
from services.nsmanager.driver import Device


class _Agent:
    def __init__(self, table: str, dumps: Counter[str]) -> None:
        self._table = table
        self._dumps = dumps

    async def call(self, wanted: operation.AgentOperation) -> operation.Snapshot:
        assert isinstance(wanted, operation.Dump)
        self._dumps[self._table] += 1
        await asyncio.sleep(0)
        return operation.Snapshot(cookie=1, links=(), addresses=(), routes=(), sysctls={})


class _Seeing(Device):
    """A device of which only the looks are real: `present` are there, `dumps` counts by table, `woken` are units to look at."""

    def __init__(self, *tables: str) -> None:
        nothing: Any = lambda *_: None  # noqa: E731
        self.woken: list[str] = []
        super().__init__(Layout(), operation.Token(0, 0), self.woken.append, nothing, nothing)
        self.present = list(tables)
        self.dumps: Counter[str] = Counter()

    async def _namespaces(self, table: str) -> tuple[operation.Namespace, ...]:
        wanted = [table] if table else self.present
        return tuple(operation.Namespace(table=each, cookie=1, attached=True) for each in wanted)

    async def _connected_launcher(self) -> Any:
        return SimpleNamespace(welcome=operation.Welcome(boot_id="boot", pid=1))

    async def _connected_agent(self, table: str) -> Any:
        return _Agent(table, self.dumps)


async def test_tables_that_were_seen_are_not_looked_at_to_be_listed() -> None:
    """A round for each follows, and looks."""
    device = _Seeing("a", "b")
    assert list(await device.units()) == ["routeTables/a", "routeTables/b"]
    device.present.append("c")
    assert len(list(await device.units())) == 3
    assert device.dumps == {"a": 1, "b": 1, "c": 1}


async def test_two_who_ask_at_once_what_there_is_cost_one_look() -> None:
    device = _Seeing("a", "b")
    await asyncio.gather(device.units(), device.units())
    assert device.dumps == {"a": 1, "b": 1}


async def test_agent_that_is_not_there_is_waited_for_and_in_the_end_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    device = _Seeing("default", "a")
    assert not (await device.observe("routeTables/a")).is_unseen

    async def nobody(_table: str) -> Any:
        raise errors.AgentUnavailable("AGENT_UNAVAILABLE", "nobody is there")

    with monkeypatch.context() as patch:
        patch.setattr(device, "_connected_agent", nobody)
        for _ in range(3):
            with pytest.raises(errors.AgentUnavailable):
                await device.observe("routeTables/a")
        patch.setattr("services.nsmanager.driver.device._BACK_MAX_S", 0.0)
        assert (await device.observe("routeTables/a")).is_unseen
    # Once it was seen, it is waited for again.
    assert not (await device.observe("routeTables/a")).is_unseen
    monkeypatch.setattr(device, "_connected_agent", nobody)
    monkeypatch.setattr("services.nsmanager.driver.device._BACK_MAX_S", 0.01)
    await asyncio.sleep(0.02)
    with pytest.raises(errors.AgentUnavailable):
        await device.observe("routeTables/a")


def test_first_agent_of_a_table_wakes_nobody_and_each_further_one_does() -> None:
    """Who has the table made waits for its first agent, and looks then: once is enough. What a crash hid is looked for."""
    device = _Seeing()
    for event in (operation.AgentStarted("a", 7, 0), operation.AgentExited("a", 7), operation.AgentStarted("a", 8, 1)):
        before = list(device.woken)
        device._on_launcher_event(event)
        assert device.woken[len(before) :] == ([] if event == operation.AgentStarted("a", 7, 0) else ["routeTables/a"])
