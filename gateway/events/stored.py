"""Events of resources, out of the store's history: each reader has a watch of its own, and no event is made before he takes it.

Called by the servicer. A slow reader holds up nobody and holds one batch at most.
"""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing

from crossns import chronicle, errors, names, store
from crossns.resource import Resource, load
from crossns.retry import Backoff
from gateway import reference
from gateway.events import cursor, mapping
from gateway.events.stream import Step

BACKOFF = Backoff(0.05, 2.0, 2.0)

_log = logging.getLogger(__name__)


class Stored:
    """`keys`: of any service of the device."""

    def __init__(self, backend: store.Store, keys: names.Keys) -> None:
        self._store = backend
        self._keys = keys

    async def events(self, begin: cursor.Cursor | None) -> AsyncGenerator[Step, None]:
        """Behind `begin`, or from now on. OutOfRange where `begin` is no longer kept; what is thrown away while it is being read
        is told as missed."""
        has_begun = False
        while True:
            try:
                feed = await self._feed(begin)
                yield Step(feed.cursor)
                async with aclosing(self._follow(feed)) as batches:
                    async for batch in batches:
                        has_begun = True
                        for event in feed.take(batch):
                            yield Step(feed.cursor, event)
                        yield Step(feed.cursor)
            except store.Compacted as error:
                if not has_begun:
                    message = "events since then are no longer kept: list what there is, then watch without resume_token"
                    raise errors.OutOfRange("RESUME_TOKEN_EXPIRED", message) from error
                now = (await self._feed(None)).cursor
                count = now.revision - feed.cursor.revision if now.cluster_id == feed.cursor.cluster_id else 0
                yield Step(now, chronicle.missed(max(0, count), "they were not read before the store threw them away"))
                begin = now

    async def _feed(self, begin: cursor.Cursor | None) -> mapping.Feed:
        """At `begin`, or now. That `begin` is of this cluster is seen to by the watch."""
        revision, cluster_id = (begin.revision, begin.cluster_id) if begin else (0, 0)
        resources: list[Resource] = []
        for collection in reference.TOLD_BY_SPEC:
            prefix = self._keys.of(names.OWNERS[collection]).desired(f"{collection}/")
            listing = await self._store.list(prefix, revision=revision)
            cluster_id = cluster_id or listing.cluster_id
            revision = revision or listing.revision
            resources += [load(collection, entry.value) for entry in listing.entries]
        return mapping.Feed(self._keys, begin or cursor.Cursor(cluster_id, revision), resources)

    async def _follow(self, feed: mapping.Feed) -> AsyncGenerator[store.Batch, None]:
        """Batches behind the feed's cursor, over breaks of the connection to the store."""
        attempt = 0
        while True:
            at = feed.cursor
            try:
                watch = self._store.watch(self._keys.device_prefix, at.revision, cluster_id=at.cluster_id, with_previous=True)
                async with aclosing(watch) as batches:
                    async for batch in batches:
                        attempt = 0
                        yield batch
            except errors.StoreUnavailable as error:
                _log.warning("the store is out of reach, its events come later: %s", error)
                await asyncio.sleep(BACKOFF.delay(attempt, random.random()))
                attempt += 1
