"""Forwards calls to the services that own them, by gRPC service name, as bytes: no message is parsed on the way.

What a client sends arrives at the service as it was (metadata, deadline, cancellation, every message and its order), and so does
the answer, status and details included. Added is who calls; taken away is what a client says about that itself.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from functools import partial
from typing import Any, cast

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from grpc import aio

from crossns import rpc
from crossns.rpc import guard, identity, status
from gateway.owner import absence

# Each hop's own.
_NOT_FORWARDED = frozenset({"user-agent"})


def service(name: str, owner: str, channel: aio.Channel) -> rpc.Service:
    """What `rpc.Server` takes for the gRPC service `name`, forwarded over `channel` to the process `owner`."""
    descriptor = descriptor_pool.Default().FindServiceByName(name)
    handlers = {method.name: _forwarded(method, owner, channel) for method in descriptor.methods}

    def add(_servicer: None, server: aio.Server) -> None:
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))

    return add, None


def _forwarded(method: MethodDescriptor, owner: str, channel: aio.Channel) -> "grpc.RpcMethodHandler[Any, Any]":
    path = f"/{method.containing_service.full_name}/{method.name}"
    if not method.client_streaming and not method.server_streaming:
        # Unary calls are most of all calls, and cost gRPC half of what a stream costs.
        return grpc.unary_unary_rpc_method_handler(partial(_unary, channel.unary_unary(path, None, None), owner))
    if not method.client_streaming:
        return grpc.unary_stream_rpc_method_handler(partial(_stream, channel.unary_stream(path, None, None), owner))
    if not method.server_streaming:
        return grpc.stream_unary_rpc_method_handler(partial(_unary, channel.stream_unary(path, None, None), owner))
    return grpc.stream_stream_rpc_method_handler(partial(_stream, channel.stream_stream(path, None, None), owner))


async def _unary(invoke: Any, owner: str, request: bytes | AsyncIterator[bytes], context: rpc.Context) -> bytes:
    call = invoke(request, timeout=guard.remaining_s(context), metadata=_outgoing(context))
    try:
        response: bytes = await call
    except aio.AioRpcError as failure:
        await _refuse(failure, owner, context)
    if initial := await call.initial_metadata():
        await context.send_initial_metadata(tuple(initial))
    context.set_trailing_metadata(tuple(await call.trailing_metadata()))
    return response


async def _stream(
    invoke: Any, owner: str, request: bytes | AsyncIterator[bytes], context: rpc.Context
) -> AsyncGenerator[bytes, None]:
    call = invoke(request, timeout=guard.remaining_s(context), metadata=_outgoing(context))
    try:
        # Also when there is none: so the client learns that the stream stands before something happens on it.
        await context.send_initial_metadata(tuple(await call.initial_metadata()))
        async for response in call:
            yield response
        context.set_trailing_metadata(tuple(await call.trailing_metadata()))
    except aio.AioRpcError as failure:
        await _refuse(failure, owner, context)
    finally:
        call.cancel()


def _outgoing(context: rpc.Context) -> tuple[tuple[str, str | bytes], ...]:
    given = cast("status.Metadata", context.invocation_metadata() or ())
    kept = ((key, value) for key, value in given if key not in _NOT_FORWARDED and not key.startswith(identity.RESERVED_PREFIX))
    return (*kept, *rpc.caller().metadata)


async def _refuse(failure: aio.AioRpcError, owner: str, context: rpc.Context) -> None:
    if absent := absence(failure, owner):
        raise absent from failure
    trailing = tuple(cast("status.Metadata", failure.trailing_metadata() or ()))
    await context.abort(failure.code(), failure.details() or "", trailing)
