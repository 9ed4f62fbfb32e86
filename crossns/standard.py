"""The five standard methods (AIP-131 to 135), once for every kind: from a request to the registry.

Servicers call them; what is particular to a kind stands in its Kind and its admission.
"""

from typing import Any

from google.protobuf.message import Message

from crossns import errors, names
from crossns.registry import Registry, options_of
from crossns.resource import Resource

# What `parent` must be to list the children of all parents.
ANY = "-"


async def get(registry: Registry, request: Any) -> Any:
    return await registry.get(names.check(request.name, registry.kind.collection, "name"))


async def list_page(registry: Registry, request: Any, reply: type[Message]) -> Any:
    """The reply's one repeated field gets the page."""
    prefix = f"{registry.kind.collection}/"
    if hasattr(request, "parent"):
        prefix = _children(registry, request.parent)
    page, token = await registry.page(prefix, request.page_size, request.page_token)
    field = next(each.name for each in reply.DESCRIPTOR.fields if each.name != "next_page_token")
    return reply(**{field: page, "next_page_token": token})


async def create(registry: Registry, request: Any) -> Any:
    wanted = _given(registry, request)
    name = (
        f"{registry.kind.collection}/{names.check_id(getattr(request, f'{registry.kind.field}_id'), f'{registry.kind.field}_id')}"
    )
    if hasattr(request, "parent"):
        name = f"{names.check(request.parent, 'routeTables', 'parent')}/{name}"
    if wanted.name and wanted.name != name:
        field = f"{registry.kind.field}.name"
        raise errors.InvalidSpec(field, f"is {errors.bounded(wanted.name)!r}, but the request creates {name}: leave it out")
    wanted.name = name
    return await registry.create(wanted, options_of(request))


async def update(registry: Registry, request: Any) -> Any:
    wanted = _given(registry, request)
    names.check(wanted.name, registry.kind.collection, f"{registry.kind.field}.name")
    return await registry.update(wanted, request.update_mask, options_of(request))


async def delete(registry: Registry, request: Any) -> Any:
    name = names.check(request.name, registry.kind.collection, "name")
    deleted = await registry.delete(name, options_of(request))
    return deleted if deleted is not None else registry.kind.message(name=name)


def _given(registry: Registry, request: Any) -> Resource:
    given: Resource = getattr(request, registry.kind.field)
    wanted = type(given)()
    wanted.CopyFrom(given)  # type: ignore[arg-type]
    return wanted


def _children(registry: Registry, parent: str) -> str:
    """The name prefix of a parent's children; of all parents' for `routeTables/-`."""
    if parent == f"routeTables/{ANY}":
        return "routeTables/"
    return f"{names.check(parent, 'routeTables', 'parent')}/{registry.kind.collection}/"
