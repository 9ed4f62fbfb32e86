"""The gRPC server of every service: one line in `app` makes it listen, guarded, with health and reflection.

Its errors, callers, deadlines and traces are the guard's. gRPC unlinks at its end the path that it bound, whoever listens there
by then: hence `socketfile`.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
from grpc import aio
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from crossns.rpc import health, identity
from crossns.rpc.client import KEEPALIVE_OPTIONS, MESSAGE_OPTIONS
from crossns.rpc.guard import Context, Guard, Identify, metadata_of
from crossns.rpc.policy import Policy
from crossns.rpc.socketfile import SocketFile

# (add_XServicer_to_server, servicer)
Service = tuple[Callable[[Any, aio.Server], None], Any]

UNIX = "unix:"
# A socket's group may connect, nobody else: its directory's group is the gateway's.
_SOCKET_UMASK = 0o007
_OPTIONS = (
    *MESSAGE_OPTIONS,
    *KEEPALIVE_OPTIONS,
    # Two servers on one TCP port would each get a part of the calls.
    ("grpc.so_reuseport", 0),
    # A client that vanished without a word is noticed between calls, too.
    ("grpc.keepalive_permit_without_calls", 1),
    # Clients may ping as often as that; common ones do every 10 s or more.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
)


def by_metadata(context: Context) -> identity.Identity:
    """The caller as the gateway says: right only on sockets that nobody else can open."""
    return identity.of_metadata(metadata_of(context))


class Server:
    """Serves `services` (by full name, such as `crossns.v1.RouteTables`) on `addresses`: `unix:PATH` or `HOST:PORT`.

    `policy` decides about every method, `identify` tells it the caller, `ready` answers health checks.
    """

    def __init__(
        self,
        address: str | Sequence[str],
        services: Mapping[str, Service],
        policy: Policy,
        ready: Callable[[], bool],
        *,
        credentials: grpc.ServerCredentials | None = None,
        identify: Identify = by_metadata,
    ) -> None:
        self._addresses = (address,) if isinstance(address, str) else tuple(address)
        self._credentials = credentials
        self._files: list[SocketFile] = []
        self._server = aio.server(interceptors=[Guard(policy, identify)], options=_OPTIONS)
        for add, servicer in services.values():
            add(servicer, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(health.Health(services, ready), self._server)
        reflection.enable_server_reflection((*services, health.SERVICE, reflection.SERVICE_NAME), self._server)
        # Ports in the order of the TCP addresses: what port 0 became.
        self.ports: list[int] = []

    async def start(self) -> None:
        """Listen; raises OSError where an address cannot be had, and listens nowhere then."""
        try:
            for address in self._addresses:
                if address.startswith(UNIX):
                    self._bind_unix(Path(address.removeprefix(UNIX)))
                else:
                    self.ports.append(self._bind(address))
        except OSError:
            # Only a server that was started gives back what it has bound.
            await self._server.start()
            await self.stop(0)
            raise
        await self._server.start()

    async def stop(self, grace_s: float) -> None:
        """Take no new calls, give the running ones `grace_s`, then cancel them."""
        for file in self._files:
            file.remove()
        await self._server.stop(grace_s)

    def _bind(self, address: str) -> int:
        try:
            if self._credentials is None:
                return self._server.add_insecure_port(address)
            return self._server.add_secure_port(address, self._credentials)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}: is the address on this machine, and free?") from error

    def _bind_unix(self, path: Path) -> None:
        file = SocketFile(path)
        umask = os.umask(_SOCKET_UMASK)
        try:
            self._bind(f"{UNIX}{file.own}")
        finally:
            os.umask(umask)
        file.place()
        self._files.append(file)
