"""Watches a process until it ends, whoever its parent is, and gives crash loops a growing rest.

Called by the launcher for agents, engines and the zygote. A watch owns its pidfd.
"""

import os
import signal
from collections.abc import Callable

from crossns import pidfd
from services.nsmanager.launcher.loop import Reactor, Timer

# A process that lived this long has not crashed at its start: the next restart is at once again.
SETTLED_S = 10.0
FIRST_REST_S = 0.05
MAX_REST_S = 5.0
# What a process gets between SIGTERM and SIGKILL.
GRACE_S = 0.5


class Watch:
    """`ended(status)` is called once, from the loop; -1 stands for the unknown status of a process that is not our child."""

    def __init__(self, reactor: Reactor, fd: int, ended: Callable[[int], None]) -> None:
        self._reactor = reactor
        self._fd = fd
        self._ended = ended
        self._killing: Timer | None = None
        reactor.add_reader(fd, self._on_end)

    def signal(self, number: signal.Signals) -> None:
        pidfd.send(self._fd, number)

    def end(self) -> None:
        """SIGTERM, and SIGKILL where that does not help; `ended` follows."""
        self.signal(signal.SIGTERM)
        self._killing = self._reactor.call_later(GRACE_S, lambda: self.signal(signal.SIGKILL))

    def forget(self) -> None:
        """Let the process be."""
        self._reactor.remove_reader(self._fd)
        os.close(self._fd)
        if self._killing:
            self._killing.cancel()

    def _on_end(self) -> None:
        status = pidfd.reap(self._fd)
        self.forget()
        self._ended(status)


def rest_s(crashes: int) -> float:
    """How long to wait before the restart behind `crashes` early ends in a row: nothing behind the first."""
    return 0.0 if crashes <= 1 else float(min(MAX_REST_S, FIRST_REST_S * 2 ** min(crashes - 2, 16)))
