"""The API as the commands use it: one channel to the gateway, a deadline for all of a command, errors of the tree.

`remote` makes an asynchronous function a command: it adds the options of the connection, opens the channel and the trace's
root span, and hands over a `Client`.
"""

import asyncio
import functools
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from google.protobuf import field_mask_pb2
from grpc import aio

from crossns import errors, names, rpc, settings, telemetry
from crossns.cli import options
from crossns.cli.kinds import Kind, of_name
from crossns.resource import Resource
from crossns.v1 import (
    config_pb2_grpc,
    events_pb2_grpc,
    interface_pb2,
    interface_pb2_grpc,
    neighbor_pb2,
    neighbor_pb2_grpc,
    route_pb2,
    route_pb2_grpc,
    route_table_pb2,
    route_table_pb2_grpc,
    rule_pb2,
    rule_pb2_grpc,
    v_service_pb2,
    v_service_pb2_grpc,
)

_SERVICES: dict[str, tuple[Any, Callable[[aio.Channel], Any]]] = {
    "routeTables": (route_table_pb2, route_table_pb2_grpc.RouteTablesStub),
    "interfaces": (interface_pb2, interface_pb2_grpc.InterfacesStub),
    "routes": (route_pb2, route_pb2_grpc.RoutesStub),
    "rules": (rule_pb2, rule_pb2_grpc.RulesStub),
    "neighbors": (neighbor_pb2, neighbor_pb2_grpc.NeighborsStub),
    "vServices": (v_service_pb2, v_service_pb2_grpc.VServicesStub),
}
_PAGE_SIZE = 1000
_LOCAL = "unix:"


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the gateway is. `timeout_s` None is no limit at all."""

    target: str
    tls: rpc.Tls | None
    timeout_s: float | None

    @property
    def is_local(self) -> bool:
        return self.target.startswith(_LOCAL)

    def answers(self) -> bool:
        """Whether somebody listens on this device, now."""
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(self.target.removeprefix(_LOCAL)) == 0


def connection_of(given: dict[str, Any]) -> Connection:
    """From the options; CROSSNS_SERVER, then the device's own gateway, stand in for --server."""
    server = (
        given["server"] or os.environ.get("CROSSNS_SERVER") or f"unix:{settings.from_environ(os.environ).layout.gateway_socket}"
    )
    files: list[Path | None] = [given["tls_ca"], given["tls_cert"], given["tls_key"]]
    if not any(files):
        return Connection(server, None, given["timeout_s"])
    if None in files:
        raise click.UsageError("--tls-ca, --tls-cert and --tls-key belong together: give all three")
    ca, cert, key = (file for file in files if file is not None)
    return Connection(server, rpc.Tls(ca, cert, key), given["timeout_s"])


