"""The services behind the gateway: which owns what, what is said when one does not answer, and the standard methods of all kinds.

Called by the router, which passes clients' bytes on, and by the Config servicer, which calls the owners itself, for its caller.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
from google.protobuf import field_mask_pb2, message_factory
from grpc import aio

from crossns import errors, names, rpc
from crossns.layout import Layout
from crossns.resource import Resource, overwrite
from gateway import kind
from gateway.kind import Kind

# gRPC service -> the process that serves it.
SERVED_BY: Mapping[str, str] = {f"crossns.v1.{each.plural}": names.OWNERS[each.collection] for each in kind.KINDS.values()}
# One standard method on one device takes milliseconds; a service that restarts is given its time.
TIMEOUT_S = 30.0
PAGE_SIZE = 1000
_EVERYTHING = field_mask_pb2.FieldMask(paths=["*"])

Channels = Mapping[str, aio.Channel]


def channels(layout: Layout) -> dict[str, aio.Channel]:
    """By process. Nothing is connected before the first call."""
    return {process: rpc.channel(f"unix:{layout.service_socket(process)}") for process in names.SERVICES}


def absence(failure: aio.AioRpcError, owner: str) -> errors.ServiceUnavailable | None:
    """What to say when nobody answered the call. None where somebody did: a service's own words always carry details."""
    if failure.code() is not grpc.StatusCode.UNAVAILABLE or tuple(failure.trailing_metadata() or ()):
        return None
    message = f"the service {owner} does not answer (is it running?): try again; `crossns status` tells more"
    return errors.ServiceUnavailable("SERVICE_UNAVAILABLE", message, service=owner)


class Owners:
    """Standard methods of any kind, called as whoever called the gateway. Raise what the service raised. `options`: more
    fields of the requests, for the kinds whose requests have them."""

    def __init__(self, by_process: Channels) -> None:
        self._channels = by_process

    async def create(self, wanted: Resource, **options: Any) -> Resource:
        of = kind.of(wanted.name)
        fields = {f"{of.field}_id": names.resource_id(wanted.name), "parent": names.parent(wanted.name), of.field: wanted}
        created: Resource = await self._call(of, "Create", **fields, **options)
        return created

    async def update(self, wanted: Resource, etag: str, **options: Any) -> Resource:
        """Replace spec and labels of the resource that `etag` was read of."""
        of = kind.of(wanted.name)
        given = type(wanted)()
        overwrite(given, wanted)
        given.etag = etag
        updated: Resource = await self._call(of, "Update", **{of.field: given}, update_mask=_EVERYTHING, **options)
        return updated

    async def delete(self, name: str, etag: str, **options: Any) -> None:
        await self._call(kind.of(name), "Delete", name=name, etag=etag, allow_missing=True, **options)

    async def all_of(self, of: Kind) -> AsyncIterator[Resource]:
        """Every resource of a kind, by name."""
        token = ""
        while True:
            page = await self._call(of, "List", parent="routeTables/-", page_size=PAGE_SIZE, page_token=token)
            for descriptor, value in page.ListFields():
                if descriptor.name != "next_page_token":
                    for resource in value:
                        yield resource
            token = page.next_page_token
            if not token:
                return

    async def _call(self, of: Kind, verb: str, **fields: Any) -> Any:
        method = of.method(verb)
        owner = names.OWNERS[of.collection]
        response = message_factory.GetMessageClass(method.output_type)
        invoke = self._channels[owner].unary_unary(
            f"/{method.containing_service.full_name}/{method.name}",
            lambda request: request.SerializeToString(),
            response.FromString,
        )
        try:
            return await invoke(kind.request(method, **fields), timeout=TIMEOUT_S, metadata=rpc.caller().metadata)
        except aio.AioRpcError as failure:
            raise absence(failure, owner) or rpc.error_of(failure) from failure
