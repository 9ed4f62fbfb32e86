"""What changes in the namespace: that something did, for whoever looks again then, and what did, for those who watch.

Called by the agent's server. Of the first, many changes become one word; in a storm of changes the next word takes ever longer,
so that nobody looks without end. Of the second, each change is told in order; neighbours that the kernel learns and forgets by
itself are told, and wake nobody.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast

from pyroute2.netlink import rtnl

from crossns import kernel, operation
from services.nsmanager.agent.change import Changes
from services.nsmanager.agent.ear import Ear, Heard
from services.nsmanager.agent.journal import Journal
from services.nsmanager.launcher.loop import Reactor, Timer

# Changes that follow each other this closely are one word.
_DEBOUNCE_S = 0.004
# How long a storm is not spoken of again: it doubles until the storm is over.
_STORM_MIN_S, _STORM_MAX_S = 0.05, 1.0

Kind = Literal["link", "address", "route", "rule", "neighbor", "overrun"]


@dataclass(frozen=True, slots=True)
class _Topic:
    """What one ear listens to. `wakes`: somebody has to look again; `is_told`: the changes themselves are told."""

    kind: Kind
    groups: int
    wakes: bool = True
    is_told: bool = True


_TOPICS = (
    _Topic("link", rtnl.RTMGRP_LINK),
    _Topic("address", rtnl.RTMGRP_IPV4_IFADDR | rtnl.RTMGRP_IPV6_IFADDR),
    _Topic("route", rtnl.RTMGRP_IPV4_ROUTE | rtnl.RTMGRP_IPV6_ROUTE),
    _Topic("rule", rtnl.RTMGRP_IPV4_RULE | rtnl.RTMGRP_IPV6_RULE, is_told=False),
    # Two: a scan of a network is thousands of neighbours, among which nobody shall have to look for ours.
    _Topic("neighbor", rtnl.RTMGRP_NEIGH, is_told=False),
    _Topic("neighbor", rtnl.RTMGRP_NEIGH, wakes=False),
)


class Events:
    """`notify` gets one event for each burst; "overrun" says that the kernel dropped messages (netlink(7), ENOBUFS)."""

    def __init__(self, loop: Reactor, notify: Callable[[operation.Event], None], journal: Journal) -> None:
        self._loop = loop
        self._notify = notify
        self._journal = journal
        self._changes = Changes()
        self._kinds: set[Kind] = set()
        self._due: tuple[float, Timer] | None = None
        # Kinds that are in a storm since the last word, and how long those of the word before wait for their next.
        self._storms: set[Kind] = set()
        self._rests_s: dict[Kind, float] = {}
        self._ears = {topic: Ear(loop, topic.groups, self._listen, learned=not topic.wakes) for topic in _TOPICS}

    def close(self) -> None:
        for ear in self._ears.values():
            ear.close()

    def tell_now(self) -> None:
        """Say at once that something changed, so that it is heard before what shows the change; in a storm it is not."""
        self._listen()
        if self._kinds and not self._storms and not any(self._rests_s.values()):
            if self._due is not None:
                self._due[1].cancel()
            self._tell()

    def _listen(self) -> None:
        """To all of them in order, whichever it was: what is said of a link is understood by what was said of it before."""
        for topic, ear in self._ears.items():
            heard = ear.read()
            if heard is not None:
                self._hear(topic, heard)

    def _hear(self, topic: _Topic, heard: Heard) -> None:
        if topic.is_told:
            changes = [change for message in heard.messages for change in self._changes.read(message)]
            self._journal.add(cast("kernel.Kind", topic.kind), changes, heard.missed)
        if topic.wakes:
            self._kinds |= {topic.kind, "overrun"} if heard.overrun else {topic.kind}
            if heard.missed:
                self._storms.add(topic.kind)
            self._tell_in(self._rests_s.get(topic.kind, _DEBOUNCE_S))

    def _tell_in(self, delay_s: float) -> None:
        """The earliest time counts: a quiet kind does not wait for a storm of another."""
        when = time.monotonic() + delay_s
        if self._due is None or when < self._due[0]:
            if self._due is not None:
                self._due[1].cancel()
            self._due = (when, self._loop.call_later(delay_s, self._tell))

    def _tell(self) -> None:
        kinds, self._kinds, self._due = self._kinds, set(), None
        rests_s = {kind: 2 * self._rests_s.get(kind, 0.0) for kind in self._storms}
        self._rests_s = {kind: min(max(rest_s, _STORM_MIN_S), _STORM_MAX_S) for kind, rest_s in rests_s.items()}
        self._storms.clear()
        self._notify(operation.Changed(kinds=cast("tuple[Kind, ...]", tuple(sorted(kinds)))))
