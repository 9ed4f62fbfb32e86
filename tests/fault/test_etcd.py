"""etcd as the suite runs it, and a cluster elsewhere: sockets, certificates, members that die."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from signal import SIGSTOP

import pytest

from crossns import errors, layout, proc, settings, store
from crossns.etcd import embedded
from crossns.etcd.client import EtcdStore
from crossns.store import Put, Unchanged
from crossns.testing import etcd

pytestmark = pytest.mark.fault

BOUND_S = 30


@contextlib.asynccontextmanager
async def connected(config: settings.Etcd) -> AsyncIterator[EtcdStore]:
    backend = await EtcdStore.connect(config)
    try:
        async with asyncio.timeout(BOUND_S):
            yield backend
    finally:
        await backend.close()


async def written(backend: EtcdStore, key: str) -> int:
    """Put, as often as it takes while the cluster finds itself."""
    while True:
        with contextlib.suppress(errors.StoreUnavailable):
            return await backend.commit([], [Put(key, b"")])
        await asyncio.sleep(0.05)


async def test_embedded_etcd_listens_on_no_network(member: etcd.Member) -> None:
    sockets = sockets_of(member.process.pid)
    assert sockets
    assert not sockets & network_sockets()


def sockets_of(pid: int) -> set[str]:
    targets = {os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()}
    return {target for target in targets if target.startswith("socket:")}


def network_sockets() -> set[str]:
    lines = [line for table in ("tcp", "tcp6", "udp", "udp6") for line in Path("/proc/net", table).read_text().splitlines()[1:]]
    return {f"socket:[{line.split()[9]}]" for line in lines}


async def test_socket_is_for_etcds_uid_and_the_stores_group_alone(tmp_path: Path) -> None:
    place = layout.Layout(run=tmp_path / "run", state=tmp_path / "state")
    embedded.prepare(place)
    embedded.prepare(place)
    let_pass(tmp_path)
    uid = str(place.uid("etcd"))
    user = ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--bounding-set=-all", "--no-new-privs", "--")
    config = settings.Etcd((f"unix:{place.etcd_socket}",))
    member = etcd.Member(lambda: (*user, *embedded.argv(place)), place.etcd_dir, config)
    try:
        await member.start()
        await member.wait_until_answering()
        shown = place.etcd_socket.stat()
        assert (shown.st_uid, shown.st_gid, shown.st_mode & 0o777) == (place.uid("etcd"), place.store_gid, 0o770)
        assert place.etcd_dir.stat().st_mode & 0o7777 == 0o2750
        assert embedded.data_dir(place).stat().st_mode & 0o7777 == 0o700
        assert await can_connect(place.etcd_socket, place.uid("proxy"), place.store_gid)
        assert not await can_connect(place.etcd_socket, place.uid("proxy"), place.uid("proxy"))
    finally:
        await member.end()


def let_pass(path: Path) -> None:
    """Let every uid pass through pytest's directories, as it passes through /run."""
    for part in (path, *list(path.parents)[:-2]):
        part.chmod(part.stat().st_mode | 0o011)


async def can_connect(path: Path, uid: int, gid: int) -> bool:
    code = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    user = ("setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--")
    return (await proc.run((*user, "/usr/bin/python3", "-c", code, str(path)))).status == 0


async def test_data_and_cluster_outlive_a_kill_and_another_data_directory_is_another_cluster(
    member: etcd.Member, backend: EtcdStore, tmp_path: Path
) -> None:
    before = await backend.cluster_id()
    await written(backend, "/a")
    await member.restart()
    async with connected(member.settings) as again, etcd.embedded_member(tmp_path / "other") as other:
        assert await again.cluster_id() == before
        assert await again.get("/a") is not None
        async with connected(other.settings) as elsewhere:
            assert await elsewhere.cluster_id() != before


