"""Channels to services, the gateway included: the trace goes along, a dead peer is noticed, a new one is found at once."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc import aio

from crossns import telemetry

# One message; the same on both sides, so that nothing can be sent that the other side refuses.
MESSAGE_MAX_BYTES = 4 * 1024 * 1024
MESSAGE_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_MAX_BYTES),
    ("grpc.max_send_message_length", MESSAGE_MAX_BYTES),
)
# A frozen peer is noticed after 20 + 5 s; `ping_timeout_ms` is what grpc >= 1.60 really looks at.
KEEPALIVE_OPTIONS = (
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
)
_OPTIONS = (
    *MESSAGE_OPTIONS,
    *KEEPALIVE_OPTIONS,
    # A service that restarts is back within a second: grpc's own steps (1 s to 2 min) would miss it.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
    # Nothing is shared between channels, so that closing one closes its connections.
    ("grpc.use_local_subchannel_pool", 1),
    # No proxy stands between parts of one device, whatever the environment says.
    ("grpc.enable_http_proxy", 0),
)


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files of a client: who signed the server's certificate, and its own certificate and key."""

    ca: Path
    cert: Path
    key: Path

    def credentials(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(self.ca.read_bytes(), self.key.read_bytes(), self.cert.read_bytes())


def channel(target: str, tls: Tls | None = None) -> aio.Channel:
    """A channel to `unix:PATH` or `HOST:PORT`. Calls raise AioRpcError: `translated` or `error_of` make it one of the tree."""
    interceptors: Any = (_TracedUnary(), _TracedStream(), _TracedStreams()) if telemetry.is_enabled() else ()
    if tls is None:
        return aio.insecure_channel(target, options=_OPTIONS, interceptors=interceptors)
    return aio.secure_channel(target, tls.credentials(), options=_OPTIONS, interceptors=interceptors)


@contextmanager
def _observed(details: Any) -> Iterator[tuple[telemetry.Span, Any]]:
    """A client span, and the call's details with the span's context in the metadata. Of a stream it covers the opening; how it
    goes on is told by the server's spans."""
    name = details.method.decode().removeprefix("/")
    service, _, method = name.partition("/")
    attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
    with telemetry.span(name, kind="client", **attributes) as span:
        others = ((key, value) for key, value in details.metadata or () if key != "traceparent")
        yield span, details._replace(metadata=aio.Metadata(*others, ("traceparent", telemetry.traceparent())))


def _record(span: telemetry.Span, code: grpc.StatusCode) -> None:
    span.set(**{"rpc.grpc.status_code": code.value[0]})
    if code is not grpc.StatusCode.OK:
        span.fail(code.name)


class _TracedUnary(aio.UnaryUnaryClientInterceptor):  # type: ignore[type-arg] # is not generic at run time
    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        with _observed(client_call_details) as (span, details):
            call = await continuation(details, request)
            try:
                await call
            except aio.AioRpcError as failure:
                _record(span, failure.code())
            except asyncio.CancelledError:
                _record(span, grpc.StatusCode.CANCELLED)
                raise
            else:
                _record(span, grpc.StatusCode.OK)
        # Awaited once more by the caller, who gets the response or the error from it.
        return call


class _TracedStream(aio.UnaryStreamClientInterceptor):  # type: ignore[type-arg]
    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        with _observed(client_call_details) as (_, details):
            return await continuation(details, request)


class _TracedStreams(aio.StreamStreamClientInterceptor):  # type: ignore[type-arg]
    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        with _observed(client_call_details) as (_, details):
            return await continuation(details, request_iterator)
