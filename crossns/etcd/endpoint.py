"""Channels to etcd's members, and which of them is in use. Called by `client` and `watch` for every call.

One channel per endpoint, one endpoint in use: whoever finds it failing moves on to the next, for all. gRPC never repeats a call
by itself, and every call is bounded in time, so that what is asked of a frozen or cut-off member is known to have failed.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from aetcd import rpc

from crossns import errors, settings
from crossns.etcd import failure

CALL_TIMEOUT_S = 5.0
_OPTIONS = (
    # A write that gRPC repeats could be done twice.
    ("grpc.enable_retries", 0),
    # etcd answers pings more often than each 5 s with GOAWAY, and those without a call too.
    ("grpc.keepalive_time_ms", 6000),
    ("grpc.keepalive_timeout_ms", 2000),
    # Without it a frozen server is not noticed (seen with grpcio 1.85).
    ("grpc.http2.ping_timeout_ms", 2000),
    ("grpc.http2.max_pings_without_data", 0),
    # The first is also the time a connection attempt gets; gRPC's defaults are 20 s and 120 s.
    ("grpc.min_reconnect_backoff_ms", 2000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # A list of everything is paged, but one transaction may answer with thousands of values.
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    # Two stores of one process share no connection and no back-off.
    ("grpc.use_local_subchannel_pool", 1),
)
# A member without a leader refuses such a call at once, and ends such a watch.
METADATA = (("hasleader", "true"),)
END_OF_STREAM: Any = grpc.aio.EOF  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True, eq=False)
class Endpoint:
    target: str
    channel: grpc.aio.Channel
    kv: Any
    watch: Any
    lease: Any

    @property
    def is_connected(self) -> bool:
        return self.channel.get_state() is grpc.ChannelConnectivity.READY


class Endpoints:
    def __init__(self, config: settings.Etcd) -> None:
        """Needs a running event loop. InvalidSpec names a TLS file that cannot be read."""
        credentials = _credentials(config)
        self._all = tuple(_endpoint(target, credentials) for target in config.endpoints)
        self._index = 0

    @property
    def current(self) -> Endpoint:
        return self._all[self._index]

    async def close(self) -> None:
        for endpoint in self._all:
            await endpoint.channel.close(None)

    async def call(self, method: Callable[[Endpoint], Any], request: Any) -> Any:
        """Make a call that may be repeated: on each endpoint in turn until one answers."""
        for _ in self._all[1:]:
            with contextlib.suppress(errors.StoreUnavailable):
                return await self.call_once(method, request)
        return await self.call_once(method, request)

    async def call_once(self, method: Callable[[Endpoint], Any], request: Any) -> Any:
        with self.use() as endpoint:
            return await method(endpoint)(request, timeout=CALL_TIMEOUT_S, metadata=METADATA)

    @contextlib.contextmanager
    def use(self) -> Iterator[Endpoint]:
        """The endpoint to use; what gRPC raises within is mapped, and an endpoint that is unavailable is left."""
        endpoint = self.current
        try:
            yield endpoint
        except grpc.aio.AioRpcError as error:
            if error.code() in failure.LEAVING:
                self._leave(endpoint)
            raise failure.of(error, endpoint.target) from error
        except errors.StoreUnavailable:
            self._leave(endpoint)
            raise
        except (asyncio.InvalidStateError, TimeoutError) as error:
            # A stream that ended while it was written to, or that takes nothing.
            self._leave(endpoint)
            raise errors.StoreUnavailable(f"the stream to etcd broke ({endpoint.target})", target=endpoint.target) from error

    def _leave(self, endpoint: Endpoint) -> None:
        if endpoint is self.current:
            self._index = (self._index + 1) % len(self._all)


def _endpoint(target: str, credentials: grpc.ChannelCredentials | None) -> Endpoint:
    if credentials is None:
        channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
    else:
        channel = grpc.aio.secure_channel(target, credentials, options=_OPTIONS)
    return Endpoint(target, channel, rpc.KVStub(channel), rpc.WatchStub(channel), rpc.LeaseStub(channel))


def _credentials(config: settings.Etcd) -> grpc.ChannelCredentials | None:
    if config.ca is None and config.cert is None and config.key is None:
        return None
    if (config.cert is None) != (config.key is None):
        raise errors.InvalidSpec("CROSSNS_ETCD_CERT", "goes together with its key, CROSSNS_ETCD_KEY: give both")
    return grpc.ssl_channel_credentials(
        root_certificates=_read(config.ca, "CROSSNS_ETCD_CA"),
        private_key=_read(config.key, "CROSSNS_ETCD_KEY"),
        certificate_chain=_read(config.cert, "CROSSNS_ETCD_CERT"),
    )


def _read(path: Path | None, variable: str) -> bytes | None:
    try:
        return path.read_bytes() if path is not None else None
    except OSError as error:
        raise errors.InvalidSpec(variable, f"{path} cannot be read: {error.strerror}") from error
