"""What an agent keeps until it is acknowledged: in order, bounded, told again; and which changes of links anybody could see."""

import socket
from typing import Any

from pyroute2.netlink.rtnl import RTM_DELLINK, RTM_NEWLINK
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from crossns import kernel
from services.nsmanager.agent.change import Changes
from services.nsmanager.agent.journal import KEPT_MAX, Journal


def link(name: str) -> kernel.Change:
    return kernel.Change(subject=kernel.Link(index=1, name=name), time_ns=1)


class Reader:
    """Takes what a journal sends."""

    def __init__(self) -> None:
        self.sent: list[kernel.News] = []
        self.journal = Journal(self.sent.append)

    def told(self) -> list[str]:
        """The items of the newest message."""
        items: list[Any] = [*self.sent[-1].items]
        return [f"missed {each.count}" if isinstance(each, kernel.Missed) else each.subject.name for each in items]

    def acknowledge(self) -> None:
        self.journal.acknowledge(self.sent[-1].number)


def test_what_happens_while_a_message_is_under_way_gathers_for_the_next() -> None:
    reader = Reader()
    reader.journal.subscribe()
    reader.journal.add("link", [link("a")], 0)
    reader.journal.add("link", [link("b")], 0)
    reader.journal.add("link", [link("c")], 0)
    assert [reader.told(), len(reader.sent)] == [["a"], 1]
    reader.acknowledge()
    assert [reader.told(), len(reader.sent)] == [["b", "c"], 2]
    # What was acknowledged once is so.
    reader.journal.acknowledge(1)
    assert len(reader.sent) == 2


def test_what_nobody_acknowledged_is_told_again_and_first() -> None:
    reader = Reader()
    reader.journal.add("link", [link("a")], 0)
    assert reader.sent == []
    reader.journal.subscribe()
    reader.journal.add("link", [link("b")], 0)
    reader.journal.subscribe()
    assert [reader.told(), reader.sent[0] == reader.sent[1]] == [["a"], True]
    reader.acknowledge()
    assert reader.told() == ["b"]


def test_what_does_not_fit_is_counted_in_its_place() -> None:
    reader = Reader()
    reader.journal.add("link", [link(str(n)) for n in range(KEPT_MAX + 5)], 2)
    # Behind a gap nothing is kept before the gap is told.
    reader.journal.add("route", [link("late")], 0)
    reader.journal.subscribe()
    told = reader.told()
    while len(told) < KEPT_MAX + 2:
        reader.acknowledge()
        told += reader.told()
    assert told == [*map(str, range(KEPT_MAX)), "missed 7", "missed 1"]
    reader.acknowledge()
    reader.journal.add("link", [link("after")], 0)
    assert reader.told() == ["after"]


def message(kind: int, name: str, *, up: bool, change: int = 0) -> bytes:
    """As the kernel tells of the link with index 7."""
    made = ifinfmsg()
    made["header"] = {"type": kind, "flags": 0, "sequence_number": 0, "pid": 0}
    made["family"], made["index"], made["flags"], made["change"] = socket.AF_UNSPEC, 7, int(up), change
    made["attrs"] = [("IFLA_IFNAME", name)]
    made.encode()
    return bytes(made.data)


def test_link_that_looks_as_before_is_not_told_again() -> None:
    changes = Changes()
    first, again, up, gone, new = (
        list(changes.read(each))
        for each in (
            message(RTM_NEWLINK, "l", up=False),
            message(RTM_NEWLINK, "l", up=False, change=1),
            message(RTM_NEWLINK, "l", up=True),
            message(RTM_DELLINK, "l", up=True),
            message(RTM_NEWLINK, "l", up=True),
        )
    )
    assert [len(each) for each in (first, again, up, gone, new)] == [1, 0, 1, 1, 1]
    assert [each.gone for each in (*first, *up, *gone, *new)] == [False, False, True, False]


def test_half_a_message_is_passed_over() -> None:
    assert list(Changes().read(message(RTM_NEWLINK, "l", up=True)[:-8])) == []
