"""What one ear hears in a storm: a budget for each kind, and a rest."""

import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from pyroute2.netlink.rtnl import RTM_DELADDR, RTM_DELLINK, RTM_NEWADDR, RTM_NEWLINK

from services.nsmanager.agent.ear import BURST, Ear

TURN = 64


class Turns:
    """A reactor whose time passes when it is told to."""

    def __init__(self) -> None:
        self.later: list[Callable[[], object]] = []

    def add_reader(self, *_arguments: object) -> None: ...
    def remove_reader(self, *_arguments: object) -> None: ...
    def add_writer(self, *_arguments: object) -> None: ...
    def remove_writer(self, *_arguments: object) -> None: ...

    def call_later(self, _delay: float, callback: Callable[[], object], /) -> "Turns":
        self.later.append(callback)
        return self

    def cancel(self) -> None: ...


@pytest.fixture
def kernel() -> Iterator[tuple[Turns, Ear, Callable[[int], None]]]:
    """Time, the ear, and what has it told of a change of a type."""
    turns = Turns()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ear = Ear(turns, ours, lambda: None)
    yield turns, ear, lambda kind: theirs.sendall(struct.pack("IHHII", 16, kind, 0, 0, 0))
    ear.close()
    theirs.close()


def test_storm_of_one_kind_is_counted_then_rests_and_costs_another_kind_nothing(
    kernel: tuple[Turns, Ear, Callable[[int], None]],
) -> None:
    turns, ear, tell = kernel
    told, missed = 0, Counter[str]()
    while not turns.later:
        for kind in [RTM_NEWLINK, RTM_DELLINK] * (TURN // 2):
            tell(kind)
        heard = ear.read()
        assert heard is not None
        told += len(heard.messages)
        missed += heard.missed
    # In a storm less is read.
    tell(RTM_NEWADDR)
    tell(RTM_DELADDR)
    assert ear.read() is None
    turns.later.pop()()
    heard = ear.read()
    assert heard is not None
    # A few come back with time.
    assert BURST <= told < BURST + TURN
    assert missed.keys() == {"link"}
    assert (told + missed["link"]) % TURN == 0
    assert ([kind for kind, _ in heard.messages], heard.missed, heard.overrun) == (["address", "address"], Counter(), False)
