"""Asks HAProxy's master how its reloads went: the signal that causes one tells nothing, and one that follows too soon is lost.

Called by `engine`. A question is one connection (management guide, 9.4 "Master CLI"); it never holds up the loop.
"""

import os
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from services.nsmanager.launcher.loop import Reactor

_ANSWER_MAX = 64 * 1024
_OLD = re.compile(rb"^(\d+)\s+worker\s", re.MULTILINE)
_MASTER = re.compile(rb"^\d+\s+master\s+(\d+) \[failed: (\d+)\]", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class State:
    """`reloads` counts all since its start, `failed` those since the last good one; `replaced`: pids of workers of before."""

    reloads: int
    failed: int
    replaced: frozenset[int]


Done = Callable[[State | None], None]


def ask(reactor: Reactor, path: Path, done: Done) -> None:
    """Call `done` with the master's state, None when it does not answer: it is starting, reloading or gone."""
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        peer.connect(os.fspath(path))
        peer.send(b"show proc\n")
        # It answers once it has seen the end of the questions.
        peer.shutdown(socket.SHUT_WR)
    except OSError:
        peer.close()
        done(None)
        return
    answer = bytearray()
    reactor.add_reader(peer.fileno(), lambda: _read(reactor, peer, answer, done))


def _read(reactor: Reactor, peer: socket.socket, answer: bytearray, done: Done) -> None:
    try:
        piece = peer.recv(_ANSWER_MAX)
    except BlockingIOError:
        return
    except OSError:
        piece = b""
    answer += piece
    if piece and len(answer) < _ANSWER_MAX:
        return
    reactor.remove_reader(peer.fileno())
    peer.close()
    done(parse(bytes(answer)))


def parse(answer: bytes) -> State | None:
    """`show proc`; None where it is none."""
    found = _MASTER.search(answer)
    _, _, old = answer.partition(b"# old workers")
    return State(int(found[1]), int(found[2]), frozenset(map(int, _OLD.findall(old)))) if found else None
