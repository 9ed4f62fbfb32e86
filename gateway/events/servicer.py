"""Streams events out of the store's history: each reader has a watch of its own, and no event is made before he takes it.

So a slow reader holds up nobody and holds one batch at most; one that is away too long is told so instead of being told half.
"""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from crossns import errors, names, rpc, store
from crossns.resource import Resource, load
from crossns.retry import Backoff
from crossns.v1 import events_pb2, events_pb2_grpc
from gateway import reference
from gateway.events import cursor, mapping

BACKOFF = Backoff(0.05, 2.0, 2.0)

_log = logging.getLogger(__name__)


class Events(events_pb2_grpc.EventsServicer):
    def __init__(self, backend: store.Store, keys: names.Keys) -> None:
        """`keys`: of any service of the device."""
        self._store = backend
        self._keys = keys

    async def Watch(self, request: events_pb2.WatchRequest, context: rpc.Context) -> AsyncIterator[events_pb2.Event]:
        tables = {names.check(name, "routeTables", "route_tables") for name in request.route_tables}
        collections = {_check_collection(name) for name in request.collections}
        begin = cursor.parse(request.resume_token) if request.resume_token else None
        try:
            feed = await self._feed(begin)
            # Whoever has seen this misses nothing from now on.
            await context.send_initial_metadata(())
            async with aclosing(self._follow(feed)) as batches:
                async for batch in batches:
                    for event in feed.take(batch):
                        concerns = not tables or not tables.isdisjoint(event.route_tables)
                        if concerns and (not collections or names.collection(event.name) in collections):
                            yield event
        except store.Compacted as error:
            message = "events since then are no longer kept: list what there is, then watch without resume_token"
            raise errors.OutOfRange("RESUME_TOKEN_EXPIRED", message) from error

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


def _check_collection(name: str) -> str:
    if name not in names.OWNERS:
        known = ", ".join(names.OWNERS)
        raise errors.InvalidSpec("collections", f"{errors.bounded(name)!r} is none: give one of {known}")
    return name
