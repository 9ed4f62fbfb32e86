"""Remembers what HAProxy did not start with, and when that is tried again: it may be for a reason outside, such as a port that
another process holds.

Called by `device`. A try that fails costs a reload that nobody notices; so the first comes soon, and the next ever later.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping

from crossns.retry import Backoff
from services.proxy import plan, render

# The last is also how often a port is tried that is held for good.
_RETRY = Backoff(1.0, 2.0, 300.0)

log = logging.getLogger(__name__)


class Refusals:
    """`on_retry` is called when it is time for another try."""

    def __init__(self, on_retry: Callable[[], None]) -> None:
        self._on_retry = on_retry
        self._refused: dict[render.Part, plan.Refusal] = {}
        # Tries since HAProxy last took everything.
        self._tries = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def current(self) -> Mapping[render.Part, plan.Refusal]:
        """A snapshot: it does not change."""
        return dict(self._refused)

    def add(self, found: Mapping[render.Part, plan.Refusal]) -> None:
        for part, refusal in found.items():
            log.warning("left out: %s: %s", part, refusal.words, extra={"reason": "ENGINE_REFUSED"})
        self._refused |= found
        if self._timer is None:
            delay_s = _RETRY.delay(self._tries)
            self._tries += 1
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._retry)

    def settle(self) -> None:
        """HAProxy runs with all that was wanted but for what is remembered."""
        if not self._refused:
            self._tries = 0

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _retry(self) -> None:
        self._timer = None
        self._refused.clear()
        self._on_retry()
