"""Events that a service tells by itself, such as those of the kernel: read from its own `Events`, over its restarts.

Called by the servicer, once for each reader: who reads slowly is slow there, and the service tells him what he missed.
"""

import asyncio
import random
from collections.abc import AsyncGenerator

import grpc
from grpc import aio

from crossns import chronicle, rpc
from crossns.retry import Backoff
from crossns.v1 import events_pb2, events_pb2_grpc
from gateway.events.stream import Step

_BACKOFF = Backoff(0.05, 1.0, 2.0)
# A service that does not answer is no reason to hold up what others tell.
_PATIENCE_S = 0.5


async def told(
    service: str, channel: aio.Channel, request: events_pb2.WatchRequest, metadata: tuple[tuple[str, str], ...]
) -> AsyncGenerator[Step, None]:
    """`request` with the service's own token. What happened while it could not be reached is told as missed."""
    stub = events_pb2_grpc.EventsStub(channel)
    asked = events_pb2.WatchRequest()
    asked.CopyFrom(request)
    attempt = 0
    is_absent = False
    while True:
        call = stub.Watch(asked, metadata=metadata)
        try:
            async with asyncio.timeout(_PATIENCE_S if not is_absent and not attempt else None):
                await call.initial_metadata()
            if is_absent and not asked.resume_token and not call.done():
                gap = chronicle.missed(0, f"the service {service} was not there")
                yield Step((service, ""), gap)
            yield Step((service, asked.resume_token))
            async for event in call:
                attempt, is_absent = 0, False
                asked.resume_token = event.resume_token
                yield Step((service, event.resume_token), event)
        except TimeoutError:
            yield Step((service, asked.resume_token))
        except aio.AioRpcError as failure:
            if failure.code() is grpc.StatusCode.INVALID_ARGUMENT:
                raise rpc.error_of(failure) from failure
        finally:
            call.cancel()
        is_absent = True
        await asyncio.sleep(_BACKOFF.delay(attempt, random.random()))
        attempt += 1
