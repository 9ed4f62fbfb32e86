"""One watch stream, followed until it breaks. Called by `client.EtcdStore.watch`.

Nothing is lost or told twice: a revision is never split, what is not newer is dropped, and a stream that ended, was cancelled by
the server or fell silent raises. Only etcd's own progress notices move the revision on: the answer to a request for progress may
run ahead of events (etcd before 3.4.25, etcd-io/etcd#15220), so it proves that the stream lives and nothing else.
"""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from aetcd import rpc

from crossns import errors, store
from crossns.etcd import message
from crossns.etcd.endpoint import END_OF_STREAM, METADATA, Endpoints

# After so long without a response a sign of life is asked for, and has so long to come.
QUIET_S = 3.0
ANSWER_S = 3.0


@dataclass(frozen=True, slots=True)
class Start:
    """What to follow, behind which revision, and of which cluster (0: any)."""

    prefix: str
    revision: int
    cluster_id: int
    with_previous: bool

    def request(self) -> Any:
        create = rpc.WatchCreateRequest(
            key=self.prefix.encode(),
            range_end=message.range_end(self.prefix),
            # What is known is told once more, and dropped: from 3.4.38, 3.5.22 and 3.6.2 on etcd gives no sign of life on a watch
            # that begins behind its newest revision (etcd-io/etcd#20221).
            start_revision=max(self.revision, 1),
            progress_notify=True,
            prev_kv=self.with_previous,
            fragment=True,
        )
        return rpc.WatchRequest(create_request=create)

    def check(self, response: Any) -> None:
        """Raises when the server has cancelled the watch, or is not where it begins."""
        if response.canceled:
            if response.compact_revision:
                raise store.Compacted(f"compacted at revision {response.compact_revision}")
            raise errors.StoreUnavailable(f"etcd ended the watch: {errors.bounded(response.cancel_reason) or 'no reason given'}")
        if response.created and response.header.revision < self.revision:
            raise store.Compacted(f"at revision {response.header.revision}, not yet at {self.revision}")
        if response.created and self.cluster_id not in (0, response.header.cluster_id):
            raise store.Compacted(f"cluster {response.header.cluster_id:x}, not {self.cluster_id:x}")


class _Stream:
    """The stream's two directions, each step bounded in time. Reading must not be cancelled: gRPC would end the call with it."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._reading: asyncio.Future[Any] | None = None

    async def send(self, request: Any) -> None:
        async with asyncio.timeout(ANSWER_S):
            await self._call.write(request)

    async def receive(self) -> Any:
        self._reading = reading = asyncio.ensure_future(self._call.read())
        if not await _is_done(reading, QUIET_S):
            await self.send(rpc.WatchRequest(progress_request=rpc.WatchProgressRequest()))
            if not await _is_done(reading, ANSWER_S):
                raise errors.StoreUnavailable(f"etcd was silent on a watch for {QUIET_S + ANSWER_S:g} s")
        response = reading.result()
        if response is END_OF_STREAM:
            raise errors.StoreUnavailable("etcd closed the watch")
        return response

    async def close(self) -> None:
        self._call.cancel()
        if self._reading is not None:
            await asyncio.gather(self._reading, return_exceptions=True)


async def _is_done(reading: asyncio.Future[Any], timeout_s: float) -> bool:
    done, _ = await asyncio.wait({reading}, timeout=timeout_s)
    return bool(done)


async def follow(endpoints: Endpoints, start: Start) -> AsyncGenerator[store.Batch, None]:
    """See `store.Store.watch`."""
    known = start.revision
    events: list[Any] = []
    with endpoints.use() as endpoint:
        stream = _Stream(endpoint.watch.Watch(metadata=METADATA))
        try:
            await stream.send(start.request())
            created = await stream.receive()
            start.check(created)
            yield store.Batch((), known)
            while True:
                response = await stream.receive()
                start.check(response)
                if response.watch_id != created.watch_id:
                    continue
                events.extend(response.events)
                if response.fragment:
                    continue
                batch = _batch(events, known, response.header.revision)
                events.clear()
                if batch.revision > known:
                    known = batch.revision
                    yield batch
        finally:
            await stream.close()


def _batch(events: list[Any], known: int, header_revision: int) -> store.Batch:
    """A response of events goes up to the last of them (its header may be ahead of those still to come); one without, a
    progress notice, goes up to its header."""
    if not events:
        return store.Batch((), header_revision)
    changes = tuple(message.change(event) for event in events if event.kv.mod_revision > known)
    return store.Batch(changes, events[-1].kv.mod_revision)