async def test_second_etcd_in_the_same_place_ends_and_disturbs_nothing(
    member: etcd.Member, backend: EtcdStore, tmp_path: Path
) -> None:
    place = layout.Layout(run=tmp_path / "etcd/run", state=tmp_path / "etcd/state")
    second = await proc.start(embedded.argv(place), directory=place.etcd_dir, output=None)
    assert await asyncio.wait_for(second.wait(), BOUND_S) == embedded.ALREADY_RUNNING
    async with connected(member.settings) as newcomer:
        assert await written(newcomer, "/a") < await written(backend, "/b")


async def test_etcd_that_is_not_there_is_unavailable_in_time(tmp_path: Path) -> None:
    with pytest.raises(errors.StoreUnavailable):
        await asyncio.wait_for(EtcdStore.connect(settings.Etcd((f"unix:{tmp_path}/none",)), timeout_s=0.5), BOUND_S)


async def test_write_without_an_etcd_has_changed_nothing_and_says_so(member: etcd.Member, backend: EtcdStore) -> None:
    await member.end()
    async with asyncio.timeout(BOUND_S):
        while backend._endpoints.current.is_connected:
            await asyncio.sleep(0.02)
    with pytest.raises(errors.StoreUnavailable, match="nothing was changed; try again when it is back"):
        await backend.commit([], [Put("/a", b"1")])


async def test_server_that_accepts_and_says_nothing_is_unavailable_in_time(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(tmp_path / "mute"))
        mute.listen()
        with pytest.raises(errors.StoreUnavailable):
            await asyncio.wait_for(EtcdStore.connect(settings.Etcd((f"unix:{tmp_path}/mute",)), timeout_s=0.5), BOUND_S)


async def test_only_clients_with_a_certificate_of_the_authority_get_in(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    tls, other = await etcd.make_tls(tmp_path), await etcd.make_tls(tmp_path / "other")
    async with etcd.cluster(tmp_path, size=1, tls=tls) as (member,):
        async with connected(member.settings) as backend:
            await backend.commit([Unchanged("/a", 0)], [Put("/a", b"1")])
        endpoints = member.settings.endpoints
        for config in (
            settings.Etcd(endpoints),
            settings.Etcd(endpoints, ca=tls.ca),
            settings.Etcd(endpoints, tls.ca, other.cert, other.key),
            settings.Etcd(endpoints, other.ca, tls.cert, tls.key),
        ):
            with pytest.raises(errors.StoreUnavailable):
                await EtcdStore.connect(config, timeout_s=0.5)


async def test_cluster_goes_on_when_the_member_in_use_is_killed_or_frozen(tmp_path: Path) -> None:
    tls = await etcd.make_tls(tmp_path)
    async with etcd.cluster(tmp_path, tls=tls) as members, connected(etcd.anywhere(members)) as backend:
        base = await written(backend, "/p/0")
        lease = await backend.grant(60)
        keeping = asyncio.create_task(backend.keep_alive(lease, 3))
        seen: list[store.Change] = []
        following = asyncio.create_task(follow(backend, base, seen))
        await members[0].end()
        assert await backend.get("/p/0") is not None
        await written(backend, "/p/1")
        await members[0].start()
        await members[0].wait_until_answering()
        index = list(etcd.anywhere(members).endpoints).index(backend._endpoints.current.target)
        members[index].signal(SIGSTOP)
        await written(backend, "/p/2")
        while not any(change.key == "/p/2" for change in seen):
            await asyncio.sleep(0.02)
        revisions = [change.revision for change in seen]
        assert revisions == sorted(set(revisions))
        assert {change.key for change in seen} == {"/p/1", "/p/2"}
        assert not keeping.done()
        keeping.cancel()
        following.cancel()
        await asyncio.gather(keeping, following, return_exceptions=True)


async def follow(backend: EtcdStore, revision: int, seen: list[store.Change]) -> None:
    while True:
        # A member that lags behind says Compacted; it will have caught up.
        with contextlib.suppress(errors.StoreUnavailable, store.Compacted):
            async with contextlib.aclosing(backend.watch("/p/", revision)) as batches:
                async for batch in batches:
                    revision = batch.revision
                    seen.extend(batch.changes)
        await asyncio.sleep(0.05)
