"""Sees the workers of HAProxy off that a reload has replaced: they take nothing new, finish what they have, and end.

The device calls `shut` behind each reload, the app runs `run` beside it, which also finds what a process before this one left. A
worker that is told to stop by HAProxy itself loses its namespaces with that, and cannot connect to a member any more for a
request that is still to come; so it gets a grace that never ends, its frontends are shut here, and it is ended here. Invariant:
the current worker is never touched, and one from before ends only when it was seen to accept nothing, has no connection left,
and what it counted was read.
"""

import asyncio
import contextlib
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
# Looks in vain, one after the other, until the next reload is waited for: there may be no HAProxy.
_VAIN_LOOKS = 30
# Commands on a line, of up to 160 bytes; a master that has just refused a reload reads it into a buffer of 16 KiB.
_BATCH = 50
_FRONTEND = re.compile(r"vs\.[a-z0-9-]+\.fe\.")
_IDLE = re.compile(r"^CurrConns: 0$", re.MULTILINE)

log = logging.getLogger(__name__)


class Retirement:
    """`end` has the launcher end workers."""

    def __init__(self, layout: Layout, end: Callable[[tuple[int, ...]], Awaitable[None]], counting: Counting) -> None:
        self._path = layout.haproxy_master
        self._end = end
        self._counting = counting
        # Workers that were seen to accept nothing.
        self._closed: set[int] = set()
        self._lock = asyncio.Lock()
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """A worker may have been replaced."""
        self._woken.set()

    async def shut(self) -> None:
        """What was replaced takes nothing new from here on. Where HAProxy does not answer, `run` does it later."""
        self.wake()
        try:
            async with self._lock:
                await self._replaced()
        except errors.EngineUnavailable as error:
            log.warning("workers from before may still accept: %s", error.message)

    async def run(self) -> None:
        """Until cancelled. Nobody is asked while there is nobody to see off."""
        looks = in_vain = 0
        while True:
            self._woken.clear()
            try:
                is_over = not await self._look()
                in_vain = 0
            except (errors.TemporaryError, errors.FailedPrecondition) as error:
                # The latter: a newer process acts for this service, and this one will be ended.
                log.debug("not seen off yet: %s", error)
                in_vain += 1
                is_over = in_vain > _VAIN_LOOKS
            looks += 1
            rest_s = _SOON_S if looks < _SOON_LOOKS else _LATER_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if is_over else rest_s):
                    await self._woken.wait()
                    looks = in_vain = 0

    async def _look(self) -> bool:
        """End who is done; whether there may be others."""
        async with self._lock:
            replaced = await self._replaced()
            for pid in replaced:
                if pid in self._closed and await self._is_done(pid):
                    await self._end((pid,))
        return bool(replaced)

    async def _replaced(self) -> tuple[int, ...]:
        """The workers from before, all of them shut."""
        replaced = (await self._counting.look()).old
        self._closed.intersection_update(replaced)
        for pid in replaced:
            if pid not in self._closed and await self._was_closed(pid):
                self._closed.add(pid)
        return replaced

    async def _was_closed(self, pid: int) -> bool:
        """Whether the worker accepted nothing any more; it is told so, where it did."""
        listed = await self._ask(pid, "show stat -1 1 -1")
        accepting = _accepting(listed)
        for first in range(0, len(accepting), _BATCH):
            await self._ask(pid, *(f"shutdown frontend {section}" for section in accepting[first : first + _BATCH]))
        return listed.startswith("# pxname,") and not accepting

    async def _is_done(self, pid: int) -> bool:
        """Whether the worker has finished all that it had, and what it counted was read."""
        if not _IDLE.search(await self._ask(pid, "show info")):
            return False
        try:
            await self._counting.read_last(pid)
        except errors.EngineUnavailable as error:
            log.debug("worker %d is not read yet: %s", pid, error.message)
            return False
        return True

    async def _ask(self, pid: int, *commands: str) -> str:
        """Nothing where the worker does not answer: others have their turn."""
        try:
            return await master.ask(self._path, [f"@!{pid} {command}" for command in commands])
        except errors.EngineUnavailable:
            return ""


def _accepting(listed: str) -> list[str]:
    """The frontends of vServices in `show stat` that were not shut."""
    if not listed.startswith("# pxname,"):
        return []
    rows = master.columns(listed.removeprefix("# ").rstrip("\n"), ("pxname", "status"))
    return [section for section, status in rows if _FRONTEND.match(section) and status != "STOP"]
