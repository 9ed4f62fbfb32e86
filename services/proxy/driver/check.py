"""Checks every member that is wanted, again and again, by connecting to it: the basic TCP check.

Run by the app beside the loop, which asks for `down` and is woken when that changes. Every member has a task of its own: one
that does not answer, or a table whose agent does not, holds up nobody else. All together make at most CHECKS_PER_S attempts
a second, so 100 connections are under way at the very most; with more than 160 members each has its turn less often.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from crossns import errors, operation
from crossns.layout import Layout
from services.proxy import model
from services.proxy.driver.dial import Dialler
from services.proxy.plan.verdict import Verdict

# Between two checks of a member, spread by JITTER to either side; until the verdict is settled, where a check has shaken it.
INTERVAL_S = 2.0
JITTER = 0.1
SHAKEN_S = 0.5
# One check costs 0.3 to 0.9 ms of processor time, a third of it the agent's: the more, the longer both have slept before. Of
# these attempts the regular ones take four fifths at most, the others are for those whose verdict is shaken.
CHECKS_PER_S = 100.0
_REGULAR_PER_S = 80.0
# How often it is looked what is wanted.
_TURN_S = 0.5

log = logging.getLogger(__name__)


class Checker:
    """`wanted` is called at each turn, and `on_change` once for each change of `down`."""

    def __init__(
        self,
        layout: Layout,
        token: operation.Token,
        wanted: Callable[[], frozenset[model.Target]],
        on_change: Callable[[], None],
    ) -> None:
        self._wanted = wanted
        self._on_change = on_change
        self._dialler = Dialler(layout, token)
        self._checks: dict[model.Target, asyncio.Task[None]] = {}
        self._down: Mapping[model.Target, str] = MappingProxyType({})
        # Those of the first turn that were not judged yet; None before it.
        self._unknown: set[model.Target] | None = None
        # Time of the event loop from which on the next attempt may be made.
        self._free_at = 0.0

    @property
    def down(self) -> Mapping[model.Target, str]:
        """Those of the wanted that do not accept connections, with the reason in words. A snapshot: it does not change."""
        return self._down

    @property
    def unknown(self) -> frozenset[model.Target]:
        """Those of which a process before this one may have known more: what it made of them stays until they are judged."""
        return self._wanted() if self._unknown is None else frozenset(self._unknown)

    async def ways(self, table: str, addresses: Sequence[str]) -> Mapping[str, str]:
        """By which link of the table each address is reached now."""
        return await self._dialler.ways(table, addresses)

    async def run(self) -> None:
        """Until cancelled; it leaves no session. Where a newer process acts for this service it checks nothing more, and waits to
        be ended."""
        try:
            async with asyncio.TaskGroup() as tasks:
                await self._follow(tasks)
        except* errors.FailedPrecondition as fenced:
            log.warning("no member is checked any more: %s", fenced.exceptions[0])
        finally:
            self._checks.clear()
            await self._dialler.keep(())
        await asyncio.get_running_loop().create_future()

    async def _follow(self, tasks: asyncio.TaskGroup) -> None:
        """Check what is wanted, and forget what is not."""
        while True:
            wanted = self._wanted()
            if self._unknown is None:
                self._unknown = set(wanted)
            if wanted != self._checks.keys():
                self._forget(self._checks.keys() - wanted)
                await self._dialler.keep({target.table for target in wanted})
                new = wanted - self._checks.keys()
                for target in new:
                    # Not all at once, and not in step ever after.
                    phase_s = random.uniform(0, len(new) / _REGULAR_PER_S)
                    self._checks[target] = tasks.create_task(self._check(target, phase_s), name=f"check of {target}")
            await asyncio.sleep(_TURN_S)

    def _forget(self, targets: set[model.Target]) -> None:
        for target in targets:
            self._checks.pop(target).cancel()
            self._judge(target)
        if targets & self._down.keys():
            self._show({target: reason for target, reason in self._down.items() if target not in targets})

    async def _check(self, target: model.Target, phase_s: float) -> None:
        verdict = Verdict()
        await asyncio.sleep(phase_s)
        while True:
            await self._take_turn()
            outcome = await self._dialler.attempt(target)
            if outcome is not None:
                before, verdict = verdict, verdict.after(outcome)
                is_first = not verdict.is_shaken and self._judge(target)
                if verdict.reason != before.reason:
                    self._tell(target, verdict.reason)
                elif is_first:
                    self._on_change()
            await asyncio.sleep(self._rest_s(verdict))

    def _judge(self, target: model.Target) -> bool:
        """Whether nobody knew until now."""
        if not self._unknown or target not in self._unknown:
            return False
        self._unknown.remove(target)
        return True

    async def _take_turn(self) -> None:
        now = asyncio.get_running_loop().time()
        turn = max(now, self._free_at)
        self._free_at = turn + 1 / CHECKS_PER_S
        if turn > now:
            await asyncio.sleep(turn - now)

    def _rest_s(self, verdict: Verdict) -> float:
        if verdict.is_shaken:
            return SHAKEN_S
        interval_s = max(INTERVAL_S, len(self._checks) / _REGULAR_PER_S)
        return interval_s * random.uniform(1 - JITTER, 1 + JITTER)

    def _tell(self, target: model.Target, reason: str) -> None:
        """A change of a verdict: to the operator, and to whoever renders it."""
        where = {"route_table": target.table, "namespace": target.namespace}
        others = {each: words for each, words in self._down.items() if each != target}
        if reason:
            log.warning("member down: %s", reason, extra=where)
            others[target] = reason
        else:
            log.info("member up: %s accepts connections", target, extra=where)
        self._show(others)

    def _show(self, down: dict[model.Target, str]) -> None:
        self._down = MappingProxyType(down)
        self._on_change()
