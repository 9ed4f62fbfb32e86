"""Who may act: one process of each service on a device holds the leader key, and everything it writes is fenced by that.

Called by each service's wiring before it touches anything. The key hangs on a lease, and its create revision is the fencing token
(architecture, section 2): a lease alone excludes nobody, so each write compares it and each privileged process checks it. A
leader that died is followed at once where its successor can see that on the same kernel; else when its lease has run out.
"""

import asyncio
import contextlib
import logging
import os
import random
from collections.abc import Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from crossns import errors, names, operation, pidfd, store
from crossns.retry import Backoff

BACKOFF = Backoff(0.1, 2.0, 2.0)

log = logging.getLogger(__name__)


class Fenced(Exception):
    """Another process leads now: this one must end."""


class Holder(msgspec.Struct, frozen=True):
    """The leader key's value: a process; others on the same kernel and in the same pid namespace can tell whether it lives."""

    pid: int
    start_time: int
    boot_id: str
    pid_namespace: int


class Leadership:
    """Held from `campaign` until lost or released. Its lease is kept alive by a task of its own; `async with` releases it."""

    def __init__(self, backend: store.Store, key: str, token: operation.Token, lease: int, ttl_s: int) -> None:
        self._store = backend
        self.key = key
        self.token = token
        self.lease = lease
        self._task = asyncio.create_task(self._hold(ttl_s), name=f"leadership of {key}")

    @property
    def create_revision(self) -> int:
        return self.token.revision

    def compare(self) -> store.CreatedAt:
        """Fences a transaction: it holds only while this leadership does."""
        return store.CreatedAt(self.key, self.create_revision)

    async def lost(self) -> None:
        """Returns when another may lead: the lease is gone, the key changed, the store is another, or it was released. That etcd
        cannot be reached is no loss: then nobody else can take over either."""
        await asyncio.wait({self._task})
        if not self._task.cancelled():
            self._task.result()

    async def release(self) -> None:
        """Give it up, so that the next one takes over at once; where the store cannot be reached, when the lease runs out."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        with contextlib.suppress(errors.StoreUnavailable):
            await self._store.revoke(self.lease)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.release()

    async def _hold(self, ttl_s: int) -> None:
        """Keep the lease alive until it, or the key, is gone."""
        await _first(self._keep_alive(ttl_s), self._watch_key())
        log.warning("leadership is lost", extra={"key": self.key, "revision": self.create_revision})

    async def _keep_alive(self, ttl_s: int) -> None:
        with contextlib.suppress(store.LeaseLost):
            await self._store.keep_alive(self.lease, ttl_s)

    async def _watch_key(self) -> None:
        attempt = 0
        while True:
            try:
                entry = await self._store.get(self.key)
                if entry is None or entry.create_revision != self.create_revision:
                    return
                if await self._store.cluster_id() != self.token.cluster_id:
                    return
                attempt = 0
                await _wait_for_change(self._store, entry)
            except errors.StoreUnavailable:
                await asyncio.sleep(BACKOFF.delay(attempt, random.random()))
                attempt += 1


async def campaign(backend: store.Store, keys: names.Keys, ttl_s: int) -> Leadership:
    """Stand by until nobody else leads the service, then lead it. `ttl_s`: how long a leader that vanished without a trace is
    waited for. Cancelled, it leaves nothing behind. Goes on trying while the store cannot be reached."""
    attempt = 0
    while True:
        try:
            holder = await backend.get(keys.leader)
            if holder is None:
                leadership = await _take(backend, keys.leader, ttl_s)
                if leadership is not None:
                    return leadership
            else:
                await _first(_wait_for_change(backend, holder), _end_when_dead(backend, holder))
            attempt = 0
        except (errors.StoreUnavailable, store.LeaseLost) as error:
            log.warning("no leader can be chosen: %s", str(error))
            await asyncio.sleep(BACKOFF.delay(attempt, random.random()))
            attempt += 1


async def _take(backend: store.Store, key: str, ttl_s: int) -> Leadership | None:
    """The leadership if nobody was quicker."""
    lease = await backend.grant(ttl_s)
    try:
        revision = await backend.commit([store.Unchanged(key, 0)], [store.Put(key, msgspec.json.encode(_myself()), lease)])
        token = operation.Token(await backend.cluster_id(), revision)
    except BaseException as error:
        with contextlib.suppress(errors.StoreUnavailable):
            await backend.revoke(lease)
        if isinstance(error, store.Conflict):
            return None
        raise
    log.info("leading", extra={"key": key, "revision": revision})
    return Leadership(backend, key, token, lease, ttl_s)


async def _wait_for_change(backend: store.Store, entry: store.Entry) -> None:
    """Until the key may be another than `entry`, or the store another."""
    with contextlib.suppress(store.Compacted):
        async with contextlib.aclosing(backend.watch(entry.key, entry.mod_revision)) as batches:
            async for batch in batches:
                if any(change.key == entry.key for change in batch.changes):
                    return


async def _wait_for_death(entry: store.Entry) -> None:
    """Until the process that holds the key is seen to have died; for ever where that cannot be seen from here."""
    holder = _visible_holder(entry)
    if holder is None:
        await asyncio.get_running_loop().create_future()
        return
    process = pidfd.open_process(holder.pid, holder.start_time)
    if process is None:
        return
    try:
        await _wait_until_readable(process)
    finally:
        os.close(process)


async def _end_when_dead(backend: store.Store, entry: store.Entry) -> None:
    """End the leadership of a process as soon as that is seen to have died."""
    await _wait_for_death(entry)
    log.info("the leader died: taking over", extra={"key": entry.key})
    await backend.revoke(entry.lease)


def _visible_holder(entry: store.Entry) -> Holder | None:
    """The holder, where its pid means the same to it and to us, and /proc shows that pid namespace."""
    try:
        holder = msgspec.json.decode(entry.value, type=Holder)
    except msgspec.MsgspecError:
        return None
    myself = _myself()
    is_visible = (holder.boot_id, holder.pid_namespace) == (myself.boot_id, myself.pid_namespace)
    return holder if is_visible and os.readlink("/proc/self") == str(myself.pid) else None


def _myself() -> Holder:
    return Holder(
        pid=os.getpid(),
        start_time=pidfd.start_time(os.getpid()) or 0,
        boot_id=Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip(),
        pid_namespace=os.stat("/proc/self/ns/pid").st_ino,
    )


async def _wait_until_readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    readable = loop.create_future()
    loop.add_reader(descriptor, _settle, readable)
    try:
        await readable
    finally:
        loop.remove_reader(descriptor)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _first(*waits: Coroutine[Any, Any, None]) -> None:
    """Until one of them returns, or raises; the others are cancelled."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
