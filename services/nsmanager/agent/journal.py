"""What an agent has to tell, until nsmanager has acknowledged it: bounded, in order, and honest about what did not fit.

Called by `events`. One message is under way at a time: while it is, what happens gathers for the next, so whoever is slow is told
in fewer and larger ones. A session that is lost, or an nsmanager that is started anew, loses nothing that is kept here.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable

from crossns import kernel

# What is kept of a table while nobody listens.
KEPT_MAX = 512
# One message's share: nsmanager serves the other tables in between.
_BATCH = 64


class Journal:
    """`send` pushes one message to nsmanager, if it is there."""

    def __init__(self, send: Callable[[kernel.News], None]) -> None:
        self._send = send
        self._kept: deque[kernel.Change | kernel.Missed] = deque()
        # Behind everything that is kept.
        self._missed: Counter[kernel.Kind | None] = Counter()
        self._number = 0
        self._under_way: kernel.News | None = None
        self._has_reader = False

    def add(self, kind: kernel.Kind | None, changes: Iterable[kernel.Change], missed: int) -> None:
        """`missed`: so many more came behind `changes`. `kind` None: of whichever kinds."""
        for change in changes:
            if self._missed or len(self._kept) >= KEPT_MAX:
                missed += 1
            else:
                self._kept.append(change)
        if missed:
            self._missed[kind] += missed
        self._go_on()

    def subscribe(self) -> None:
        """Somebody listens from now on, who has heard nothing of what is not acknowledged."""
        self._has_reader = True
        if self._under_way is not None:
            self._send(self._under_way)
        self._go_on()

    def acknowledge(self, number: int) -> None:
        if self._under_way is not None and number == self._under_way.number:
            self._under_way = None
            self._go_on()

    def _go_on(self) -> None:
        if not self._has_reader or self._under_way is not None:
            return
        items = [self._kept.popleft() for _ in range(min(_BATCH, len(self._kept)))]
        if not self._kept:
            items += [kernel.Missed(kind=kind, count=count) for kind, count in self._missed.items()]
            self._missed.clear()
        if items:
            self._number += 1
            self._under_way = kernel.News(number=self._number, items=tuple(items))
            self._send(self._under_way)
