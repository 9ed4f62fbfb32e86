"""Merges, for each reader, the events of resources with those that services tell by themselves, filters, and says where he is.

Nothing is kept for anybody: a reader is two places, and what is thrown away before he has come to it he is told as missed.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping

from grpc import aio

from crossns import chronicle, names, rpc, store
from crossns.v1 import events_pb2, events_pb2_grpc
from gateway.events import cursor
from gateway.events.stored import Stored
from gateway.events.stream import Step, merged
from gateway.events.told import told


class Events(events_pb2_grpc.EventsServicer):
    def __init__(self, backend: store.Store, keys: names.Keys, tellers: Mapping[str, aio.Channel]) -> None:
        """`keys`: of any service of the device; `tellers`: the services with events of their own."""
        self._stored = Stored(backend, keys)
        self._tellers = tellers

    async def Watch(self, request: events_pb2.WatchRequest, context: rpc.Context) -> AsyncIterator[events_pb2.Event]:
        wanted = chronicle.parse(request)
        begin = cursor.parse(request.resume_token) if request.resume_token else None
        sources = [self._stored.events(begin.stored if begin else None), *self._told(request, begin)]
        async with merged(sources) as (first, steps):
            place = _moved(None, first)
            # Whoever has seen this misses nothing from now on.
            await context.send_initial_metadata(())
            async for step in steps:
                before, place = place, _moved(place, [step])
                event = step.event
                if event is not None and event in wanted:
                    if event.type == events_pb2.EVENT_TYPE_MISSED:
                        event.missed.after_token = before.token
                    event.resume_token = place.token
                    yield event

    def _told(self, request: events_pb2.WatchRequest, begin: cursor.Place | None) -> list[AsyncGenerator[Step, None]]:
        streams = []
        for service, channel in self._tellers.items():
            asked = events_pb2.WatchRequest(
                resume_token=begin.told.get(service, "") if begin else "",
                route_tables=request.route_tables,
                collections=request.collections,
                kinds=request.kinds,
            )
            streams.append(told(service, channel, asked, rpc.caller().metadata))
        return streams


def _moved(place: cursor.Place | None, steps: list[Step]) -> cursor.Place:
    """The place behind `steps`, the first of which, where there is no place yet, is the store's."""
    for step in steps:
        if isinstance(step.at, cursor.Cursor):
            place = cursor.Place(step.at, place.told if place else {})
        elif place is not None:
            service, token = step.at
            place = cursor.Place(place.stored, {**place.told, service: token or place.told.get(service, "")})
    assert place is not None  # noqa: S101 - the store is the first to step
    return place
