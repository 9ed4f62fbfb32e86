"""What is said of resources reaches the store, with a real etcd: whole, in order, and whoever else speaks at the same time."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from crossns import errors, names, resource, store
from crossns.etcd.client import EtcdStore
from crossns.parts import Parts
from crossns.registry import Options
from crossns.resource import Status
from crossns.v1 import route_table_pb2, status_pb2
from tests.fault.test_reconcile import KEYS, Device, Process, lead, table

pytestmark = pytest.mark.fault


def saying(generation: int) -> route_table_pb2.RouteTableStatus:
    return route_table_pb2.RouteTableStatus(observed_generation=generation, state=status_pb2.STATE_READY)


class Gate:
    """A store whose commits wait until it is opened, or fail while told so; it counts them."""

    def __init__(self, backend: EtcdStore) -> None:
        self._backend = backend
        self.open = asyncio.Event()
        self.failing = False
        self.begun = 0

    async def commit(self, compares: Sequence[store.Compare], effects: Sequence[store.Effect]) -> int:
        self.begun += 1
        await self.open.wait()
        if self.failing:
            raise errors.StoreUnavailable("not now")
        return await self._backend.commit(compares, effects)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)


@pytest.fixture
async def gate(backend: EtcdStore) -> Gate:
    return Gate(backend)


@pytest.fixture
async def parts(backend: EtcdStore, gate: Gate) -> Parts:
    return Parts(gate, KEYS, await lead(backend))


async def stored(backend: EtcdStore, name: str) -> Status | None:
    entry = await backend.get(KEYS.status(name))
    return resource.load_status(names.collection(name), entry.value) if entry is not None else None


async def test_what_is_said_is_in_the_store_when_saying_it_returns_though_another_writes_it(
    parts: Parts, gate: Gate, backend: EtcdStore
) -> None:
    first = asyncio.create_task(parts.say({"routeTables/a": saying(1)}))
    second = asyncio.create_task(parts.say({"routeTables/a": saying(1)}))
    third = asyncio.create_task(parts.say({"routeTables/a": saying(2)}))
    await asyncio.sleep(0)
    assert parts.said["routeTables/a"] == saying(2)
    done, _ = await asyncio.wait({first, second, third}, timeout=0.1)
    assert not done
    gate.open.set()
    await asyncio.gather(first, second)
    assert await stored(backend, "routeTables/a") in (saying(1), saying(2))
    await third
    assert await stored(backend, "routeTables/a") == saying(2)


async def test_what_many_say_meanwhile_is_one_write(parts: Parts, gate: Gate, backend: EtcdStore) -> None:
    tasks = [asyncio.create_task(parts.say({f"routeTables/t{number}": saying(1)})) for number in range(16)]
    await asyncio.sleep(0.05)
    gate.open.set()
    await asyncio.gather(*tasks)
    assert gate.begun == 2
    assert [await stored(backend, f"routeTables/t{number}") for number in range(16)] == [saying(1)] * 16


async def test_what_could_not_be_written_is_written_by_the_next_to_speak(parts: Parts, gate: Gate, backend: EtcdStore) -> None:
    gate.open.set()
    gate.failing = True
    with pytest.raises(errors.StoreUnavailable):
        await parts.say({"routeTables/a": saying(1)})
    gate.failing = False
    # The round starts over and says the same.
    await parts.say({"routeTables/a": saying(1)})
    assert await stored(backend, "routeTables/a") == saying(1)


async def test_more_parts_than_a_transaction_takes_are_written(parts: Parts, gate: Gate, backend: EtcdStore) -> None:
    gate.open.set()
    await parts.say({f"routeTables/t{number}": saying(1) for number in range(2500)})
    assert len((await backend.list(KEYS.status("routeTables/"))).entries) == 2500


async def test_nothing_is_written_where_nothing_was_said(parts: Parts, gate: Gate) -> None:
    gate.open.set()
    await parts.say({"routeTables/a": None})
    await parts.say({"routeTables/a": saying(1)})
    await parts.say({"routeTables/a": saying(1)})
    assert gate.begun == 1


async def test_a_slow_look_is_compared_with_what_is_wanted_by_its_end(backend: EtcdStore) -> None:
    """Else a round would report, or undo, what a newer wish has overtaken meanwhile."""
    device = Device()
    device.slow["routeTables/a"] = looking = asyncio.Event()
    async with Process(backend, device, await lead(backend)).running() as process:
        tables = process.registries["routeTables"]
        await tables.create(table("a"), Options())
        await process.cache.wait_until_synced()
        await asyncio.sleep(0.1)
        await tables.delete("routeTables/a", Options())
        await asyncio.sleep(0.1)
        looking.set()
        await asyncio.sleep(0.3)
    assert device.applied == []
