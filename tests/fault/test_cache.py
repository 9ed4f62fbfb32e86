"""The cache follows a real etcd through crashes, compactions and restores; what it tells adds up to what is."""

import asyncio
import contextlib
import random
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGCONT, SIGSTOP

import pytest

from crossns import errors, store
from crossns.cache import Cache
from crossns.etcd import watch
from crossns.etcd.client import EtcdStore
from crossns.store import Delete, Put
from crossns.testing import etcd

pytestmark = pytest.mark.fault

BOUND_S = 20


@dataclass
class Follower:
    """A running cache and what its changes add up to."""

    cache: Cache
    changes: list[store.Change] = field(default_factory=list)
    told: dict[str, store.Entry] = field(default_factory=dict)

    def take(self, changes: tuple[store.Change, ...]) -> None:
        for change in changes:
            assert change.previous == self.told.get(change.key)
            assert change.entry == self.cache.get(change.key)
            self.changes.append(change)
            if change.entry is None:
                del self.told[change.key]
            else:
                self.told[change.key] = change.entry


@contextlib.asynccontextmanager
async def following(backend: store.Store, **options: float) -> AsyncIterator[Follower]:
    follower = Follower(Cache(backend, "/p/", **options))
    follower.cache.subscribe(follower.take)
    async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(follower.cache.run())
        await follower.cache.wait_until_connected()
        yield follower
        assert list(follower.cache.below("/p/")) == sorted(follower.told.values(), key=lambda entry: entry.key)
        running.cancel()


async def written(backend: EtcdStore, *effects: store.Effect) -> int:
    """Write, as often as it takes while etcd comes back."""
    async with asyncio.timeout(BOUND_S):
        while True:
            with contextlib.suppress(errors.StoreUnavailable):
                return await backend.commit([], effects)
            await asyncio.sleep(0.02)


async def same_as_listed(follower: Follower, backend: EtcdStore) -> None:
    """Until the cache is what a list shows."""
    while tuple(follower.cache.below("/p/")) != (await backend.list("/p/")).entries:
        await asyncio.sleep(0.02)


async def test_cache_has_what_was_there_and_what_comes(backend: EtcdStore) -> None:
    await backend.commit([], [Put("/p/b", b"1"), Put("/p/a", b"1"), Put("/p0", b"1"), Put("/o", b"1")])
    async with following(backend) as follower:
        assert [entry.key for entry in follower.cache.below("/p/")] == ["/p/a", "/p/b"]
        revision = await backend.commit([], [Put("/p/a", b"2"), Put("/p/ab", b""), Delete("/p/b")])
        await follower.cache.wait_until_revision(revision)
        assert [entry.key for entry in follower.cache.below("/p/a")] == ["/p/a", "/p/ab"]
        assert follower.cache.get("/p/a") == await backend.get("/p/a")
        assert follower.cache.get("/p/b") is None
        assert follower.cache.cluster_id == await backend.cluster_id()


async def test_who_no_longer_subscribes_is_not_called(backend: EtcdStore) -> None:
    async with following(backend) as follower:
        other: list[object] = []
        unsubscribe = follower.cache.subscribe(other.append)
        await follower.cache.wait_until_revision(await backend.commit([], [Put("/p/a", b"1")]))
        unsubscribe()
        await follower.cache.wait_until_revision(await backend.commit([], [Put("/p/a", b"2")]))
        assert (len(other), len(follower.changes)) == (1, 2)


async def test_nothing_is_told_twice_or_lost_while_etcd_is_killed_again_and_again(
    member: etcd.Member, backend: EtcdStore, dice: random.Random
) -> None:
    async with following(backend) as follower:
        revisions = []
        for number in range(60):
            if number % 20 == 10:
                await member.restart()
            key = f"/p/{dice.randrange(8)}"
            effect = Put(key, str(number).encode()) if key not in follower.told or dice.random() < 0.7 else Delete(key)
            revisions.append(await written(backend, effect))
            await follower.cache.wait_until_revision(revisions[-1])
        assert [change.revision for change in follower.changes] == revisions


