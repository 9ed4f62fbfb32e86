"""What every call passes on its way to a servicer: trace, caller, policy, deadline; and its errors on the way back.

One interceptor, because four would cost four wrappers per call and per streamed message. A span covers a unary call as a whole
and a stream up to its first response, for a watch may last for days; a stream's end is a short span of its own. Servicers
raise errors of the tree; grpc's own `context.abort` passes as it is; anything else is a bug, logged, and says no more.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from typing import Any, cast

import grpc
from grpc import aio

from crossns import errors, telemetry
from crossns.rpc import identity, status
from crossns.rpc.identity import Identity
from crossns.rpc.policy import Policy

Context = aio.ServicerContext[Any, Any]
Identify = Callable[[Context], Identity]
_Unary = Callable[[Any, Context], Awaitable[Any]]
_Stream = Callable[[Any, Context], AsyncGenerator[Any, None]]

# A caller that names no deadline gets this one for a unary call, so that nothing waits for ever.
UNARY_TIMEOUT_S = 30.0
# Server spans of these codes count as failed; the others are the caller's business (OpenTelemetry's RPC conventions).
_SERVER_FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
# How long a refused client may go on sending, and how long it may pause: one that waits for its answer is told soon.
HEAR_OUT_S = 1.0
_PAUSE_S = 0.1
_END = object()
# (requests stream, responses stream) -> where a handler keeps its behaviour, and what makes such a handler.
_FORMS: dict[tuple[bool, bool], tuple[str, Callable[..., Any]]] = {
    (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
    (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
    (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
    (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
}

_log = logging.getLogger(__name__)


def metadata_of(context: Context) -> dict[str, str | bytes]:
    """What the client sent beside the request."""
    return dict(cast("status.Metadata", context.invocation_metadata() or ()))


def remaining_s(context: Context) -> float | None:
    """What is left until the client's deadline; None where it set none."""
    return context.time_remaining()


