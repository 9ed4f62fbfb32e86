"""What a service has said of each resource: its parts of their status, and how they reach the store.

The loop says; it is the only one. Several of its rounds may speak of one resource at the same time, such as a vService that
stands in two tables. So a part is taken down at once, before anything is waited for: what the next round builds on is the
newest. Then all that is new goes to the store together, one write at a time and in that order, fenced by the leader key.
"""

import asyncio
import itertools
from collections.abc import Iterable, Mapping

from google.protobuf import timestamp_pb2

from crossns import leader, names, resource, store
from crossns.resource import Status
from crossns.v1 import status_pb2

# Parts in one transaction: far below what etcd takes (2048 operations, 1.5 MiB), with the largest vService many times.
_BATCH = 64


def load(entries: Iterable[store.Entry], keys: names.Keys) -> dict[str, Status]:
    """What stands in the store below the service's `status`, by resource name."""
    by_name = {entry.key.removeprefix(keys.status("")): entry.value for entry in entries}
    return {name: resource.load_status(names.collection(name), value) for name, value in by_name.items()}


class Parts:
    def __init__(self, backend: store.Store, keys: names.Keys, fence: store.CreatedAt) -> None:
        self._store = backend
        self._keys = keys
        self._fence = fence
        self._said: dict[str, Status] = {}
        # Said, and not in the store yet; in the order in which it was said.
        self._unwritten: dict[str, None] = {}
        self._writing = asyncio.Lock()

    @property
    def said(self) -> Mapping[str, Status]:
        """By resource name, as last said."""
        return self._said

    def adopt(self, entries: Iterable[store.Entry]) -> None:
        """What a process before this one left in the store: from then on this one alone writes there."""
        self._said |= load(entries, self._keys)

    def forget(self, name: str) -> None:
        """The resource is gone, its part with it."""
        self._said.pop(name, None)
        self._unwritten.pop(name, None)

    async def announce(self, resources: Iterable[str]) -> None:
        """Before the device is first touched for a resource its part is there, so that a deletion knows whom it waits for."""
        await self.say({name: _pending(name) for name in resources if name not in self._said})

    async def say(self, report: Mapping[str, Status | None]) -> None:
        """Returns when the store has it all, or something newer; None takes a part back. What has not changed is not written.

        Raises Fenced, or StoreUnavailable: then the next to speak writes that, too.
        """
        for name, status in report.items():
            if status is None:
                if self._said.pop(name, None) is not None:
                    self._unwritten[name] = None
            elif _stamped(status, self._said.get(name)) != self._said.get(name):
                self._said[name] = status
                self._unwritten[name] = None
        async with self._writing:
            while not self._unwritten.keys().isdisjoint(report):
                await self._write_next()

    async def _write_next(self) -> None:
        batch = list(itertools.islice(self._unwritten, _BATCH))
        for name in batch:
            del self._unwritten[name]
        try:
            await self._store.commit([self._fence], [self._effect(name) for name in batch])
        except store.Conflict as conflict:
            raise leader.Fenced(self._fence.key) from conflict
        except BaseException:
            # Whether it was written is not known: once more does no harm.
            self._unwritten = dict.fromkeys(batch) | self._unwritten
            raise

    def _effect(self, name: str) -> store.Effect:
        status, key = self._said.get(name), self._keys.status(name)
        return store.Delete(key) if status is None else store.Put(key, status.SerializeToString(deterministic=True))


def _pending(name: str) -> Status:
    status = resource.MESSAGES[names.collection(name)]().status
    status.state = status_pb2.STATE_PENDING
    return status


def _stamped(status: Status, previous: Status | None) -> Status:
    """`status` with the time at which each condition last changed: the previous one's where it did not."""
    conditions = previous.conditions if previous is not None else ()
    before = {(condition.type, condition.service): condition for condition in conditions}
    now = timestamp_pb2.Timestamp()
    now.GetCurrentTime()
    for condition in status.conditions:
        old = before.get((condition.type, condition.service))
        same = old is not None and old.status == condition.status
        condition.last_transition_time.CopyFrom(old.last_transition_time if old is not None and same else now)
    return status
