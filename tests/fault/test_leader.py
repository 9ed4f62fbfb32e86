"""One leader at a time: fenced where it was overtaken, followed at once where it died, not deposed by an etcd that hangs."""

import asyncio
import contextlib
import os
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP

import msgspec
import pytest

from crossns import errors, leader, names, proc, settings, store
from crossns.etcd.client import EtcdStore
from crossns.leader import Leadership
from crossns.store import Delete, Put, Unchanged
from crossns.testing import etcd

pytestmark = pytest.mark.fault

KEYS = names.Keys("device", "nsmanager")
BOUND_S = 20
# Long enough that no test can pass because it ran out.
LONG_TTL_S = 600

CANDIDATE = """
import asyncio, sys
from crossns import leader, names, settings
from crossns.etcd.client import EtcdStore

async def main(endpoint):
    store = await EtcdStore.connect(settings.Etcd((endpoint,)))
    leadership = await leader.campaign(store, names.Keys("device", "nsmanager"), int(sys.argv[2]))
    print(leadership.create_revision, flush=True)
    await leadership.lost()

asyncio.run(main(sys.argv[1]))
"""


@contextlib.asynccontextmanager
async def leading_process(config: settings.Etcd) -> AsyncIterator[asyncio.subprocess.Process]:
    """Another process that leads."""
    root = Path(leader.__file__).parent.parent
    process = await proc.start(
        (sys.executable, "-c", CANDIDATE, config.endpoints[0], str(LONG_TTL_S)), directory=root, output=PIPE
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(BOUND_S):
            assert int(await process.stdout.readline())
        yield process
    finally:
        proc.kill(process)
        await process.wait()


@contextlib.asynccontextmanager
async def standing_by(backend: store.Store, ttl_s: int = LONG_TTL_S) -> AsyncIterator[asyncio.Task[Leadership]]:
    """A campaign that waits for the leader of now; whatever it wins is released."""
    campaign = asyncio.create_task(leader.campaign(backend, KEYS, ttl_s))
    try:
        await asyncio.wait({campaign}, timeout=0.3)
        assert not campaign.done()
        async with asyncio.timeout(BOUND_S):
            yield campaign
    finally:
        campaign.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await (await campaign).release()


async def test_leadership_is_a_fencing_token_and_a_compare_that_holds(backend: EtcdStore) -> None:
    async with await leader.campaign(backend, KEYS, 5) as leadership:
        entry = await backend.get(KEYS.leader)
        assert entry is not None
        assert (leadership.token.cluster_id, leadership.token.revision) == (await backend.cluster_id(), entry.create_revision)
        assert entry.lease == leadership.lease
        await backend.commit([leadership.compare()], [Put("/x", b"")])


async def test_of_many_candidates_exactly_one_leads_at_a_time_and_tokens_grow(backend: EtcdStore) -> None:
    campaigns = {asyncio.create_task(leader.campaign(backend, KEYS, LONG_TTL_S)) for _ in range(8)}
    revisions = []
    async with asyncio.timeout(BOUND_S):
        while campaigns:
            done, campaigns = await asyncio.wait(campaigns, return_when=asyncio.FIRST_COMPLETED)
            (winner,) = done
            leadership = winner.result()
            entry = await backend.get(KEYS.leader)
            assert entry is not None
            assert entry.create_revision == leadership.create_revision
            revisions.append(leadership.create_revision)
            await leadership.release()
    assert len(revisions) == 8
    assert revisions == sorted(set(revisions))


async def test_released_leadership_passes_on_at_once_and_leaves_nothing(backend: EtcdStore) -> None:
    before = asyncio.all_tasks()
    first = await leader.campaign(backend, KEYS, LONG_TTL_S)
    async with standing_by(backend) as campaign:
        begun = time.monotonic()
        await first.release()
        second = await campaign
        assert time.monotonic() - begun < 0.5
        assert second.create_revision > first.create_revision
        await first.lost()
    assert await backend.get(KEYS.leader) is None
    async with asyncio.timeout(BOUND_S):
        while asyncio.all_tasks() != before:
            await asyncio.sleep(0.01)


async def test_killed_leader_is_followed_within_half_a_second(member: etcd.Member, backend: EtcdStore) -> None:
    async with leading_process(member.settings) as process, standing_by(backend) as campaign:
        begun = time.monotonic()
        process.send_signal(SIGKILL)
        await campaign
        assert time.monotonic() - begun < 0.5


async def test_leader_that_was_killed_before_is_not_waited_for(member: etcd.Member, backend: EtcdStore) -> None:
    async with leading_process(member.settings) as process:
        process.send_signal(SIGKILL)
        await process.wait()
    begun = time.monotonic()
    async with await leader.campaign(backend, KEYS, LONG_TTL_S):
        assert time.monotonic() - begun < 0.5


async def test_frozen_leader_keeps_its_key_until_its_lease_ends_then_its_writes_are_refused(
    member: etcd.Member, backend: EtcdStore
) -> None:
    frozen = await EtcdStore.connect(member.settings)
    first = await leader.campaign(frozen, KEYS, 1)
    stop_keeping_alive(first)
    async with asyncio.timeout(BOUND_S), await leader.campaign(backend, KEYS, LONG_TTL_S) as second:
        assert second.create_revision > first.create_revision
        with pytest.raises(store.Conflict) as conflict:
            await frozen.commit([first.compare()], [Put("/x", b"stale")])
        assert list(conflict.value.failed) == [first.compare()]
        assert await backend.get("/x") is None
        await first.release()
        assert await backend.get(KEYS.leader) is not None
    await frozen.close()


def stop_keeping_alive(leadership: Leadership) -> None:
    """What happens to a process that is stopped."""
    leadership._task.cancel()


@pytest.mark.parametrize(
    "stranger",
    [
        {"boot_id": "another"},
        {"pid_namespace": 1},
        {"boot_id": 7},
    ],
)
async def test_holder_that_cannot_be_seen_from_here_is_not_taken_for_dead(
    backend: EtcdStore, stranger: dict[str, object]
) -> None:
    value = {**msgspec.to_builtins(leader._myself()), "pid": 2**22 + 1, **stranger}
    await backend.commit([], [Put(KEYS.leader, msgspec.json.encode(value), await backend.grant(LONG_TTL_S))])
    async with standing_by(backend) as campaign:
        await backend.commit([], [Delete(KEYS.leader)])
        await campaign


async def test_pid_that_belongs_to_another_process_by_now_is_a_dead_holder(backend: EtcdStore) -> None:
    myself = leader._myself()
    value = msgspec.structs.replace(myself, start_time=myself.start_time - 1)
    await backend.commit([], [Put(KEYS.leader, msgspec.json.encode(value), await backend.grant(LONG_TTL_S))])
    async with asyncio.timeout(BOUND_S):
        await (await leader.campaign(backend, KEYS, LONG_TTL_S)).release()


async def test_leadership_is_lost_with_its_lease(backend: EtcdStore) -> None:
    async with asyncio.timeout(BOUND_S), await leader.campaign(backend, KEYS, 3) as leadership:
        await backend.revoke(leadership.lease)
        await leadership.lost()


async def test_leadership_is_lost_when_its_key_is_deleted_or_replaced(backend: EtcdStore) -> None:
    async with asyncio.timeout(BOUND_S), await leader.campaign(backend, KEYS, LONG_TTL_S) as leadership:
        await backend.commit([], [Put(KEYS.leader, b"rewritten", leadership.lease)])
        losing = asyncio.create_task(leadership.lost())
        await asyncio.wait({losing}, timeout=0.2)
        assert not losing.done()
        await backend.commit([], [Delete(KEYS.leader)])
        await losing
        await backend.commit([Unchanged(KEYS.leader, 0)], [Put(KEYS.leader, b"another's")])


async def test_etcd_that_hangs_or_restarts_deposes_nobody(member: etcd.Member, backend: EtcdStore) -> None:
    async with await leader.campaign(backend, KEYS, LONG_TTL_S) as leadership:
        losing = asyncio.create_task(leadership.lost())
        member.signal(SIGSTOP)
        with pytest.raises(errors.StoreUnavailable):
            await backend.get("/x")
        member.signal(SIGCONT)
        await member.restart()
        async with asyncio.timeout(BOUND_S):
            await written(backend, leadership.compare())
        assert not losing.done()
        losing.cancel()


async def written(backend: EtcdStore, fence: store.CreatedAt) -> None:
    """Write under the fence, as often as it takes while etcd comes back."""
    while True:
        with contextlib.suppress(errors.StoreUnavailable):
            await backend.commit([fence], [Put("/x", b"")])
            return
        await asyncio.sleep(0.02)


async def test_leadership_of_a_store_that_was_replaced_is_void(member: etcd.Member, backend: EtcdStore, tmp_path: Path) -> None:
    async with asyncio.timeout(BOUND_S), await leader.campaign(backend, KEYS, LONG_TTL_S) as leadership:
        await member.end()
        os.rename(tmp_path / "etcd/state/etcd", tmp_path / "old")
        os.mkdir(tmp_path / "etcd/state/etcd")
        await member.start()
        await leadership.lost()
        async with await leader.campaign(backend, KEYS, LONG_TTL_S) as next_one:
            assert next_one.token.cluster_id != leadership.token.cluster_id


async def test_cancelled_campaign_leaves_no_key_lease_or_task(backend: EtcdStore) -> None:
    async with await leader.campaign(backend, KEYS, LONG_TTL_S) as leadership:
        async with standing_by(backend):
            pass
        holder = await backend.get(KEYS.leader)
        assert holder is not None
        assert holder.create_revision == leadership.create_revision


async def test_campaign_waits_for_an_etcd_that_is_down(member: etcd.Member, backend: EtcdStore) -> None:
    await member.end()
    async with standing_by(backend) as campaign:
        await member.start()
        await campaign
