"""Sees the workers of HAProxy off that a reload has replaced: they take nothing new, finish what they have, and end.

The device calls `shut` behind each reload, the app runs `run` beside it, which also finds what a process before this one left. A
worker that is told to stop by HAProxy itself loses its namespaces with that, and cannot connect to a member any more for a
request that is still to come; so it gets a grace that never ends, its frontends are shut here, and it is ended here, when it has
no connection left and what it counted was read.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable

from crossns import errors
from crossns.layout import Layout
from services.proxy.driver import master
from services.proxy.driver.counting import Counting

# How often a worker that finishes is looked at: most are done soon, others have connections for hours.
_SOON_S = 0.1
_LATER_S = 1.0
_SOON_LOOKS = 20
# Commands on a line, which HAProxy reads into one buffer.
_BATCH = 100
_FRONTEND = re.compile(r"^(vs\.[a-z0-9-]+\.fe\.[a-z0-9-]+),", re.MULTILINE)
_IDLE = re.compile(r"^CurrConns: 0$", re.MULTILINE)

log = logging.getLogger(__name__)


class Retirement:
    """`end` has the launcher end workers."""

    def __init__(self, layout: Layout, end: Callable[[tuple[int, ...]], Awaitable[None]], counting: Counting) -> None:
        self._path = layout.haproxy_master
        self._end = end
        self._counting = counting
        # Workers whose frontends are shut.
        self._shut: set[int] = set()
        self._lock = asyncio.Lock()
        self._looks = 0
        self._some_may_finish = asyncio.Event()

    async def shut(self) -> None:
        """What was replaced takes nothing new from here on. Where HAProxy does not answer, `run` does it later."""
        self._looks = 0
        self._some_may_finish.set()
        try:
            await self._replaced()
        except errors.EngineUnavailable as error:
            log.info("workers of before are still open: %s", error.message)

    async def run(self) -> None:
        """Until cancelled. Nobody is asked while there is nobody to see off."""
        self._some_may_finish.set()
        while True:
            await self._some_may_finish.wait()
            if not await self._look():
                self._some_may_finish.clear()
            self._looks += 1
            await asyncio.sleep(_SOON_S if self._looks < _SOON_LOOKS else _LATER_S)

    async def _look(self) -> bool:
        """End who is done; whether there may be others."""
        try:
            replaced = await self._replaced()
            for worker in replaced:
                if _IDLE.search(await master.ask(self._path, [f"@!{worker} show info"])):
                    await self._counting.read_last(worker)
                    await self._end((worker,))
        except errors.TemporaryError as error:
            # A HAProxy that comes back has no workers of before.
            log.debug("not seen off yet: %s", error.message)
            return self._looks < _SOON_LOOKS
        return bool(replaced)

    async def _replaced(self) -> tuple[int, ...]:
        """The workers of before, all of them shut."""
        async with self._lock:
            replaced = (await self._counting.look()).old
            self._shut.intersection_update(replaced)
            for worker in replaced:
                if worker not in self._shut:
                    await self._shut_frontends(worker)
                    self._shut.add(worker)
            return replaced

    async def _shut_frontends(self, worker: int) -> None:
        frontends = _FRONTEND.findall(await master.ask(self._path, [f"@!{worker} show stat -1 1 -1"]))
        for first in range(0, len(frontends), _BATCH):
            batch = frontends[first : first + _BATCH]
            await master.ask(self._path, [f"@!{worker} shutdown frontend {name}" for name in batch])
