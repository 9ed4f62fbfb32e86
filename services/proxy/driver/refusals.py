"""Remembers what HAProxy did not start with, and when that is tried again: it may be for a reason outside, such as a port that
another process holds.

Called by `device`. A try that fails costs a reload that nobody notices; so the first comes soon, and the next ever later.
Invariant: each part waits for itself alone, and is left out until its own time has come, whatever is tried meanwhile.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from crossns.retry import Backoff
from services.proxy import plan, render

# The last is also how often a port is tried that is held for good.
_RETRY = Backoff(1.0, 2.0, 300.0)
# Who would have to wait for no more than this part of its delay goes along: many that are refused for good share their tries.
_NEARLY = 0.1

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Wait:
    """Of one part. `tries`: how often it was tried again so far; `early`, `due`: from when on it may be, and must be, by the
    loop's clock; `is_over`: it is to be tried, and was not taken yet."""

    refusal: plan.Refusal
    tries: int
    early: float
    due: float
    is_over: bool = False


class Refusals:
    """`on_retry` is called when it is time for another try."""

    def __init__(self, on_retry: Callable[[], None]) -> None:
        self._on_retry = on_retry
        self._waits: dict[render.Part, _Wait] = {}
        # What the next start goes without.
        self._left_out: dict[render.Part, plan.Refusal] = {}
        self._timer: asyncio.TimerHandle | None = None

    def leave_out(self) -> Mapping[render.Part, plan.Refusal]:
        """Whose time has not come: a snapshot, which does not change. `settle` speaks of the last one that was asked for."""
        self._left_out = {part: wait.refusal for part, wait in self._waits.items() if not wait.is_over}
        return self._left_out

    def add(self, found: Mapping[render.Part, plan.Refusal]) -> None:
        now = asyncio.get_running_loop().time()
        for part, refusal in found.items():
            log.warning("left out: %s: %s", part, refusal.words, extra={"reason": "ENGINE_REFUSED"})
            tries = self._tries(part, refusal)
            delay_s = _RETRY.delay(tries)
            self._waits[part] = _Wait(refusal, tries, now + delay_s * (1 - _NEARLY), now + delay_s)
        self._set_timer()

    def settle(self) -> None:
        """HAProxy runs with all that was wanted but for what is left out."""
        self._waits = {part: wait for part, wait in self._waits.items() if part in self._left_out}

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _tries(self, part: render.Part, refusal: plan.Refusal) -> int:
        """A vService that is another now begins anew."""
        before = self._waits.get(part)
        return before.tries + 1 if before is not None and before.refusal.generation == refusal.generation else 0

    def _set_timer(self) -> None:
        self.close()
        dues = [wait.due for wait in self._waits.values() if not wait.is_over]
        if dues:
            self._timer = asyncio.get_running_loop().call_at(min(dues), self._retry)

    def _retry(self) -> None:
        now = asyncio.get_running_loop().time()
        for wait in self._waits.values():
            wait.is_over = wait.is_over or wait.early <= now
        self._set_timer()
        self._on_retry()
