"""What a service has to tell of what it sees, kept for a while: `crossns.v1.Events` of a service that is not the store's.

A service publishes, the gateway reads and merges. Each reader has a place and nothing else: no event is copied for him, so one
that is slow holds no memory and delays nobody; what fell out of the chronicle before he came to it he is told as missed.
"""

import asyncio
import re
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing
from dataclasses import dataclass

from google.protobuf import timestamp_pb2

from crossns import errors, names, rpc
from crossns.v1 import events_pb2, events_pb2_grpc

# About 1 KB each; more than happens on a device in the seconds that a gateway takes to come back.
KEPT = 4096
_TOKEN = re.compile(r"([0-9a-f]{1,16})\.([0-9a-f]{1,16})")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a reader has asked for: empty sets mean everything."""

    tables: frozenset[str]
    collections: frozenset[str]
    kinds: frozenset[int]

    def __contains__(self, event: events_pb2.Event) -> bool:
        """Of what was missed it is not always known which it was: then it concerns everybody."""
        is_missed = event.type == events_pb2.EVENT_TYPE_MISSED
        return (
            (not self.tables or not self.tables.isdisjoint(event.route_tables) or (is_missed and not event.route_tables))
            and (not self.kinds or event.kind in self.kinds or (is_missed and not event.kind))
            and (not self.collections or names.collection(event.name) in self.collections or (is_missed and not event.kind))
        )


def parse(request: events_pb2.WatchRequest) -> Wanted:
    """Raises InvalidSpec for what cannot be watched."""
    for name in request.collections:
        if name not in names.OWNERS:
            known = ", ".join(names.OWNERS)
            raise errors.InvalidSpec("collections", f"{errors.bounded(name)!r} is none: give one of {known}")
    for kind in request.kinds:
        if kind not in events_pb2.EventKind.values()[1:]:
            raise errors.InvalidSpec("kinds", f"{kind} is none: give one of {', '.join(events_pb2.EventKind.keys()[1:])}")
    return Wanted(
        frozenset(names.check(name, "routeTables", "route_tables") for name in request.route_tables),
        frozenset(request.collections),
        frozenset(request.kinds),
    )


def missed(count: int, message: str) -> events_pb2.Event:
    """An event that says so; `count` 0: nobody knows how many."""
    return events_pb2.Event(type=events_pb2.EVENT_TYPE_MISSED, time=now(), missed=events_pb2.Missed(count=count, message=message))


def now() -> timestamp_pb2.Timestamp:
    return at(time.time_ns())


def at(time_ns: int) -> timestamp_pb2.Timestamp:
    return timestamp_pb2.Timestamp(seconds=time_ns // 10**9, nanos=time_ns % 10**9)


class Chronicle:
    """The newest events of this process. For one event loop."""

    def __init__(self, kept: int = KEPT) -> None:
        self._events: deque[events_pb2.Event] = deque(maxlen=kept)
        # Tells this process's places from those of its predecessors.
        self._era = time.time_ns()
        self._end = 0
        self._grown = asyncio.Event()

    def publish(self, events: Iterable[events_pb2.Event]) -> None:
        """Each gets its token, and is not to be changed any more."""
        for event in events:
            self._end += 1
            event.resume_token = self._token(self._end)
            self._events.append(event)
        self._grown.set()
        self._grown = asyncio.Event()

    def begin(self, token: str) -> int | None:
        """The place that a token names; now where it is empty; None for one of an earlier process."""
        if not token:
            return self._end
        match = _TOKEN.fullmatch(token)
        if match is None:
            raise errors.InvalidSpec("resume_token", "is none of this service: give the last event's as it was, or none")
        era, place = (int(part, 16) for part in match.groups())
        return min(place, self._end) if era == self._era else None

    async def read(self, place: int | None, wanted: Wanted) -> AsyncGenerator[events_pb2.Event, None]:
        """What is published behind `place`, and what was missed on the way."""
        if place is None:
            place = self._end - len(self._events)
            yield self._gap(place, 0, "the service that tells them was started anew meanwhile")
        while True:
            if (first := self._end - len(self._events)) > place:
                count, place = first - place, first
                yield self._gap(place, count, "they were not read in time")
            elif place < self._end:
                event = self._events[place - first]
                place += 1
                if event in wanted:
                    yield event
            else:
                await self._grown.wait()

    def _gap(self, place: int, count: int, message: str) -> events_pb2.Event:
        gap = missed(count, message)
        gap.resume_token = self._token(place)
        return gap

    def _token(self, place: int) -> str:
        return f"{self._era:x}.{place:x}"


class Events(events_pb2_grpc.EventsServicer):
    """For the gateway; `Watch` with the tokens of this service alone."""

    def __init__(self, chronicle: Chronicle) -> None:
        self._chronicle = chronicle

    async def Watch(self, request: events_pb2.WatchRequest, context: rpc.Context) -> AsyncIterator[events_pb2.Event]:
        wanted = parse(request)
        place = self._chronicle.begin(request.resume_token)
        # Whoever has seen this misses nothing from now on.
        await context.send_initial_metadata(())
        async with aclosing(self._chronicle.read(place, wanted)) as events:
            async for event in events:
                yield event
