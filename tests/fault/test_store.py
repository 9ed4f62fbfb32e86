"""What the store promises, on a real etcd: reads, transactions, watches and leases, also while etcd dies or hangs."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import pytest

from crossns import errors, store
from crossns.etcd import client
from crossns.etcd.client import EtcdStore
from crossns.store import CreatedAt, Delete, DeleteBelow, EmptyBelow, Present, Put, Unchanged
from crossns.testing import etcd

pytestmark = pytest.mark.fault

BOUND_S = 15


async def put(backend: EtcdStore, key: str, value: bytes = b"v") -> int:
    return await backend.commit([], [Put(key, value)])


async def fill(backend: EtcdStore) -> None:
    """Write until it is refused: etcd looks at its size a few times a second only."""
    async with asyncio.timeout(BOUND_S):
        for number in itertools.count():
            await put(backend, f"/{number}", b"x" * 20_000)


async def gather(batches: AsyncGenerator[store.Batch, None], count: int) -> list[store.Change]:
    """The next `count` changes."""
    changes: list[store.Change] = []
    async with asyncio.timeout(BOUND_S), contextlib.aclosing(batches):
        async for batch in batches:
            changes.extend(batch.changes)
            if len(changes) >= count:
                break
    return changes


async def test_what_was_put_is_found_with_its_revisions(backend: EtcdStore) -> None:
    created = await put(backend, "/a", b"1")
    changed = await put(backend, "/a", b"2")
    assert await backend.get("/a") == store.Entry("/a", b"2", created, changed)
    assert await backend.get("/b") is None


async def test_many_are_read_at_one_revision_however_many(member: etcd.Member, backend: EtcdStore) -> None:
    few = await EtcdStore.connect(member.settings, operations_max=2)
    keys = [f"/{number}" for number in range(5)]
    await backend.commit([], [Put(key, key.encode()) for key in keys])
    found = await few.get_many([*keys, "/absent"])
    await few.close()
    assert {key: entry.value for key, entry in found.items()} == {key: key.encode() for key in keys}
    assert await backend.get_many([]) == {}


async def test_list_is_by_key_and_of_that_prefix_alone(backend: EtcdStore) -> None:
    for key in ("/p/b", "/p/é", "/p/a", "/p", "/p0", "/p/a/c"):
        await put(backend, key)
    listing = await backend.list("/p/")
    assert [entry.key for entry in listing.entries] == ["/p/a", "/p/a/c", "/p/b", "/p/é"]
    assert (listing.more, listing.cluster_id) == (False, await backend.cluster_id())


async def test_list_goes_on_behind_a_key_and_says_whether_there_is_more(backend: EtcdStore) -> None:
    await backend.commit([], [Put(f"/p/{number}", b"") for number in range(5)])
    first = await backend.list("/p/", limit=3)
    rest = await backend.list("/p/", after=first.entries[-1].key, limit=2)
    assert ([entry.key[-1] for entry in first.entries], first.more) == (["0", "1", "2"], True)
    assert ([entry.key[-1] for entry in rest.entries], rest.more) == (["3", "4"], False)


async def test_list_of_many_pages_is_of_one_revision(backend: EtcdStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PAGE_SIZE", 3)
    before = await backend.commit([], [Put(f"/p/{number}", b"old") for number in range(8)])
    read = backend._range

    async def read_and_write(**fields: object) -> object:
        page = await read(**fields)
        await backend.commit([], [Put("/p/7", b"new"), Delete("/p/6")])
        return page

    monkeypatch.setattr(backend, "_range", read_and_write)
    listing = await backend.list("/p/")
    assert listing.revision == before
    assert [entry.value for entry in listing.entries] == [b"old"] * 8


async def test_list_can_look_back_until_that_is_compacted(member: etcd.Member, backend: EtcdStore) -> None:
    old = await put(backend, "/p/a", b"old")
    new = await put(backend, "/p/a", b"new")
    assert (await backend.list("/p/", revision=old)).entries[0].value == b"old"
    await member.compact(new)
    for revision in (old, new + 100):
        with pytest.raises(store.Compacted):
            await backend.list("/p/", revision=revision)


async def test_each_compare_that_does_not_hold_shows_what_was_there(backend: EtcdStore) -> None:
    await put(backend, "/a", b"1")
    entry = await backend.get("/a")
    assert entry is not None
    holds: list[store.Compare] = [Present("/a"), Unchanged("/a", entry.mod_revision), CreatedAt("/a", entry.create_revision)]
    holds += [Unchanged("/b", 0), CreatedAt("/b", 0), EmptyBelow("/b")]
    fails: dict[store.Compare, tuple[store.Entry, ...]] = {
        Present("/b"): (),
        Unchanged("/a", 0): (entry,),
        CreatedAt("/a", 1): (entry,),
        Unchanged("/b", 7): (),
        EmptyBelow("/"): (entry,),
    }
    with pytest.raises(store.Conflict) as conflict:
        await backend.commit([*holds, *fails], [Put("/a", b"2"), Put("/c", b"")])
    assert conflict.value.failed == fails
    assert await backend.get_many(["/a", "/c"]) == {"/a": entry}
    assert await backend.commit(holds, [Put("/a", b"2")]) > entry.mod_revision


async def test_range_that_should_be_empty_shows_its_first_twenty(backend: EtcdStore) -> None:
    await backend.commit([], [Put(f"/p/{number:02}", b"") for number in range(30)])
    with pytest.raises(store.Conflict) as conflict:
        await backend.commit([EmptyBelow("/p/")], [])
    assert [entry.key for entry in conflict.value.failed[EmptyBelow("/p/")]] == [f"/p/{number:02}" for number in range(20)]


async def test_effects_happen_all_at_one_revision(backend: EtcdStore) -> None:
    await backend.commit([], [Put(key, b"") for key in ("/a", "/p/a", "/p/b", "/p", "/p0")])
    revision = await backend.commit(
        [], [Put("/b", b""), Delete("/a"), Delete("/gone"), DeleteBelow("/p/"), DeleteBelow("/gone/")]
    )
    listing = await backend.list("/")
    assert ([entry.key for entry in listing.entries], listing.revision) == (["/b", "/p", "/p0"], revision)


async def test_of_racing_creators_exactly_one_wins_each_key(member: etcd.Member, backend: EtcdStore) -> None:
    other = await EtcdStore.connect(member.settings)

    async def create(racer: EtcdStore, key: str, value: bytes) -> bytes | None:
        try:
            await racer.commit([Unchanged(key, 0)], [Put(key, value)])
        except store.Conflict:
            return None
        return value

    async def race(key: str) -> None:
        results = await asyncio.gather(create(backend, key, b"1"), create(other, key, b"2"))
        winners = [value for value in results if value is not None]
        entry = await backend.get(key)
        assert entry is not None
        assert winners == [entry.value]

    await asyncio.gather(*(race(f"/race/{number}") for number in range(200)))
    await other.close()


async def test_write_with_more_operations_than_fit_is_refused(member: etcd.Member, backend: EtcdStore) -> None:
    fitting = [Put(f"/{number}", b"") for number in range(client.OPERATIONS_MAX)]
    await backend.commit([Unchanged(put.key, 0) for put in fitting], fitting)
    with pytest.raises(errors.FailedPrecondition) as refused:
        await backend.commit([], [*fitting, Put("/more", b"")])
    assert refused.value.reason == "TOO_MANY_REFERENCES"
    bold = await EtcdStore.connect(member.settings, operations_max=5000)
    with pytest.raises(errors.FailedPrecondition) as refused:
        await bold.commit([], [*fitting, Put("/more", b"")])
    await bold.close()
    assert refused.value.reason == "TOO_MANY_REFERENCES"


@pytest.mark.parametrize("size", [1_600_000, 4_000_000])
async def test_write_that_is_too_large_is_refused(backend: EtcdStore, size: int) -> None:
    with pytest.raises(errors.FailedPrecondition, match="larger than etcd takes"):
        await put(backend, "/a", b"x" * size)


async def test_etcd_that_takes_small_transactions_only_is_noticed_at_start(tmp_path: Path, backend: EtcdStore) -> None:
    await backend.check_limits()
    async with etcd.embedded_member(tmp_path / "small", "--max-txn-ops=128") as small:
        limited = await EtcdStore.connect(small.settings)
        with pytest.raises(errors.FailedPrecondition, match="--max-txn-ops 2048"):
            await limited.check_limits()
        await limited.close()


async def test_full_etcd_is_unavailable_for_writes_and_says_what_to_do(tmp_path: Path) -> None:
    async with etcd.embedded_member(tmp_path / "tiny", "--quota-backend-bytes=65536") as tiny:
        backend = await EtcdStore.connect(tiny.settings)
        with pytest.raises(errors.StoreUnavailable, match="defrag"):
            await fill(backend)
        assert await backend.get("/0") is not None
        await backend.close()


@pytest.fixture
async def relay(member: etcd.Member, tmp_path: Path) -> AsyncIterator[etcd.Relay]:
    async with etcd.Relay(Path(member.settings.endpoints[0].removeprefix("unix:")), tmp_path / "relay").running() as running:
        yield running


@pytest.fixture
async def relayed(relay: etcd.Relay) -> AsyncIterator[EtcdStore]:
    opened = await EtcdStore.connect(relay.settings)
    yield opened
    await opened.close()


async def test_write_whose_answer_was_lost_is_found_done(backend: EtcdStore, relay: etcd.Relay, relayed: EtcdStore) -> None:
    base = await backend.commit([], [Put("/old", b""), Put("/p/a", b"")])
    relay.passes_answers = False
    writing = asyncio.create_task(
        relayed.commit([Unchanged("/a", 0)], [Put("/a", b"1"), Put("/b", b"2"), Delete("/old"), DeleteBelow("/p/")])
    )
    await gather(backend.watch("/", base), 4)
    relay.cut()
    entry = await backend.get("/a")
    assert entry is not None
    assert await writing == entry.mod_revision


async def test_write_that_never_arrived_is_unavailable_and_not_repeated(
    backend: EtcdStore, relay: etcd.Relay, relayed: EtcdStore
) -> None:
    relay.passes_requests = False
    writing = asyncio.create_task(relayed.commit([], [Put("/a", b"1")]))
    await relay.kept_back.wait()
    relay.cut()
    with pytest.raises(errors.StoreUnavailable):
        await writing
    assert await backend.get("/a") is None


async def test_lost_write_that_another_has_overwritten_counts_as_not_done(
    backend: EtcdStore, relay: etcd.Relay, relayed: EtcdStore
) -> None:
    base = await put(backend, "/a", b"1")
    relay.passes_answers = False
    writing = asyncio.create_task(relayed.commit([Unchanged("/a", base)], [Put("/a", b"2"), Put("/b", b"2")]))
    await gather(backend.watch("/", base), 2)
    await put(backend, "/b", b"3")
    relay.cut()
    with pytest.raises(errors.StoreUnavailable, match="may have been done"):
        await writing


async def test_value_that_was_there_before_does_not_pass_for_a_lost_write(
    backend: EtcdStore, relay: etcd.Relay, relayed: EtcdStore
) -> None:
    base = await put(backend, "/a", b"1")
    relay.passes_requests = False
    writing = asyncio.create_task(relayed.commit([Unchanged("/a", base)], [Put("/a", b"1")]))
    await relay.kept_back.wait()
    relay.cut()
    with pytest.raises(errors.StoreUnavailable):
        await writing
