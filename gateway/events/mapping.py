"""From changes of etcd keys to events of the API.

Pure. A desired value that comes, changes or goes is an event of its resource, a status part one of the service that wrote it; all
other keys (claims, references, leases) say nothing to a client.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby

from google.protobuf import timestamp_pb2

from crossns import names, store
from crossns.resource import Resource, load, load_status
from crossns.v1 import events_pb2
from gateway import reference
from gateway.events.cursor import Cursor

# Resource name -> the route tables that it concerns: a status does not say.
Concerns = Mapping[str, tuple[str, ...]]


def events_of(change: store.Change, keys: names.Keys, concerns: Concerns) -> tuple[events_pb2.Event, ...]:
    """The events that one change means: none or one. `keys` are those of any service of the device."""
    service, family, name = keys.parse(change.key) or ("", "", "")
    parse = _FAMILIES.get(family)
    if parse is None or names.collection(name) not in names.OWNERS:
        return ()
    event = parse(change, name, concerns)
    if event is None:
        return ()
    event.name, event.service, event.kind = name, service, _KINDS[family]
    return (event,)


def _of_desired(change: store.Change, name: str, concerns: Concerns) -> events_pb2.Event | None:
    now, before = (
        None if entry is None else load(names.collection(name), entry.value) for entry in (change.entry, change.previous)
    )
    kind = _kind(change, now, before)
    newest = now or before
    if kind is None:
        return None
    if newest is None:
        return events_pb2.Event(type=kind, route_tables=_tables(name, concerns))
    # Both: whoever watches the table that an interface has left shall see it go.
    tables = {table for each in (now, before) if each is not None for table in reference.tables(each)}
    event = events_pb2.Event(type=kind, generation=newest.generation, route_tables=sorted(tables))
    if kind == events_pb2.EVENT_TYPE_DELETING:
        event.time.CopyFrom(newest.delete_time)
    elif now is not None:
        event.time.CopyFrom(now.update_time)
    return event


def _kind(change: store.Change, now: Resource | None, before: Resource | None) -> events_pb2.EventType.ValueType | None:
    if now is None:
        return events_pb2.EVENT_TYPE_DELETED
    if before is None:
        is_new = change.entry is not None and change.entry.create_revision == change.entry.mod_revision
        return events_pb2.EVENT_TYPE_CREATED if is_new else events_pb2.EVENT_TYPE_UPDATED
    if now.HasField("delete_time") and not before.HasField("delete_time"):
        return events_pb2.EVENT_TYPE_DELETING
    if (now.generation, now.labels) != (before.generation, before.labels):
        return events_pb2.EVENT_TYPE_UPDATED
    return None


def _of_status(change: store.Change, name: str, concerns: Concerns) -> events_pb2.Event:
    """A part that was taken away is one without a state."""
    event = events_pb2.Event(type=events_pb2.EVENT_TYPE_STATUS, route_tables=_tables(name, concerns))
    if change.entry is not None:
        part = load_status(names.collection(name), change.entry.value)
        event.generation, event.state = part.observed_generation, part.state
        event.conditions.extend(part.conditions)
        times = [condition.last_transition_time for condition in part.conditions]
        event.time.CopyFrom(max(times, key=timestamp_pb2.Timestamp.ToNanoseconds, default=timestamp_pb2.Timestamp()))
    return event


def _tables(name: str, concerns: Concerns) -> tuple[str, ...]:
    return concerns.get(name) or reference.tables_by_name(name)


_KINDS = {"desired": events_pb2.EVENT_KIND_CONFIG, "status": events_pb2.EVENT_KIND_STATUS}
_FAMILIES: Mapping[str, Callable[[store.Change, str, Concerns], events_pb2.Event | None]] = {
    "desired": _of_desired,
    "status": _of_status,
}


class Feed:
    """The events of one reader, batch after batch. It remembers which tables each resource concerns, and nothing else."""

    def __init__(self, keys: names.Keys, cursor: Cursor, resources: Iterable[Resource]) -> None:
        """`resources`: those that there are at the cursor's revision, of the kinds whose names do not tell their tables."""
        self._keys = keys
        self._told = cursor.told
        self._concerns = {resource.name: reference.tables(resource) for resource in resources}
        self.cursor = cursor

    def take(self, batch: store.Batch) -> Iterator[events_pb2.Event]:
        """The events of the next batch, each with its token. To be taken to their end before the next batch."""
        cluster_id, before = self.cursor.cluster_id, self.cursor.revision
        for revision, changes in groupby(batch.changes, key=lambda change: change.revision):
            events = [event for change in changes for event in self._events_of(change)]
            for place, event in enumerate(events, 1):
                is_last = place == len(events)
                at = Cursor(cluster_id, revision) if is_last else Cursor(cluster_id, before, place)
                event.resume_token = at.token
                if place > self._told:
                    self.cursor = at
                    yield event
            if events:
                before, self._told = revision, 0
        self.cursor = Cursor(cluster_id, batch.revision, self._told)

    def _events_of(self, change: store.Change) -> tuple[events_pb2.Event, ...]:
        events = events_of(change, self._keys, self._concerns)
        for event in events:
            if event.type == events_pb2.EVENT_TYPE_DELETED:
                self._concerns.pop(event.name, None)
            elif event.type != events_pb2.EVENT_TYPE_STATUS and change.entry is not None:
                self._concerns[event.name] = reference.tables(load(names.collection(event.name), change.entry.value))
        return events
