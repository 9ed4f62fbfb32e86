"""The work queue of the loop: keys, never events. Called by `reconcile`.

A key waits at most once, in line or for its time, and is worked on by one task at a time: what is added meanwhile merges, what is
added while it is worked on runs once more afterwards. The line is first come, first served: a key that is added all the time
takes its turn behind all others.
"""

import asyncio


class Queue:
    """For one event loop. Taking and adding never block each other; cancelling `take` loses nothing."""

    def __init__(self) -> None:
        self._line: asyncio.Queue[str] = asyncio.Queue()
        self._waiting: set[str] = set()
        self._working: set[str] = set()
        self._again: set[str] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        """Keys in line or to run once more, not those that wait for their time."""
        return len(self._waiting) + len(self._again)

    def add(self, key: str) -> None:
        """Put `key` in line. A time that it was waiting for is forgotten: the round to come does that work too."""
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        if key in self._working:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._line.put_nowait(key)

    def add_after(self, key: str, delay_s: float) -> None:
        """Add `key` in `delay_s` seconds, unless it runs earlier anyway: the earliest time given counts."""
        if key in self._waiting or key in self._again:
            return
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= loop.time() + delay_s:
                return
            timer.cancel()
        self._timers[key] = loop.call_later(delay_s, self.add, key)

    async def take(self) -> str:
        """The next key, the caller's until `done`."""
        key = await self._line.get()
        self._waiting.remove(key)
        self._working.add(key)
        return key

    def done(self, key: str) -> None:
        """Give a taken key back."""
        self._working.remove(key)
        if key in self._again:
            self._again.remove(key)
            self.add(key)
