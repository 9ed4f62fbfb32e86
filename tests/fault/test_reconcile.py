"""The loop's promises, with a real etcd, a toy device and toy rooms: tables that want to be in a set of names."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from signal import SIGCONT, SIGSTOP
from typing import Any

import pytest
from google.protobuf import json_format

from crossns import cache, errors, names, resource, store
from crossns.etcd.client import EtcdStore
from crossns.leader import Fenced
from crossns.reconcile import Reconciler, Rooms
from crossns.registry import Options, Registry
from crossns.testing import etcd
from crossns.v1 import route_table_pb2, status_pb2
from services.nsmanager import servicer

KEYS = names.Keys("local", "nsmanager")
OnApply = Callable[[], Awaitable[None]]
pytestmark = pytest.mark.fault


@dataclass(frozen=True)
class Step:
    resource: str
    add: bool


@dataclass
class World:
    wanted: dict[str, int] = field(default_factory=dict)
    leaving: set[str] = field(default_factory=set)

    def change(self, change: store.Change) -> Iterable[str]:
        parsed = KEYS.parse(change.key)
        if parsed is None or parsed[1] != "desired":
            return ()
        name = parsed[2]
        self.wanted.pop(name, None)
        self.leaving.discard(name)
        if change.entry is not None:
            message = resource.load("routeTables", change.entry.value)
            if message.HasField("delete_time"):
                self.leaving.add(name)
            else:
                self.wanted[name] = message.generation
        return (name,)

    def units(self) -> Iterable[str]:
        return [*self.wanted, *self.leaving]

    def resources(self, unit: str) -> Iterable[str]:
        return (unit,) if unit in self.wanted else ()

    def desired(self, unit: str) -> tuple[str, int | None, bool]:
        return unit, self.wanted.get(unit), unit in self.leaving


@dataclass
class Device:
    present: set[str] = field(default_factory=set)
    applied: list[Step] = field(default_factory=list)
    failing: dict[str, list[errors.CrossnsError]] = field(default_factory=dict)
    slow: dict[str, asyncio.Event] = field(default_factory=dict)
    on_apply: OnApply | None = None

    async def units(self) -> Iterable[str]:
        return set(self.present)

    async def observe(self, unit: str) -> bool:
        if unit in self.slow:
            await self.slow[unit].wait()
        return unit in self.present

    async def apply(self, op: Step) -> None:
        if self.on_apply is not None:
            await self.on_apply()
        self.applied.append(op)
        if self.failing.get(op.resource):
            raise self.failing[op.resource].pop(0)
        (self.present.add if op.add else self.present.discard)(op.resource)


def plan(desired: tuple[str, int | None, bool], observed: bool) -> tuple[Step, ...]:
    unit, generation, _ = desired
    return () if observed == (generation is not None) else (Step(unit, add=not observed),)


def report(
    desired: tuple[str, int | None, bool],
    observed: bool,
    failures: Mapping[str, errors.CrossnsError],
    _previous: Mapping[str, resource.Status],
) -> Mapping[str, resource.Status | None]:
    unit, generation, leaving = desired
    if generation is not None:
        state = status_pb2.STATE_READY if observed else status_pb2.STATE_ERROR
        reason = failures[unit].reason if unit in failures else "OK"
        return {
            unit: route_table_pb2.RouteTableStatus(
                observed_generation=generation, state=state, conditions=[resource.condition("Present", "nsmanager", reason)]
            )
        }
    return {unit: None} if leaving and not observed else {}


class Process:
    """One service process: its own view of the store, one device shared with others."""

    def __init__(self, backend: store.Store, device: Device, fence: store.CreatedAt, on_apply: OnApply | None = None) -> None:
        self.cache = cache.Cache(backend, KEYS.device_prefix)
        self.registries = servicer.registries(backend, KEYS)
        self.device = device
        device.on_apply = on_apply
        rooms = Rooms(World(), plan, report, device)
        self.loop: Reconciler[tuple[str, int | None, bool], bool, Step] = Reconciler(
            rooms, backend, self.cache, KEYS, fence, self.registries
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Process"]:
        tasks = [asyncio.create_task(self.cache.run()), asyncio.create_task(self.loop.run())]
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def lead(backend: store.Store) -> store.CreatedAt:
    with contextlib.suppress(store.Conflict):
        await backend.commit([], [store.Delete(KEYS.leader)])
    return store.CreatedAt(KEYS.leader, await backend.commit([], [store.Put(KEYS.leader, b"test")]))


def table(name: str, **spec: object) -> route_table_pb2.RouteTable:
    return json_format.ParseDict({"name": f"routeTables/{name}", "spec": spec}, route_table_pb2.RouteTable())


async def wait_until_state(tables: Registry, name: str, state: status_pb2.State.ValueType) -> resource.Resource:
    async with asyncio.timeout(10):
        while True:
            found = await tables.get(f"routeTables/{name}")
            if found.status.state == state:
                return found
            await asyncio.sleep(0.01)


async def wait_until_gone(tables: Registry, name: str) -> None:
    async with asyncio.timeout(10):
        with contextlib.suppress(errors.NotFound):
            while True:
                await tables.get(f"routeTables/{name}")
                await asyncio.sleep(0.01)


async def test_what_is_wanted_becomes_real_and_what_is_deleted_goes(backend: EtcdStore) -> None:
    device = Device()
    async with Process(backend, device, await lead(backend)).running() as process:
        tables = process.registries["routeTables"]
        await tables.create(table("a"), Options())
        found = await wait_until_state(tables, "a", status_pb2.STATE_READY)
        assert not found.reconciling
        assert device.present == {"routeTables/a"}
        await tables.delete("routeTables/a", Options())
        await wait_until_gone(tables, "a")
        assert device.present == set()


async def test_deleted_resource_goes_as_soon_as_another_service_clears_its_part(backend: EtcdStore) -> None:
    device = Device()
    other = KEYS.of("proxy").status("routeTables/a")
    async with Process(backend, device, await lead(backend)).running() as process:
        tables = process.registries["routeTables"]
        await tables.create(table("a"), Options())
        await wait_until_state(tables, "a", status_pb2.STATE_READY)
        await backend.commit([], [store.Put(other, b"")])
        await tables.delete("routeTables/a", Options())
        await wait_until(lambda: device.present == set())
        await asyncio.sleep(0.2)
        await tables.get("routeTables/a")
        await backend.commit([], [store.Delete(other)])
        await wait_until_gone(tables, "a")


async def test_process_that_dies_after_any_step_is_taken_over_without_a_trace(backend: EtcdStore) -> None:
    """Cut a creation and a deletion after each effect in turn, on device or store: the next process finishes it."""
    for creating in (True, False):
        for cut in range(1, 9):
            device = Device()
            async with Process(backend, device, await lead(backend)).running() as process:
                tables = process.registries["routeTables"]
                if not creating:
                    await tables.create(table("a"), Options())
                    await wait_until_state(tables, "a", status_pb2.STATE_READY)
            mortal = Mortal(backend, cut)
            async with Process(mortal, device, await lead(backend), on_apply=mortal.effect).running():
                if creating:
                    await tables.create(table("a"), Options())
                else:
                    await tables.delete("routeTables/a", Options())
                await asyncio.wait({asyncio.ensure_future(mortal.died.wait())}, timeout=0.3)
            async with Process(backend, device, await lead(backend)).running():
                if creating:
                    await wait_until_state(tables, "a", status_pb2.STATE_READY)
                    await tables.delete("routeTables/a", Options())
                await wait_until_gone(tables, "a")
            left = [entry.key for entry in (await backend.list(KEYS.device_prefix)).entries if "routeTables/a" in entry.key]
            assert (left, device.present) == ([], set())


class Mortal:
    """A store that dies with its `cut`-th effect, done or not: whoever uses it waits for ever."""

    def __init__(self, backend: EtcdStore, cut: int) -> None:
        self._backend, self._left = backend, cut
        self.died = asyncio.Event()

    async def effect(self) -> None:
        self._left -= 1
        if self._left < 0:
            self.died.set()
            await asyncio.get_running_loop().create_future()

    async def commit(self, compares: Sequence[store.Compare], effects: Sequence[store.Effect]) -> int:
        await self.effect()
        revision = await self._backend.commit(compares, effects)
        await self.effect()
        return revision

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)


async def test_device_has_nothing_before_its_status_part_is_in_the_store(backend: EtcdStore) -> None:
    """A deletion knows whom it waits for, whenever the process dies."""
    device = Device()
    parts_at_apply: list[bool] = []

    class Watching(Device):
        async def apply(self, op: Step) -> None:
            parts_at_apply.append(await backend.get(KEYS.status(op.resource)) is not None)
            await Device.apply(self, op)

    device = Watching()
    async with Process(backend, device, await lead(backend)).running() as process:
        await process.registries["routeTables"].create(table("a"), Options())
        await wait_until_state(process.registries["routeTables"], "a", status_pb2.STATE_READY)
    assert parts_at_apply == [True]


async def test_restarted_process_plans_nothing_and_writes_nothing(backend: EtcdStore) -> None:
    device = Device()
    fence = await lead(backend)
    async with Process(backend, device, fence).running() as process:
        for number in range(5):
            await process.registries["routeTables"].create(table(f"t{number}"), Options())
        for number in range(5):
            await wait_until_state(process.registries["routeTables"], f"t{number}", status_pb2.STATE_READY)
    device.applied.clear()
    before = (await backend.list(KEYS.device_prefix)).entries
    async with Process(backend, device, fence).running() as process:
        await process.registries["routeTables"].create(table("last"), Options())
        await wait_until_state(process.registries["routeTables"], "last", status_pb2.STATE_READY)
    assert [step.resource for step in device.applied] == ["routeTables/last"]
    after = {entry.key: entry for entry in (await backend.list(KEYS.device_prefix)).entries}
    assert [after[entry.key] for entry in before] == list(before)


async def test_nothing_is_pruned_before_the_first_full_snapshot(backend: EtcdStore) -> None:
    device = Device()
    fence = await lead(backend)
    async with Process(backend, device, fence).running() as process:
        await process.registries["routeTables"].create(table("a"), Options())
        await wait_until_state(process.registries["routeTables"], "a", status_pb2.STATE_READY)
    device.applied.clear()
    blind = Process(backend, device, fence)
    working = asyncio.create_task(blind.loop.run())
    await asyncio.sleep(0.2)
    assert device.applied == []
    following = asyncio.create_task(blind.cache.run())
    device.present.add("routeTables/left-over")
    await wait_until(lambda: "routeTables/left-over" not in device.present)
    assert "routeTables/a" in device.present
    for task in (working, following):
        task.cancel()
    await asyncio.gather(working, following, return_exceptions=True)


async def wait_until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_so():
            await asyncio.sleep(0.01)


async def test_process_that_no_longer_leads_ends_and_its_status_is_not_written(backend: EtcdStore) -> None:
    device = Device()
    process = Process(backend, device, await lead(backend))
    await lead(backend)
    following = asyncio.create_task(process.cache.run())
    await process.registries["routeTables"].create(table("a"), Options())
    with pytest.raises(BaseExceptionGroup) as caught:
        async with asyncio.timeout(10):
            await process.loop.run()
    assert caught.group_contains(Fenced)
    assert await backend.get(KEYS.status("routeTables/a")) is None
    assert device.present == set()
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def test_temporary_failure_is_tried_again_and_a_permanent_one_waits_for_a_change(backend: EtcdStore) -> None:
    device = Device()
    device.failing["routeTables/busy"] = [errors.AgentUnavailable("AGENT_UNAVAILABLE", "not now")] * 3
    device.failing["routeTables/bad"] = [errors.PermanentError("KERNEL_REFUSED", "never")]
    async with Process(backend, device, await lead(backend)).running() as process:
        tables = process.registries["routeTables"]
        await tables.create(table("bad"), Options())
        await tables.create(table("busy"), Options())
        await wait_until_state(tables, "busy", status_pb2.STATE_READY)
        bad = await wait_until_state(tables, "bad", status_pb2.STATE_ERROR)
        assert bad.status.conditions[0].reason == "KERNEL_REFUSED"
        assert sum(step.resource == "routeTables/busy" for step in device.applied) == 4
        assert sum(step.resource == "routeTables/bad" for step in device.applied) == 1
        process.loop.trigger_unsettled()
        await wait_until_state(tables, "bad", status_pb2.STATE_READY)


async def test_slow_unit_delays_no_other(backend: EtcdStore) -> None:
    device = Device()
    device.slow["routeTables/slow"] = asyncio.Event()
    async with Process(backend, device, await lead(backend)).running() as process:
        tables = process.registries["routeTables"]
        await tables.create(table("slow"), Options())
        for number in range(30):
            await tables.create(table(f"t{number}"), Options())
        for number in range(30):
            await wait_until_state(tables, f"t{number}", status_pb2.STATE_READY)
        assert "routeTables/slow" not in device.present
        device.slow["routeTables/slow"].set()
        await wait_until_state(tables, "slow", status_pb2.STATE_READY)


async def test_nothing_changes_on_the_device_while_the_store_is_out_of_reach(member: etcd.Member, backend: EtcdStore) -> None:
    device = Device()
    async with Process(backend, device, await lead(backend)).running() as process:
        tables = process.registries["routeTables"]
        await tables.create(table("a"), Options())
        await wait_until_state(tables, "a", status_pb2.STATE_READY)
        await process.cache.wait_until_connected()
        member.signal(SIGSTOP)
        await wait_until_disconnected(process.cache)
        device.present.clear()
        process.loop.trigger("routeTables/a")
        with pytest.raises(errors.StoreUnavailable):
            await tables.create(table("b"), Options())
        assert device.present == set()
        member.signal(SIGCONT)
        await wait_until(lambda: device.present == {"routeTables/a"})


async def wait_until_disconnected(snapshot: cache.Cache) -> None:
    async with asyncio.timeout(30):
        while snapshot.connected:
            await asyncio.sleep(0.05)
