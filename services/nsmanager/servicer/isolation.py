"""VerifyIsolation: which tables are meant, and what the examiner's evidence says about them.

Called by RouteTables. Names are checked before anything is touched.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Protocol

from crossns import errors, names
from crossns.registry import Registry, check
from crossns.v1 import isolation_pb2
from services.nsmanager.plan import isolation

_PAGE = 1000


class Examiner(Protocol):
    def examine(self, tables: Sequence[str]) -> AsyncGenerator[isolation.Progress | isolation.Evidence, None]:
        """By the tables' ids: each step as it begins, and the evidence last."""


class Isolation:
    """`registry` is that of route tables."""

    def __init__(self, examiner: Examiner, registry: Registry) -> None:
        self._examiner = examiner
        self._registry = registry

    async def verify(self, request: Any) -> AsyncGenerator[isolation_pb2.VerifyIsolationResponse, None]:
        chosen = sorted({names.check(name, "routeTables", "names") for name in request.names})
        if len(chosen) == 1:
            raise errors.InvalidSpec("names", f"{chosen[0]} alone is between nothing: name two at least, or none for all")
        for name in chosen:
            check.alive(await self._registry.get(name))
        tables = [names.resource_id(name) for name in chosen or await self._all()]
        async with aclosing(self._examiner.examine(tables)) as told:
            async for each in told:
                yield _answer(each)

    async def _all(self) -> list[str]:
        """Those that are not being deleted, by name."""
        found: list[str] = []
        token = ""
        while True:
            page, token = await self._registry.page("routeTables/", _PAGE, token)
            found += [each.name for each in page if not each.HasField("delete_time")]
            if not token:
                return found


def _answer(told: isolation.Progress | isolation.Evidence) -> isolation_pb2.VerifyIsolationResponse:
    if isinstance(told, isolation.Evidence):
        return isolation_pb2.VerifyIsolationResponse(report=isolation.report(told))
    progress = isolation_pb2.IsolationProgress(step=told.step, number=told.number, count=told.count)
    return isolation_pb2.VerifyIsolationResponse(progress=progress)
