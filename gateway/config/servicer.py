"""The methods of `crossns.v1.Config`.

What is stored is compared in the store itself, one linearizable read for a whole bundle; only the owners change it.
"""

import uuid
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import aclosing

from crossns import errors, names, rpc, store
from crossns.resource import Resource, etag_of, load
from crossns.v1 import config_pb2, config_pb2_grpc
from gateway import bundle, kind, reference
from gateway.config.apply import Application, planned
from gateway.config.wait import Waiting
from gateway.owner import Owners

# Of one bundle: it is held in memory as a whole.
RESOURCES_MAX = 10_000


class Config(config_pb2_grpc.ConfigServicer):
    """`keys`: of any service of the device."""

    def __init__(self, backend: store.Store, keys: names.Keys, owners: Owners, waiting: Waiting) -> None:
        self._store = backend
        self._keys = keys
        self._owners = owners
        self._waiting = waiting

    async def Apply(
        self, request_iterator: AsyncIterator[config_pb2.ApplyRequest], _context: rpc.Context
    ) -> AsyncIterator[config_pb2.ApplyResponse]:
        request = await _whole(request_iterator)
        _check_request_id(request.request_id)
        plan = await self._plan(request.resources, request.prune_labels)
        if request.validate_only:
            for step in plan.steps:
                yield planned(step)
            return
        application = Application(self._owners, self._waiting, request)
        async with aclosing(application.run(plan)) as answers:
            async for answer in answers:
                yield answer

    async def Diff(self, request: config_pb2.DiffRequest, _context: rpc.Context) -> config_pb2.DiffResponse:
        plan = await self._plan(request.resources, request.prune_labels)
        return config_pb2.DiffResponse(changes=map(planned, plan.steps))

    async def Export(self, request: config_pb2.ExportRequest, _context: rpc.Context) -> config_pb2.ExportResponse:
        tables = {names.check(name, "routeTables", "route_tables") for name in request.route_tables}
        wanted = [
            bundle.stripped(each)
            for of in kind.KINDS.values()
            async for each in self._owners.all_of(of)
            if bundle.is_wanted(each)
            and bundle.carries(each, request.labels)
            and not (tables and tables.isdisjoint(reference.tables(each)))
        ]
        return config_pb2.ExportResponse(resources=[kind.wrapped(each) for level in bundle.ordered(wanted) for each in level])

    async def Wait(self, request: config_pb2.WaitRequest, _context: rpc.Context) -> AsyncIterator[config_pb2.WaitResponse]:
        async with aclosing(self._waiting.follow(request.targets)) as answers:
            async for answer in answers:
                yield answer

    async def _plan(self, resources: Iterable[config_pb2.Resource], prune_labels: Mapping[str, str]) -> bundle.Plan:
        wanted = bundle.parse(resources)
        keys = [self._keys.of(names.owner(each.name)).desired(each.name) for each in wanted]
        stored = {each.name: each for each in map(self._loaded, (await self._store.get_many(keys)).values())}
        named = {each.name for each in wanted}
        pruned = [each for each in await self._labelled(prune_labels) if each.name not in named]
        return bundle.plan(wanted, stored, pruned)

    async def _labelled(self, labels: Mapping[str, str]) -> list[Resource]:
        """What carries all of the labels and can be deleted; nothing without labels."""
        if not labels:
            return []
        listings = [await self._store.list(self._keys.of(service).desired("")) for service in names.SERVICES]
        found = [self._loaded(entry) for listing in listings for entry in listing.entries]
        return [each for each in found if bundle.carries(each, labels) and bundle.is_deletable(each)]

    def _loaded(self, entry: store.Entry) -> Resource:
        """The stored resource, as what its owner calls it now (etag)."""
        _, _, name = self._keys.parse(entry.key) or ("", "", "")
        resource = load(names.collection(name), entry.value)
        resource.etag = etag_of(entry.mod_revision)
        return resource


async def _whole(requests: AsyncIterator[config_pb2.ApplyRequest]) -> config_pb2.ApplyRequest:
    """The pieces of a bundle as one, with the options of the first."""
    whole = config_pb2.ApplyRequest()
    async for piece in requests:
        if not whole.resources:
            whole.MergeFrom(piece)
        else:
            whole.resources.extend(piece.resources)
        if len(whole.resources) > RESOURCES_MAX:
            raise errors.InvalidSpec("resources", f"a bundle has at most {RESOURCES_MAX}: apply it in parts", max=RESOURCES_MAX)
    return whole


def _check_request_id(text: str) -> None:
    try:
        uuid.UUID(text or str(uuid.NAMESPACE_URL))
    except ValueError as error:
        raise errors.InvalidSpec("request_id", f"{errors.bounded(text)!r} is no UUID: give one, or none") from error
