"""Which index a new route table gets, and what that costs in requests to the store."""

import asyncio
from typing import Any

import pytest

from crossns import errors, names, store
from crossns.v1 import route_table_pb2
from services.nsmanager.servicer import index

KEYS = names.Keys("local", "nsmanager")


class _Claims:
    """A store with nothing in it but claims of indices, and a registry that has it; it counts what it is asked."""

    def __init__(self, *taken: int) -> None:
        self.keys, self.store = KEYS, self
        self.taken = set(taken)
        self.lists = self.gets = 0

    async def list(self, prefix: str) -> store.Listing:
        self.lists += 1
        await asyncio.sleep(0)
        return store.Listing(tuple(store.Entry(f"{prefix}{each}", b"", 1, 1) for each in sorted(self.taken)), 1)

    async def get(self, key: str) -> store.Entry | None:
        self.gets += 1
        number = int(key.removeprefix(KEYS.claim("index", "")))
        return store.Entry(key, b"", 1, 1) if number in self.taken else None


class _Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def _admitted(indices: index.Indices, claims: Any, name: str, chosen: int = 0) -> int:
    table = route_table_pb2.RouteTable(name=f"routeTables/{name}", spec=route_table_pb2.RouteTableSpec(index=chosen))
    admitted = await indices.admit(claims, table, None)
    assert isinstance(admitted, route_table_pb2.RouteTable)
    return admitted.status.index


async def test_tables_get_the_lowest_that_are_free_and_one_list_will_do_for_many() -> None:
    indices, claims = index.Indices(_Clock()), _Claims(2, 4)
    assert [await _admitted(indices, claims, f"t{number}") for number in range(100)] == [1, 3, *range(5, 103)]
    assert (claims.lists, claims.gets) == (1, 0)


async def test_tables_that_are_created_at_once_do_not_want_the_same() -> None:
    indices, claims = index.Indices(_Clock()), _Claims()
    got = await asyncio.gather(*(_admitted(indices, claims, f"t{number}") for number in range(20)))
    assert sorted(got) == list(range(1, 21))
    assert claims.lists == 1


async def test_who_tries_again_gets_the_same_unless_somebody_has_it() -> None:
    indices, claims = index.Indices(_Clock()), _Claims()
    assert [await _admitted(indices, claims, "a") for _ in range(3)] == [1, 1, 1]
    claims.taken.add(1)
    assert await _admitted(indices, claims, "a") == 2


async def test_chosen_one_is_given_to_nobody_else() -> None:
    indices, claims = index.Indices(_Clock()), _Claims()
    assert await _admitted(indices, claims, "a") == 1
    assert await _admitted(indices, claims, "b", chosen=2) == 2
    assert await _admitted(indices, claims, "c") == 3


async def test_what_was_given_out_and_not_taken_is_free_again_with_the_next_list() -> None:
    clock, claims = _Clock(), _Claims()
    indices = index.Indices(clock)
    assert await _admitted(indices, claims, "a") == 1
    clock.now = index.LISTED_S + 0.1
    assert await _admitted(indices, claims, "b") == 1
    assert claims.lists == 2


async def test_when_all_are_taken_nobody_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "INDEX_MAX", 3)
    indices, claims = index.Indices(_Clock()), _Claims(1, 2, 3)
    with pytest.raises(errors.FailedPrecondition, match="all 3 indices"):
        await _admitted(indices, claims, "a")


async def test_table_that_is_there_keeps_its_own() -> None:
    indices, claims = index.Indices(_Clock()), _Claims()
    table = route_table_pb2.RouteTable(name="routeTables/a")
    table.status.index = 9
    there: Any = claims
    assert await indices.admit(there, table, table) is table
    assert (table.status.index, claims.lists) == (9, 0)
