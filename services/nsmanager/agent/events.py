"""What changes in the namespace: that something did, for whoever looks again then, and what did, for those who watch.

Called by the agent's server. Of the first, many changes become one word; in a storm of changes the next word takes ever longer,
so that nobody looks without end. Of the second, each change is told in order; neighbours that the kernel learns and forgets by
itself are told, and wake nobody.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Literal, cast

from pyroute2.netlink import rtnl

from crossns import kernel, operation
from services.nsmanager.agent import ear
from services.nsmanager.agent.change import Changes
from services.nsmanager.agent.journal import Journal
from services.nsmanager.launcher.loop import Reactor, Timer

# Changes that follow each other this closely are one word.
_DEBOUNCE_S = 0.004
# How long a storm is not spoken of again: it doubles until the storm is over.
_STORM_MIN_S, _STORM_MAX_S = 0.05, 1.0

Kind = ear.Kind | Literal["overrun"]


@dataclass(frozen=True, slots=True)
class _Topic:
    """What one ear listens to. `told`: the kinds whose changes are told; `wakes`: somebody has to look again."""

    groups: int
    told: tuple[kernel.Kind, ...]
    wakes: bool = True


# Few, because with every change in any namespace the kernel walks past all such sockets of the device (ADR 11): what comes in
# storms has one of its own, what is rare shares one.
_TOPICS = (
    _Topic(
        rtnl.RTMGRP_LINK
        | (rtnl.RTMGRP_IPV4_IFADDR | rtnl.RTMGRP_IPV6_IFADDR)
        | (rtnl.RTMGRP_IPV4_RULE | rtnl.RTMGRP_IPV6_RULE)
        | rtnl.RTMGRP_NEIGH,
        told=("link", "address"),
    ),
    _Topic(rtnl.RTMGRP_IPV4_ROUTE | rtnl.RTMGRP_IPV6_ROUTE, told=("route",)),
    # A scan of a network is thousands of neighbours, among which nobody shall have to look for ours: those are above.
    _Topic(rtnl.RTMGRP_NEIGH, told=("neighbor",), wakes=False),
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
        self._ears = {
            topic: ear.Ear(loop, ear.listener(topic.groups, learned=not topic.wakes), self._listen) for topic in _TOPICS
        }

    def close(self) -> None:
        for each in self._ears.values():
            each.close()

    def tell_now(self) -> None:
        """Say at once that something changed, so that it is heard before what shows the change; in a storm it is not."""
        self._listen()
        if self._kinds and not self._storms and not any(self._rests_s.values()):
            if self._due is not None:
                self._due[1].cancel()
            self._tell()

    def _listen(self) -> None:
        """To all of them in order, whichever it was: what is said of a link is understood by what was said of it before."""
        for topic, each in self._ears.items():
            heard = each.read()
            if heard is not None:
                self._hear(topic, heard)

    def _hear(self, topic: _Topic, heard: ear.Heard) -> None:
        self._report(topic, heard)
        if not topic.wakes:
            return
        kinds: set[Kind] = {*heard.missed, *(kind for kind, _ in heard.messages)}
        self._kinds |= {*kinds, "overrun"} if heard.overrun else kinds
        self._storms |= kinds if heard.dropped else heard.missed.keys()
        self._tell_in(min((self._rests_s.get(kind, _DEBOUNCE_S) for kind in kinds), default=_DEBOUNCE_S))

    def _report(self, topic: _Topic, heard: ear.Heard) -> None:
        """What may be told, and how much more there was; the kind of what the kernel dropped is known only where one is heard."""
        for kind, messages in groupby(heard.messages, key=itemgetter(0)):
            if kind in topic.told:
                changes = [change for _, message in messages for change in self._changes.read(message)]
                self._journal.add(cast("kernel.Kind", kind), changes, 0)
        for kind, count in heard.missed.items():
            if kind in topic.told:
                self._journal.add(kind, (), count)
        if heard.dropped:
            self._journal.add(topic.told[0] if len(topic.told) == 1 else None, (), heard.dropped)

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
