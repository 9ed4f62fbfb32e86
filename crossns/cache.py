"""A copy of everything below a prefix of the store, for those who reconcile. Servicers read the store itself.

List, then watch from there; resume after a break; list again when the store no longer knows the revision, and once a minute in
any case, because watches of etcd 3.4 have lost events. Each list is taken as the truth: what differs is told as changes,
deletions too. So a store that was restored from a backup, or replaced, is followed like any other change.
"""

import asyncio
import bisect
import contextlib
import logging
import random
from collections.abc import Callable, Iterator, Sequence

from crossns import errors, store
from crossns.retry import Backoff

RELIST_S = 60.0
BACKOFF = Backoff(0.05, 2.0, 2.0)

Callback = Callable[[tuple[store.Change, ...]], None]

log = logging.getLogger(__name__)


class Cache:
    def __init__(self, backend: store.Store, prefix: str, *, relist_s: float = RELIST_S) -> None:
        self._store = backend
        self._prefix = prefix
        self._relist_s = relist_s
        self._entries: dict[str, store.Entry] = {}
        self._keys: list[str] = []
        self._callbacks: list[Callback] = []
        self._moved = asyncio.Event()
        # 0 until the first list: the first revision of etcd is 1.
        self.revision = 0
        self.cluster_id = 0
        # Whether changes arrive as they happen. What is seen while it is False may be old.
        self.connected = False

    def get(self, key: str) -> store.Entry | None:
        return self._entries.get(key)

    def below(self, prefix: str) -> Iterator[store.Entry]:
        """The entries whose keys begin with `prefix`, by key, as they are now."""
        begin = bisect.bisect_left(self._keys, prefix)
        end = bisect.bisect_left(self._keys, prefix[:-1] + chr(ord(prefix[-1]) + 1))
        return iter([self._entries[key] for key in self._keys[begin:end]])

    def subscribe(self, callback: Callback) -> Callable[[], None]:
        """Call `callback` with the changes of each batch, in order, after they are in the cache; the result ends that.

        It is called in the task that runs the cache: it must not block, and what it raises ends the cache.
        """
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    async def wait_until_synced(self) -> None:
        """Until everything was listed once."""
        await self._wait(lambda: self.revision > 0)

    async def wait_until_connected(self) -> None:
        await self._wait(lambda: self.connected)

    async def wait_until_revision(self, revision: int) -> None:
        """Until a write below the prefix that got `revision` is seen. One elsewhere may take until the next list."""
        await self._wait(lambda: self.revision >= revision)

    async def _wait(self, is_reached: Callable[[], bool]) -> None:
        while not is_reached():
            await self._moved.wait()

    def _move(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()

    async def run(self) -> None:
        """Follow the store until cancelled."""
        loop = asyncio.get_running_loop()
        attempt, due = 0, loop.time()
        while True:
            try:
                if loop.time() >= due:
                    await self._list()
                    due = loop.time() + self._relist_s * random.uniform(0.8, 1.2)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(due):
                        await self._follow()
            except (errors.StoreUnavailable, store.Compacted) as error:
                attempt = 0 if self.connected else attempt + 1
                if isinstance(error, store.Compacted):
                    due = loop.time()
                self._disconnect(str(error))
                await asyncio.sleep(BACKOFF.delay(attempt, random.random()))

    async def _list(self) -> None:
        listing = await self._store.list(self._prefix)
        if self.revision and (listing.cluster_id != self.cluster_id or listing.revision < self.revision):
            log.warning("the store was restored or replaced: revision %d follows %d", listing.revision, self.revision)
        self.cluster_id = listing.cluster_id
        self._apply(self._difference(listing), listing.revision)

    async def _follow(self) -> None:
        """Take in what the watch brings, until it raises."""
        watch = self._store.watch(self._prefix, self.revision, cluster_id=self.cluster_id)
        async with contextlib.aclosing(watch) as batches:
            async for batch in batches:
                self.connected = True
                self._apply([change for change in batch.changes if change.revision > self.revision], batch.revision)

    def _disconnect(self, reason: str) -> None:
        if self.connected:
            log.warning("lost the store, following it again as soon as it answers: %s", reason)
        self.connected = False

    def _difference(self, listing: store.Listing) -> list[store.Change]:
        """What must have happened since, in the order of revisions; deletions last, at the listing's."""
        listed = {entry.key: entry for entry in listing.entries}
        new = [entry for entry in listing.entries if self._entries.get(entry.key) != entry]
        changes = [
            store.Change(entry.key, entry.mod_revision, entry) for entry in sorted(new, key=lambda entry: entry.mod_revision)
        ]
        return changes + [store.Change(key, listing.revision, None) for key in self._keys if key not in listed]

    def _apply(self, changes: Sequence[store.Change], revision: int) -> None:
        applied = tuple(self._take(change) for change in changes)
        self.revision = revision
        self._move()
        if applied:
            for callback in tuple(self._callbacks):
                callback(applied)

    def _take(self, change: store.Change) -> store.Change:
        """Take one change in; the change with what stood there before."""
        previous = self._entries.get(change.key)
        if change.entry is not None:
            if previous is None:
                bisect.insort(self._keys, change.key)
            self._entries[change.key] = change.entry
        elif previous is not None:
            del self._entries[change.key]
            del self._keys[bisect.bisect_left(self._keys, change.key)]
        return store.Change(change.key, change.revision, change.entry, previous)
