"""What an engine says: logged as it comes, and kept while an answer may depend on it.

Called by `engine` and `check`. The engine writes into a named pipe that both ends hold for reading and writing, so that a
launcher which dies neither ends the engine nor loses its words: the next one reads them. What does not fit while nobody
reads is lost; the engine never waits.
"""

import fcntl
import logging
import os
import re
from pathlib import Path

from crossns import errors
from services.nsmanager.launcher.loop import Reactor

# What the pipe holds, the most that the kernel grants by itself (pipe(7)): a worker that ends says a line for each proxy.
_PIPE = 1024 * 1024
# One alert names a file, a line, a frontend and an address, in at most 400 characters: as many as 128 of them.
MAX = 64 * 1024
# Foreign text enters the log line by line, each at most this long.
_LINE_MAX = 1024
_PIECE = 64 * 1024
# Pieces that an engine may say while it is listened to: one that never stops must not hold up the launcher.
_PIECES_MAX = _PIPE // _PIECE
_ALERT = re.compile(r"^\[ALERT\]\s+\(\d+\) : (.*)", re.MULTILINE)
# Of each proxy of a worker that ends: thousands of lines behind each reload that nobody reads.
_ROUTINE = re.compile(r"\[WARNING\]\s+\(\d+\) : Proxy \S+ stopped ")
# Of each reload: that it goes well, and that the worker from before ends as it was told to (128 + SIGTERM).
_ORDINARY = re.compile(
    r"\[NOTICE\]\s+\(\d+\) : (Reloading HAProxy|New worker |Loading success|Scheduling a soft-stop|haproxy version|path to exec)"
    r"|\[WARNING\]\s+\(\d+\) : Former worker \(\d+\) exited with code 143 "
)
_LEVELS = {"[ALERT]": logging.ERROR, "[WARNING]": logging.WARNING}
_log = logging.getLogger(__name__)


class Words:
    """`fd`, from `open` on, is for the engine's standard output and error."""

    def __init__(self, reactor: Reactor, path: Path, engine: str) -> None:
        self._reactor = reactor
        self._path = path
        self._engine = engine
        self._unfinished = b""
        self._kept = ""
        self.fd = -1

    def open(self) -> None:
        if not self._path.exists():
            os.mkfifo(self._path, 0o600)
        self.fd = os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.fcntl(self.fd, fcntl.F_SETPIPE_SZ, _PIPE)
        self._reactor.add_reader(self.fd, self._read)

    def forget(self) -> None:
        """What is said from here on is another matter."""
        self._listen()
        self._kept = ""

    def said(self) -> str:
        """Everything since `forget`, as far as it is not much longer than MAX."""
        self._listen()
        return self._kept

    def _listen(self) -> None:
        for _ in range(_PIECES_MAX):
            if not self._read():
                break

    def _read(self) -> bool:
        """Whether there was something."""
        try:
            piece = os.read(self.fd, _PIECE)
        except BlockingIOError:
            return False
        *lines, self._unfinished = (self._unfinished + piece).split(b"\n")
        # A line without end is none.
        self._unfinished = self._unfinished[:_LINE_MAX]
        for line in lines:
            self._hear(line.decode(errors="replace"))
        return True

    def _hear(self, line: str) -> None:
        if _ROUTINE.match(line):
            return
        shown = "".join(character if character.isprintable() else "?" for character in line[:_LINE_MAX])
        _log.log(_level(shown), "%s: %s", self._engine, shown)
        if len(self._kept) < MAX:
            self._kept += f"{shown}\n"


def _level(line: str) -> int:
    """HAProxy's own, but for what nobody needs to hear of."""
    return logging.DEBUG if _ORDINARY.match(line) else _LEVELS.get(line.partition(" ")[0], logging.INFO)


def refusal(what: str, said: str) -> errors.PermanentError:
    """With all alerts of what the engine said, where there are some."""
    alerts = "; ".join(_ALERT.findall(said))
    words = " ".join((alerts or said or "it says nothing").split())
    return errors.PermanentError("ENGINE_REFUSED", f"{what}: {words if len(words) <= MAX else words[: MAX - 1] + '…'}")
