"""Watches and leases on a real etcd that dies, hangs, forgets and floods: nothing is lost, nothing comes twice, nothing hangs."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path
from signal import SIGCONT, SIGSTOP

import pytest
from aetcd import rpc

from crossns import errors, store
from crossns.etcd import watch
from crossns.etcd.client import EtcdStore
from crossns.store import Delete, Put
from crossns.testing import etcd

pytestmark = pytest.mark.fault

BOUND_S = 20


async def put(backend: EtcdStore, key: str, value: bytes = b"v") -> int:
    return await backend.commit([], [Put(key, value)])


async def collected(batches: AsyncGenerator[store.Batch, None], count: int) -> list[store.Batch]:
    """Batches until they hold `count` changes."""
    taken: list[store.Batch] = []
    async with asyncio.timeout(BOUND_S), contextlib.aclosing(batches):
        async for batch in batches:
            taken.append(batch)
            if sum(len(batch.changes) for batch in taken) >= count:
                break
    return taken


def changes(batches: list[store.Batch]) -> list[store.Change]:
    return [change for batch in batches for change in batch.changes]


async def eventually(backend: EtcdStore, key: str) -> int:
    """Put, as often as it takes while etcd comes back."""
    async with asyncio.timeout(BOUND_S):
        while True:
            with contextlib.suppress(errors.StoreUnavailable):
                return await put(backend, key)
            await asyncio.sleep(0.02)


async def test_watch_begins_with_an_empty_batch_then_tells_what_came_behind_the_revision(backend: EtcdStore) -> None:
    base = await put(backend, "/p/a", b"1")
    last = await backend.commit([], [Put("/p/a", b"2"), Put("/p/b", b"3")])
    await put(backend, "/other", b"")
    first, second = await collected(backend.watch("/p/", base), 2)
    assert first == store.Batch((), base)
    assert (second.revision, {(change.key, change.revision) for change in second.changes}) == (
        last,
        {("/p/a", last), ("/p/b", last)},
    )
    assert {change.entry.value for change in second.changes if change.entry} == {b"2", b"3"}


async def test_watch_tells_what_stood_there_before_when_asked(backend: EtcdStore) -> None:
    base = await put(backend, "/p/a", b"1")
    before = await backend.get("/p/a")
    gone = await backend.commit([], [Delete("/p/a")])
    assert changes(await collected(backend.watch("/p/", base, with_previous=True), 1)) == [
        store.Change("/p/a", gone, None, before)
    ]
    assert changes(await collected(backend.watch("/p/", base), 1)) == [store.Change("/p/a", gone, None)]


async def test_answer_that_etcd_sends_in_fragments_arrives_whole(backend: EtcdStore) -> None:
    base = await put(backend, "/p/0", b"")
    for part in range(40):
        await backend.commit([], [Put(f"/p/{part}/{number}", b"x" * 10_000) for number in range(10)])
    batches = await collected(backend.watch("/p/", base), 400)
    assert [len(batch.changes) for batch in batches] == [0, 400]
    revisions = [change.revision for change in changes(batches)]
    assert revisions == sorted(revisions)
    assert batches[-1].revision == revisions[-1]


async def test_watch_from_a_compacted_revision_says_so(member: etcd.Member, backend: EtcdStore) -> None:
    old = await put(backend, "/p/a")
    for _ in range(3):
        new = await put(backend, "/p/a")
    await member.compact(new)
    with pytest.raises(store.Compacted):
        await collected(backend.watch("/p/", old), 1)


async def test_watch_of_a_store_that_is_behind_or_another_says_so(backend: EtcdStore) -> None:
    base = await put(backend, "/p/a")
    with pytest.raises(store.Compacted):
        await collected(backend.watch("/p/", base + 1), 1)
    with pytest.raises(store.Compacted):
        await collected(backend.watch("/p/", base, cluster_id=1), 1)


def test_watch_begins_at_a_revision_that_the_store_has_so_that_every_etcd_gives_signs_of_life_on_it() -> None:
    for revision, first in ((5, 5), (0, 1)):
        assert watch.Start("/p/", revision, 0, with_previous=False).request().create_request.start_revision == first


def test_watch_that_the_server_cancels_for_another_reason_is_broken() -> None:
    start = watch.Start("/p/", 5, 0, with_previous=False)
    with pytest.raises(errors.StoreUnavailable, match="permission denied"):
        start.check(rpc.WatchResponse(created=True, canceled=True, cancel_reason="etcdserver: permission denied"))


async def test_progress_notices_of_etcd_move_the_revision_on(tmp_path: Path) -> None:
    async with etcd.embedded_member(tmp_path, "--experimental-watch-progress-notify-interval=100ms") as member:
        backend = await EtcdStore.connect(member.settings)
        base = await put(backend, "/p/a")
        async with asyncio.timeout(BOUND_S), contextlib.aclosing(backend.watch("/p/", base)) as batches:
            assert await anext(batches) == store.Batch((), base)
            elsewhere = await put(backend, "/other")
            assert await anext(batches) == store.Batch((), elsewhere)
        await backend.close()


async def test_quiet_watch_asks_for_a_sign_of_life_and_goes_on(backend: EtcdStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "QUIET_S", 0.02)
    asked = asyncio.Semaphore(0)
    send = watch._Stream.send

    async def counted(stream: watch._Stream, request: object) -> None:
        await send(stream, request)
        asked.release()

    monkeypatch.setattr(watch._Stream, "send", counted)
    base = await put(backend, "/p/a")
    following = asyncio.create_task(collected(backend.watch("/p/", base), 1))
    async with asyncio.timeout(BOUND_S):
        for _ in range(5):
            await asked.acquire()
    revision = await put(backend, "/p/a")
    assert [change.revision for change in changes(await following)] == [revision]


class MuteCall:
    """A stream that takes everything and says nothing."""

    def __init__(self) -> None:
        self.requests: list[rpc.WatchRequest] = []
        self._ended = asyncio.Event()

    async def write(self, request: rpc.WatchRequest) -> None:
        self.requests.append(request)

    async def read(self) -> None:
        await self._ended.wait()

    def cancel(self) -> None:
        self._ended.set()


async def test_stream_that_gives_no_sign_of_life_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "QUIET_S", 0.01)
    monkeypatch.setattr(watch, "ANSWER_S", 0.01)
    call = MuteCall()
    stream = watch._Stream(call)
    with pytest.raises(errors.StoreUnavailable, match="silent"):
        await asyncio.wait_for(stream.receive(), BOUND_S)
    assert [request.WhichOneof("request_union") for request in call.requests] == ["progress_request"]
    await stream.close()


async def test_watch_over_a_killed_etcd_resumes_without_loss_or_repetition(member: etcd.Member, backend: EtcdStore) -> None:
    base = await put(backend, "/p/0")
    seen: list[store.Change] = []
    breaks = 0
    resumed = asyncio.Event()

    async def follow(count: int) -> None:
        nonlocal breaks
        revision = base
        while len(seen) < count:
            try:
                async with contextlib.aclosing(backend.watch("/p/", revision)) as batches:
                    async for batch in batches:
                        resumed.set()
                        revision = batch.revision
                        seen.extend(batch.changes)
                        if len(seen) >= count:
                            return
            except errors.StoreUnavailable:
                breaks += 1
                await asyncio.sleep(0.02)

    async with asyncio.timeout(BOUND_S):
        following = asyncio.create_task(follow(40))
        await resumed.wait()
        written = []
        for number in range(40):
            if number % 20 == 10:
                await member.restart()
            written.append(await eventually(backend, f"/p/{number}"))
        await following
    assert breaks >= 2
    assert [change.revision for change in seen] == written


async def test_frozen_etcd_is_noticed_in_time_by_all_and_forgiven(member: etcd.Member, backend: EtcdStore) -> None:
    base = await put(backend, "/p/a")
    lease = await backend.grant(60)
    keeping = asyncio.create_task(backend.keep_alive(lease, 3))
    watching = asyncio.create_task(collected(backend.watch("/p/", base), 1))
    member.signal(SIGSTOP)
    async with asyncio.timeout(BOUND_S):
        for call in (backend.get("/p/a"), put(backend, "/p/a"), backend.grant(5), watching):
            with pytest.raises(errors.StoreUnavailable):
                await call
    assert not keeping.done()
    member.signal(SIGCONT)
    revision = await eventually(backend, "/p/b")
    seen = changes(await collected(backend.watch("/p/", revision - 1), 1))
    assert [change.key for change in seen] == ["/p/b"]
    assert not keeping.done()
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


async def test_nothing_is_left_of_a_watch_that_is_closed_or_cancelled(backend: EtcdStore) -> None:
    base = await put(backend, "/p/a")
    before = asyncio.all_tasks()
    async with contextlib.aclosing(backend.watch("/p/", base)) as batches:
        await anext(batches)
    following = asyncio.create_task(collected(backend.watch("/p/", base), 1))
    await asyncio.sleep(0)
    following.cancel()
    async with asyncio.timeout(BOUND_S):
        while asyncio.all_tasks() != before:
            await asyncio.sleep(0)


async def test_key_goes_with_its_lease(backend: EtcdStore) -> None:
    lease = await backend.grant(60)
    await backend.commit([], [Put("/a", b"", lease), Put("/b", b"")])
    entry = await backend.get("/a")
    assert entry is not None
    assert entry.lease == lease
    await backend.revoke(lease)
    assert list(await backend.get_many(["/a", "/b"])) == ["/b"]
    await backend.revoke(lease)


async def test_lease_lives_as_long_as_it_is_kept_alive(backend: EtcdStore) -> None:
    kept, left = await backend.grant(1), await backend.grant(1)
    base = await backend.commit([], [Put("/p/kept", b"", kept), Put("/p/left", b"", left)])
    keeping = asyncio.create_task(backend.keep_alive(kept, 1))
    (expired,) = changes(await collected(backend.watch("/p/", base), 1))
    assert (expired.key, expired.entry) == ("/p/left", None)
    assert await backend.get("/p/kept") is not None
    await backend.revoke(kept)
    with pytest.raises(store.LeaseLost):
        await asyncio.wait_for(keeping, BOUND_S)


async def test_lease_that_is_gone_is_said_to_be_lost(backend: EtcdStore) -> None:
    with pytest.raises(store.LeaseLost):
        await backend.keep_alive(12345, 3)
    with pytest.raises(store.LeaseLost):
        await backend.commit([], [Put("/a", b"", 12345)])
