"""Agents that wait for a table: forked ahead of it, with everything behind them that does not need one (ADR 15).

Called by the zygote. What an agent writes to is copied page by page when it starts, and that is most of what it costs: a spare
has that behind it when it is wanted. It holds nothing of any table, is given to one at most, and ends with the zygote until then.
"""

import os
from collections.abc import Callable
from typing import NoReturn

# So many tables at once, or agents that ended, need not wait for the copying.
KEPT = 3


class Spares:
    """`become(wish)` is called in each new process, and reads from that pipe what it is wanted for: nothing where it never is."""

    def __init__(self, become: Callable[[int], NoReturn]) -> None:
        self._become = become
        # The other ends of their pipes: cheaper than sockets, for what the zygote does behind a fork copies pages, too.
        self._wishes: list[int] = []

    @property
    def are_enough(self) -> bool:
        return len(self._wishes) >= KEPT

    def fork(self) -> None:
        self._wishes.append(self._forked())

    def give(self, request: bytes) -> None:
        """To the oldest one that lives, or to a new one, which finds it at once. `request` is at most PIPE_BUF long, so it comes
        in one piece."""
        while self._wishes:
            wish = self._wishes.pop(0)
            try:
                os.write(wish, request)
            except BrokenPipeError:
                # Somebody has killed it.
                continue
            finally:
                os.close(wish)
            return
        os.close(self._forked(request))

    def _forked(self, request: bytes = b"") -> int:
        """The end of its pipe that is ours."""
        theirs, ours = os.pipe()
        os.write(ours, request)
        if os.fork() == 0:
            for wish in (ours, *self._wishes):
                os.close(wish)
            self._become(theirs)
        os.close(theirs)
        return ours