class Guard(aio.ServerInterceptor):  # type: ignore[type-arg] # is not generic at run time
    """Stands before every method of a server. `identify` tells who makes a call."""

    def __init__(self, policy: Policy, identify: Identify) -> None:
        self._policy = policy
        self._identify = identify

    async def intercept_service(self, continuation: Any, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = handler_call_details.method
        handler = await continuation(handler_call_details)
        if handler is None:
            return grpc.stream_stream_rpc_method_handler(_unknown)
        form, make = _FORMS[handler.request_streaming, handler.response_streaming]
        wrap: Callable[..., Any] = self._stream if handler.response_streaming else self._unary
        guarded = wrap(method, getattr(handler, form), hears_out=handler.request_streaming)
        return make(guarded, handler.request_deserializer, handler.response_serializer)

    def _admit(self, method: str, context: Context) -> None:
        caller = self._identify(context)
        identity.set_caller(caller)
        self._policy(caller, method)

    def _unary(self, method: str, serve: _Unary, *, hears_out: bool) -> _Unary:
        async def guarded(request: Any, context: Context) -> Any:
            async with _mapped(context, hears_out=hears_out):
                with _observed(method, context) as span:
                    self._admit(method, context)
                    response = await _in_time(serve(request, context), context)
                    _record(span, "OK")
                return response

        return guarded

    def _stream(self, method: str, serve: _Stream, *, hears_out: bool) -> _Stream:
        async def guarded(request: Any, context: Context) -> AsyncGenerator[Any, None]:
            async with _mapped(context, hears_out=hears_out), aclosing(serve(request, context)) as responses:
                with _observed(method, context) as span:
                    begun = telemetry.traceparent()
                    self._admit(method, context)
                    first = await anext(responses, _END)
                    if first is _END:
                        _record(span, "OK")
                        return
                with _end_observed(method, begun, context):
                    yield first
                    async for response in responses:
                        yield response

        return guarded


async def _unknown(_requests: Any, context: Context) -> AsyncGenerator[Any, None]:
    failure = errors.Unimplemented("UNIMPLEMENTED", "this service has no such method: is the client newer than the device?")
    await _refuse(failure, context, hears_out=True)
    yield  # Makes it a stream, which takes any number of requests.


async def _in_time(response: Awaitable[Any], context: Context) -> Any:
    """Await a response; a caller's own deadline is kept by gRPC, which cancels the call."""
    limit_s = UNARY_TIMEOUT_S if remaining_s(context) is None else None
    try:
        async with asyncio.timeout(limit_s) as timer:
            return await response
    except TimeoutError as error:
        if not timer.expired():
            raise
        message = f"not done within {limit_s} s: try again, or set a longer deadline"
        raise errors.DeadlineExceeded("DEADLINE_EXCEEDED", message, timeout_s=limit_s) from error


@asynccontextmanager
async def _mapped(context: Context, *, hears_out: bool) -> AsyncIterator[None]:
    try:
        yield
    except aio.AbortError:
        raise
    except errors.CrossnsError as error:
        await _refuse(error, context, hears_out=hears_out)
    except Exception as error:  # noqa: BLE001 - whatever a servicer forgot to map is a bug
        await _refuse(errors.InvariantError(str(error)), context, hears_out=hears_out)


async def _refuse(error: errors.CrossnsError, context: Context, *, hears_out: bool) -> None:
    if hears_out:
        await hear_out(context)
    refusal = status.of(error)
    await context.abort(status.CODES[error.code], refusal.message, status.trailers(refusal))


async def hear_out(context: Context) -> None:
    """Let a client that streams finish speaking before it is refused. gRPC's Python client takes a message that it can no longer
    send for an INTERNAL error of its own, and never looks at the status that came."""
    loop = asyncio.get_running_loop()
    end = loop.time() + HEAR_OUT_S
    with suppress(TimeoutError):
        async with asyncio.timeout_at(end) as patience:
            message = None
            while message is not aio.EOF:  # type: ignore[attr-defined] # missing in the types
                patience.reschedule(min(end, loop.time() + _PAUSE_S))
                message = await context.read()


@contextmanager
def _observed(method: str, context: Context) -> Iterator[telemetry.Span]:
    """The call's span. A failure is recorded as its code and passes on behind the span's end: what the caller did wrong is no
    fault of this span."""
    parent = str(metadata_of(context).get("traceparent", ""))
    failure: BaseException | None = None
    with telemetry.span(method[1:], parent=parent, kind="server", **_attributes(method)) as span:
        try:
            yield span
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - raised again below
            failure = error
            _tell(span, method, error, context)
    if failure is not None:
        raise failure


@contextmanager
def _end_observed(method: str, begun: str, context: Context) -> Iterator[None]:
    """A short span when the block ends. None is open inside the block, whose stream may outlive many a trace."""
    failure: BaseException | None = None
    try:
        yield
    except BaseException as error:
        failure = error
        raise
    finally:
        with telemetry.span(f"{method[1:]} end", parent=begun, kind="server", **_attributes(method)) as span:
            if failure is None:
                _record(span, "OK")
            else:
                _tell(span, method, failure, context)


def _attributes(method: str) -> dict[str, str]:
    service, _, name = method[1:].partition("/")
    return {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}


def _tell(span: telemetry.Span, method: str, failure: BaseException, context: Context) -> None:
    """A failure's code to the span; of our own bugs all to the log, while the span is open that the line belongs to."""
    code = _code_of(failure, context)
    _record(span, code)
    if code == "INTERNAL" and not isinstance(failure, aio.AbortError):
        _log.error("%s: unexpected error", method, exc_info=failure)


def _record(span: telemetry.Span, code: str) -> None:
    span.set(**{"rpc.grpc.status_code": status.CODES[code].value[0]})
    if code in _SERVER_FAULTS:
        span.fail(code)


def _code_of(failure: BaseException, context: Context) -> str:
    if isinstance(failure, errors.CrossnsError):
        return failure.code
    if isinstance(failure, aio.AbortError):
        return context.code().name
    if isinstance(failure, asyncio.CancelledError | GeneratorExit):
        left_s = remaining_s(context)
        return "DEADLINE_EXCEEDED" if left_s is not None and left_s <= 0 else "CANCELLED"
    return "INTERNAL"
