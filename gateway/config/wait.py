"""Waits until resources are as they were asked to be, or gone, and tells every step on the way. It watches, it does not ask.

Called by `Config.Wait` for clients, and by `apply` between deletions of which one needs the other.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from crossns import errors, names, store
from crossns.cache import Cache
from crossns.registry import not_found
from crossns.resource import Status, load, load_status
from crossns.v1 import config_pb2
from gateway.config.progress import Goal, progress


class Waiting:
    """Sees the device through `cache`; what there is when a waiting begins is read from the store itself."""

    def __init__(self, backend: store.Store, cache: Cache, keys: names.Keys) -> None:
        self._store = backend
        self._cache = cache
        self._keys = keys

    async def follow(self, targets: Sequence[config_pb2.WaitTarget]) -> AsyncGenerator[config_pb2.WaitResponse, None]:
        """How far each is, now and on every change, until all are done. Raises NotFound where there is nothing, or no longer,
        that could become READY."""
        goals = await self._goals(targets)
        changed = dict.fromkeys(goals)
        moved = asyncio.Event()

        def notice(changes: tuple[store.Change, ...]) -> None:
            for change in changes:
                _, _, name = self._keys.parse(change.key) or ("", "", "")
                if name in goals:
                    changed[name] = None
                    moved.set()

        unsubscribe = self._cache.subscribe(notice)
        told: dict[str, config_pb2.WaitResponse] = {}
        try:
            while goals:
                while changed:
                    name = next(iter(changed))
                    del changed[name]
                    response = self._progress(goals[name])
                    if response.done:
                        del goals[name]
                    if told.get(name) != response:
                        told[name] = response
                        yield response
                moved.clear()
                if goals:
                    await moved.wait()
        finally:
            unsubscribe()

    async def _goals(self, targets: Sequence[config_pb2.WaitTarget]) -> dict[str, Goal]:
        """The goals by name, once the cache has what the store has of them."""
        for index, target in enumerate(targets):
            _check_name(target.name, f"targets[{index}].name")
        found = await self._store.get_many([self._desired(target.name) for target in targets])
        await self._cache.wait_until_revision(max((entry.mod_revision for entry in found.values()), default=0))
        goals = {}
        for target in targets:
            entry = found.get(self._desired(target.name))
            generation = target.generation
            if entry is not None and not generation:
                generation = load(names.collection(target.name), entry.value).generation
            goals[target.name] = Goal(target.name, generation, target.deleted, entry.create_revision if entry else 0)
        return goals

    def _progress(self, goal: Goal) -> config_pb2.WaitResponse:
        parts: dict[str, Status] = {}
        for service in names.SERVICES:
            entry = self._cache.get(self._keys.of(service).status(goal.name))
            if entry is not None:
                parts[service] = load_status(names.collection(goal.name), entry.value)
        # What the store did not have is not there, whatever the cache has not heard of yet.
        desired = self._cache.get(self._desired(goal.name)) if goal.incarnation else None
        response = progress(goal, desired, parts)
        if response is None:
            raise not_found(goal.name)
        return response

    def _desired(self, name: str) -> str:
        return self._keys.of(names.owner(name)).desired(name)


def _check_name(name: str, field: str) -> None:
    collection = names.collection(name)
    if collection not in names.OWNERS:
        known = ", ".join(names.OWNERS)
        raise errors.InvalidSpec(
            field, f"{errors.bounded(name)!r} is not the name of a resource of {known}", reason="INVALID_NAME"
        )
    names.check(name, collection, field)
