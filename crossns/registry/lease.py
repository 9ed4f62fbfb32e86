"""One lease for what many writes put at about the same time: to grant one costs etcd as much as a write does."""

import time
from collections.abc import Callable

from crossns import store


class SharedLease:
    """What is put under it is gone between `kept_s` and `kept_s + shared_s` later."""

    def __init__(self, backend: store.Store, kept_s: int, shared_s: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = backend
        self._kept_s = kept_s
        self._shared_s = shared_s
        self._clock = clock
        self._until = float("-inf")
        self._id = 0

    async def id(self) -> int:
        begun = self._clock()
        if begun >= self._until:
            self._id = await self._store.grant(self._kept_s + self._shared_s)
            self._until = begun + self._shared_s
        return self._id

    def forget(self) -> None:
        """The store was restored from before it."""
        self._until = float("-inf")
