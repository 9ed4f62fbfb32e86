"""Has the device looked at by a process of its own, and passes on what it saw: the launcher waits for nothing.

Called by `app` for `Survey`. The surveyor ends when it has written; one that dies, or takes too long, has its asker told.
"""

import os
from collections.abc import Callable

import msgspec

from crossns import errors, proof
from services.nsmanager.launcher import session
from services.nsmanager.launcher.loop import Reactor

_PATIENCE_S = 20.0
_CHUNK = 256 * 1024


def begin(reactor: Reactor, look: Callable[[int], None], answer: session.Answer) -> None:
    """`look(fd)` sends a surveyor who writes to `fd`."""
    ours, theirs = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    os.set_blocking(theirs, True)
    try:
        look(theirs)
    except errors.CrossnsError:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    received = bytearray()

    def end(outcome: session.Outcome) -> None:
        timer.cancel()
        reactor.remove_reader(ours)
        os.close(ours)
        answer(outcome)

    def read() -> None:
        piece = os.read(ours, _CHUNK)
        received.extend(piece)
        if not piece:
            end(_surveyed(received))

    timer = reactor.call_later(_PATIENCE_S, lambda: end(_unavailable("did not come to an end in time")))
    reactor.add_reader(ours, read)


def _surveyed(content: bytes | bytearray) -> session.Outcome:
    try:
        return msgspec.msgpack.decode(content, type=proof.Surveyed)
    except msgspec.MsgspecError:
        return _unavailable("ended before it had seen everything: the launcher's log says why")


def _unavailable(how: str) -> errors.AgentUnavailable:
    return errors.AgentUnavailable("LAUNCHER_UNAVAILABLE", f"the look at the device {how}; try again")