async def test_what_was_compacted_meanwhile_is_told_as_a_difference(
    member: etcd.Member, backend: EtcdStore, tmp_path: Path
) -> None:
    relay = etcd.Relay(Path(member.settings.endpoints[0].removeprefix("unix:")), tmp_path / "relay")
    await backend.commit([], [Put(f"/p/{name}", b"1") for name in ("kept", "changed", "gone")])
    async with relay.running():
        behind = await EtcdStore.connect(relay.settings)
        async with following(behind) as follower:
            relay.passes_answers = False
            await backend.commit([], [Put("/p/changed", b"2"), Put("/p/new", b"2"), Delete("/p/gone")])
            await member.compact(await backend.commit([], [Put("/p/last", b"2")]))
            del follower.changes[:]
            relay.cut()
            await same_as_listed(follower, backend)
            told = {(change.key.removeprefix("/p/"), change.entry is None) for change in follower.changes}
            assert told == {("changed", False), ("new", False), ("last", False), ("gone", True)}
        await behind.close()


async def test_event_that_the_watch_lost_is_found_by_the_next_list(backend: EtcdStore, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = asyncio.Event()
    batch_of = watch._batch

    def losing(events: list[object], known: int, header_revision: int) -> store.Batch:
        if any(event.kv.key == b"/p/lost" for event in events):  # type: ignore[attr-defined]
            lost.set()
            return store.Batch((), known)
        return batch_of(events, known, header_revision)

    monkeypatch.setattr(watch, "_batch", losing)
    async with following(backend, relist_s=0.2) as follower:
        revision = await backend.commit([], [Put("/p/lost", b"")])
        await follower.cache.wait_until_revision(revision)
        assert [change.key for change in follower.changes] == ["/p/lost"]
        assert follower.cache.connected


async def test_cache_knows_that_a_frozen_etcd_is_out_of_reach_and_when_it_is_back(
    member: etcd.Member, backend: EtcdStore
) -> None:
    async with following(backend) as follower:
        member.signal(SIGSTOP)
        while follower.cache.connected:
            await asyncio.sleep(0.02)
        member.signal(SIGCONT)
        await follower.cache.wait_until_connected()
        await follower.cache.wait_until_revision(await written(backend, Put("/p/a", b"")))


async def test_restored_older_data_are_followed_as_a_difference(member: etcd.Member, backend: EtcdStore, tmp_path: Path) -> None:
    data, kept = tmp_path / "etcd/state/etcd", tmp_path / "kept"
    await backend.commit([], [Put(f"/p/{name}", b"old") for name in ("same", "changed", "deleted")])
    async with following(backend) as follower:
        await member.end()
        shutil.copytree(data, kept)
        await member.start()
        last = await written(backend, Put("/p/changed", b"new"), Put("/p/added", b"new"), Delete("/p/deleted"))
        await follower.cache.wait_until_revision(last)
        await member.end()
        shutil.rmtree(data)
        shutil.copytree(kept, data)
        await member.start()
        await member.wait_until_answering()
        await same_as_listed(follower, backend)
        assert follower.cache.revision < last
        assert {key: entry.value for key, entry in follower.told.items()} == dict.fromkeys(
            ("/p/same", "/p/changed", "/p/deleted"), b"old"
        )
        await follower.cache.wait_until_connected()
        await written(backend, Put("/p/after", b""))
        await same_as_listed(follower, backend)


async def test_store_that_was_replaced_is_another_cluster_whatever_its_revision(
    member: etcd.Member, backend: EtcdStore, tmp_path: Path
) -> None:
    await backend.commit([], [Put("/p/old", b"")])
    async with following(backend) as follower:
        before = follower.cache.cluster_id
        await member.end()
        shutil.rmtree(tmp_path / "etcd/state/etcd")
        await member.start()
        await member.wait_until_answering()
        for number in range(5):
            await written(backend, Put(f"/p/new{number}", b""))
        await same_as_listed(follower, backend)
        assert follower.cache.cluster_id not in (0, before)
        assert "/p/old" not in follower.told


async def test_relisting_keeps_the_cache_connected_and_silent(backend: EtcdStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await backend.commit([], [Put("/p/a", b"")])
    lists = asyncio.Semaphore(0)
    listed = backend.list

    async def counted(prefix: str) -> store.Listing:
        listing = await listed(prefix)
        lists.release()
        return listing

    monkeypatch.setattr(backend, "list", counted)
    async with following(backend, relist_s=0.05) as follower:
        for _ in range(5):
            await lists.acquire()
            assert follower.cache.connected
        assert len(follower.changes) == 1
