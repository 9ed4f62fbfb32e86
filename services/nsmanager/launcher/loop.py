"""The launcher's poll loop: readiness of descriptors and timers, called back in one thread.

Launcher and agents run on it, each on its own. It has the few methods of an asyncio loop that their sessions need.
"""

import heapq
import itertools
import select
import signal
import socket
import time
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    def cancel(self) -> None: ...


class Reactor(Protocol):
    """What `Loop` and `asyncio.AbstractEventLoop` have in common."""

    def add_reader(self, fd: int, callback: Callable[[], object], /) -> object: ...
    def remove_reader(self, fd: int, /) -> object: ...
    def add_writer(self, fd: int, callback: Callable[[], object], /) -> object: ...
    def remove_writer(self, fd: int, /) -> object: ...
    def call_later(self, delay: float, callback: Callable[[], object], /) -> Timer: ...


class _Callback:
    def __init__(self, due: float, order: int, callback: Callable[[], object]) -> None:
        self.due = due
        self.order = order
        self.callback: Callable[[], object] | None = callback

    def __lt__(self, other: "_Callback") -> bool:
        return (self.due, self.order) < (other.due, other.order)

    def cancel(self) -> None:
        self.callback = None


class Loop:
    """A `Reactor` on epoll."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._readers: dict[int, Callable[[], object]] = {}
        self._writers: dict[int, Callable[[], object]] = {}
        self._timers: list[_Callback] = []
        self._order = itertools.count()
        self._running = False
        # Descriptors whose interest changed in this round: their number may be another's by now, epoll tells again.
        self._changed: set[int] = set()

    def add_reader(self, fd: int, callback: Callable[[], object], /) -> None:
        self._change(fd, lambda: self._readers.__setitem__(fd, callback))

    def remove_reader(self, fd: int, /) -> None:
        self._change(fd, lambda: self._readers.pop(fd, None))

    def add_writer(self, fd: int, callback: Callable[[], object], /) -> None:
        self._change(fd, lambda: self._writers.__setitem__(fd, callback))

    def remove_writer(self, fd: int, /) -> None:
        self._change(fd, lambda: self._writers.pop(fd, None))

    def call_later(self, delay: float, callback: Callable[[], object], /) -> Timer:
        timer = _Callback(time.monotonic() + delay, next(self._order), callback)
        heapq.heappush(self._timers, timer)
        return timer

    def run(self) -> None:
        """Call back until `stop`."""
        self._running = True
        while self._running:
            ready = self._epoll.poll(self._patience_s())
            self._changed.clear()
            for fd, events in ready:
                if events & ~select.EPOLLOUT and fd not in self._changed:
                    self._call(self._readers.get(fd))
                if events & select.EPOLLOUT and fd not in self._changed:
                    self._call(self._writers.get(fd))
            self._call_due()

    def stop(self) -> None:
        self._running = False

    def stop_on_signals(self) -> None:
        """`stop` at SIGTERM or SIGINT, from the main thread of a process that runs no other loop."""
        ours, theirs = socket.socketpair()
        ours.settimeout(0)
        theirs.settimeout(0)
        signal.set_wakeup_fd(theirs.fileno())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _ignore)
        self._signals = (ours, theirs)
        self.add_reader(ours.fileno(), self.stop)

    def close(self) -> None:
        self._epoll.close()

    @staticmethod
    def _call(callback: Callable[[], object] | None) -> None:
        if callback:
            callback()

    def _patience_s(self) -> float | None:
        while self._timers and self._timers[0].callback is None:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0].due - time.monotonic()) if self._timers else None

    def _call_due(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0].due <= now:
            self._call(heapq.heappop(self._timers).callback)

    def _wanted(self, fd: int) -> int:
        return (select.EPOLLIN if fd in self._readers else 0) | (select.EPOLLOUT if fd in self._writers else 0)

    def _change(self, fd: int, change: Callable[[], object]) -> None:
        before = self._wanted(fd)
        change()
        after = self._wanted(fd)
        if after == before:
            return
        self._changed.add(fd)
        if before and after:
            self._epoll.modify(fd, after)
        elif after:
            self._epoll.register(fd, after)
        elif before:
            self._epoll.unregister(fd)


def _ignore(*_arguments: object) -> None:
    """A handler of its own: without one the signal would end the process before the loop hears of it."""