class Client:
    """The gateway's services. What a call raises is an error of the tree that says what to do."""

    def __init__(self, channel: aio.Channel, connection: Connection) -> None:
        self.channel = channel
        self.connection = connection
        self.config = config_pb2_grpc.ConfigStub(channel)
        self.events = events_pb2_grpc.EventsStub(channel)
        self._stubs = {collection: make(channel) for collection, (_, make) in _SERVICES.items()}
        self._began = time.monotonic()

    def remaining_s(self) -> float | None:
        """Of the command's time; None for no limit."""
        if self.connection.timeout_s is None:
            return None
        return max(0.001, self.connection.timeout_s - (time.monotonic() - self._began))

    async def call(self, method: Callable[..., Awaitable[Any]], request: Any) -> Any:
        with self._explained():
            return await method(request, timeout=self.remaining_s())

    async def stream(self, method: Callable[..., Any], request: Any) -> AsyncIterator[Any]:
        """Whoever ends it early ends the call, too."""
        with self._explained():
            call = method(request, timeout=self.remaining_s())
            try:
                async for response in call:
                    yield response
            finally:
                call.cancel()

    async def get(self, name: str) -> Resource:
        kind = of_name(name)
        found: Resource = await self._invoke(kind, f"Get{kind.name}", name=name)
        return found

    async def list(self, kind: Kind, table: str = "-") -> AsyncIterator[Resource]:
        """All of a kind, by name; `table` limits what is below a table to that one's."""
        parent = {"parent": f"routeTables/{table}"} if kind.collection in names.NESTED else {}
        token = ""
        while True:
            page = await self._invoke(kind, f"List{kind.name}s", page_size=_PAGE_SIZE, page_token=token, **parent)
            for resource in getattr(page, f"{kind.field}s"):
                yield resource
            token = page.next_page_token
            if not token:
                return

    async def create(self, kind: Kind, identifier: str, resource: Resource) -> Resource:
        fields = {f"{kind.field}_id": identifier, kind.field: resource}
        stored: Resource = await self._invoke(kind, f"Create{kind.name}", **fields)
        return stored

    async def update(self, resource: Resource, paths: Sequence[str]) -> Resource:
        """Change the fields that `paths` name, as a field mask does."""
        kind = of_name(resource.name)
        fields = {kind.field: resource, "update_mask": field_mask_pb2.FieldMask(paths=paths)}
        stored: Resource = await self._invoke(kind, f"Update{kind.name}", **fields)
        return stored

    async def delete(self, name: str, **how: Any) -> Resource:
        """`how`: fields of Delete requests; those that the kind's has."""
        kind = of_name(name)
        known = getattr(_SERVICES[kind.collection][0], f"Delete{kind.name}Request").DESCRIPTOR.fields_by_name
        fields = {field: value for field, value in how.items() if field in known}
        deleted: Resource = await self._invoke(kind, f"Delete{kind.name}", name=name, **fields)
        return deleted

    async def identity(self, table: str) -> route_table_pb2.RouteTableIdentity:
        request = route_table_pb2.GetIdentityRequest(name=table)
        identity: route_table_pb2.RouteTableIdentity = await self.call(self._stubs["routeTables"].GetIdentity, request)
        return identity

    async def _invoke(self, kind: Kind, method: str, **fields: Any) -> Any:
        messages, _ = _SERVICES[kind.collection]
        return await self.call(getattr(self._stubs[kind.collection], method), getattr(messages, f"{method}Request")(**fields))

    def _explained(self) -> "_Explained":
        return _Explained(self.connection)


class _Explained:
    """Calls inside the block raise errors of the tree. Where nobody answered at all it is said what to do about that."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if not isinstance(error, aio.AioRpcError):
            return
        known = rpc.error_of(error)
        if rpc.status_of(error) is None and isinstance(known, errors.TemporaryError) and known.code == "UNAVAILABLE":
            raise errors.ServiceUnavailable("SERVICE_UNAVAILABLE", self._absence()) from error
        raise known from error

    def _absence(self) -> str:
        if not self._connection.is_local:
            where = self._connection.target
            return f"nothing answers at {where}: is --server right, and does it want --tls-ca, --tls-cert and --tls-key?"
        if self._connection.answers():
            return "crossns ended before it had answered, and is there again: try again"
        return "no crossns is running here: start it with `crossns up` (or name another device with --server)"


def remote(
    timeout_s: float | None = options.TIMEOUT_S,
) -> Callable[[Callable[..., Awaitable[int | None]]], Callable[..., int]]:
    """Makes a command's function of a coroutine function that takes a Client and the command's own options.

    `timeout_s` holds where --timeout is not given; None is no limit.
    """

    def decorate(command: Callable[..., Awaitable[int | None]]) -> Callable[..., int]:
        @options.connection
        @click.pass_context
        @functools.wraps(command)
        def run(context: click.Context, /, **given: Any) -> int:
            above = context.find_root().obj or {}
            chosen = {name: given.pop(name) or above.get(name) for name in options.CONNECTION}
            chosen["timeout_s"] = chosen["timeout_s"] or timeout_s
            return asyncio.run(_traced(context.command_path, command, connection_of(chosen), given))

        return run

    return decorate


async def _traced(path: str, command: Callable[..., Awaitable[int | None]], connection: Connection, given: dict[str, Any]) -> int:
    telemetry.setup("cli")
    try:
        with telemetry.span(path, parent=os.environ.get("TRACEPARENT", "")):
            async with rpc.channel(connection.target, connection.tls) as channel:
                return await command(Client(channel, connection), **given) or 0
    finally:
        telemetry.shutdown()
