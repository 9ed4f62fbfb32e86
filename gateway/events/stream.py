"""Streams of events that are read side by side, at most one event of each ahead of its reader.

Called by the servicer. A step without an event says how far a source has come; the first one, that it stands: whoever has it
misses nothing from then on.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from crossns.v1 import events_pb2
from gateway.events.cursor import Cursor

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Step:
    """`at` is the source's place behind `event`: a Cursor of the store, or (service, token)."""

    at: Cursor | tuple[str, str]
    event: events_pb2.Event | None = None


@asynccontextmanager
async def merged(sources: list[AsyncGenerator[T, None]]) -> AsyncIterator[tuple[list[T], AsyncGenerator[T, None]]]:
    """The first step of each, and all that follows as one stream, until it is left; whatever one raises, it raises."""
    reading = {asyncio.ensure_future(anext(source)): source for source in sources}

    async def rest() -> AsyncGenerator[T, None]:
        while True:
            done, _ = await asyncio.wait(reading, return_when=asyncio.FIRST_COMPLETED)
            for read in done:
                source = reading.pop(read)
                yield read.result()
                reading[asyncio.ensure_future(anext(source))] = source

    stream = rest()
    try:
        done, _ = await asyncio.wait(reading, return_when=asyncio.FIRST_EXCEPTION)
        first = [read.result() for read in reading if read in done]
        reading = {asyncio.ensure_future(anext(source)): source for source in sources}
        yield first, stream
    finally:
        await stream.aclose()
        for read in reading:
            read.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
        for source in sources:
            await source.aclose()
