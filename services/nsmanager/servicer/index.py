"""Which index a new route table gets: the chosen one, or the lowest that nobody has and that does not rest.

Called by the registry for each create. What one create costs does not grow with the number of tables, and two at once do not
want the same index: so those that are taken are listed from time to time only, and what is given out meanwhile is known here.
The transaction that claims an index is what makes it one table's.
"""

import asyncio
import time
from collections.abc import Callable

from crossns import errors
from crossns.registry import Registry
from crossns.resource import Resource
from crossns.v1 import route_table_pb2
from services.nsmanager.model.identity import INDEX_MAX

# A freed index rests for a minute before anybody may have it: a list of this age leaves out none that could be given.
LISTED_S = 5.0


class Indices:
    """Of one process, which is the only one that gives out any: if it is not, its transactions fail and it looks again."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._listing = asyncio.Lock()
        self._listed_until = float("-inf")
        self._taken: set[int] = set()
        # All below are taken.
        self._lowest = 1
        # By table: given out since the list. Whoever tries again gets the same.
        self._given: dict[str, int] = {}

    async def admit(self, registry: Registry, wanted: Resource, current: Resource | None) -> Resource:
        """`wanted` with its index; INDEX_EXHAUSTED."""
        assert isinstance(wanted, route_table_pb2.RouteTable)  # noqa: S101 - by its kind
        if current is None:
            wanted.status.index = wanted.spec.index or await self._give(registry, wanted.name)
            self._taken.add(wanted.status.index)
        return wanted

    async def _give(self, registry: Registry, name: str) -> int:
        async with self._listing:
            if self._clock() > self._listed_until:
                await self._list(registry)
        given = self._given.get(name)
        if given is not None and await registry.store.get(registry.keys.claim("index", str(given))) is None:
            return given
        while self._lowest in self._taken:
            self._lowest += 1
        if self._lowest > INDEX_MAX:
            message = f"all {INDEX_MAX} indices are in use or resting: delete a route table, or try again in a minute"
            raise errors.FailedPrecondition("INDEX_EXHAUSTED", message, max=INDEX_MAX)
        self._given[name] = self._lowest
        return self._lowest

    async def _list(self, registry: Registry) -> None:
        prefix = registry.keys.claim("index", "")
        listing = await registry.store.list(prefix)
        self._taken = {int(entry.key.removeprefix(prefix)) for entry in listing.entries}
        self._lowest = 1
        self._given.clear()
        self._listed_until = self._clock() + LISTED_S
