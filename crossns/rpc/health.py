"""grpc.health.v1 from a predicate: a server is serving when its process says that it is ready.

Kept apart from grpc_health's own servicer, which must be told of every change; here readiness is asked when a client asks.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection

from grpc_health.v1 import health_pb2, health_pb2_grpc

from crossns import errors
from crossns.rpc.guard import Context

SERVICE = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
# How late a watcher learns of a change. Only while somebody watches.
WATCH_INTERVAL_S = 1.0

_Status = health_pb2.HealthCheckResponse


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc] # has no types
    """`services` are the names that may be asked for, "" the server as a whole."""

    def __init__(self, services: Collection[str], ready: Callable[[], bool]) -> None:
        self._services = frozenset(services) | {"", SERVICE}
        self._ready = ready

    async def Check(self, request: health_pb2.HealthCheckRequest, _context: Context) -> health_pb2.HealthCheckResponse:
        status = self._status(request.service)
        if status == _Status.SERVICE_UNKNOWN:
            message = (
                f"no service {errors.bounded(request.service)!r} here: ask for one of {', '.join(sorted(self._services - {''}))}"
            )
            raise errors.NotFound("NOT_FOUND", message, service=errors.bounded(request.service))
        return _Status(status=status)

    async def List(self, _request: health_pb2.HealthListRequest, _context: Context) -> health_pb2.HealthListResponse:
        return health_pb2.HealthListResponse(
            statuses={service: _Status(status=self._status(service)) for service in self._services}
        )

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, _context: Context
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        told = None
        while True:
            status = self._status(request.service)
            if status != told:
                told = status
                yield _Status(status=status)
            await asyncio.sleep(WATCH_INTERVAL_S)

    def _status(self, service: str) -> int:
        if service not in self._services:
            return int(_Status.SERVICE_UNKNOWN)
        return int(_Status.SERVING if self._ready() else _Status.NOT_SERVING)
