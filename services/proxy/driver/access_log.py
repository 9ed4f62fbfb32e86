"""The access log: takes what HAProxy says of each connection or request, and logs it as the process logs everything else.

Run by the app beside the loop. HAProxy sends datagrams to a socket of ours and waits for nobody: what finds no socket, or a full
one, is lost, and traffic goes on. Invariant: a wake-up takes a bounded number of lines, then others have a turn.
"""

import asyncio
import logging
import os
import socket
from pathlib import Path

from crossns.layout import Layout
from services.proxy import access

# They take about 2 ms.
_LINES_MAX = 32
# How often it is looked at whether the socket is still where HAProxy looks for it.
_LOOK_S = 10.0
_RETRY_S = 1.0
# HAProxy's uid must be able to send; the directory keeps everybody else away.
_MODE = 0o666

log = logging.getLogger(__name__)


class AccessLog:
    """Every line goes to the logger of this module: the message "access", and a field for each of the record."""

    def __init__(self, layout: Layout) -> None:
        self._path = layout.engine_dir("haproxy") / "log.sock"

    async def run(self) -> None:
        """Listen until cancelled; again, where the socket was taken away."""
        while True:
            try:
                await self._listen()
            except OSError as error:
                log.warning("no access log: %s: %s", self._path, error)
                await asyncio.sleep(_RETRY_S)

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        with _bound(self._path) as receiver:
            own = self._path.stat()
            loop.add_reader(receiver, self._take, receiver)
            try:
                while os.path.samestat(own, self._path.stat()):  # noqa: ASYNC110 - a file that goes sets no event
                    await asyncio.sleep(_LOOK_S)
            finally:
                loop.remove_reader(receiver)

    def _take(self, receiver: socket.socket) -> None:
        for _ in range(_LINES_MAX):
            try:
                line = receiver.recv(access.LINE_MAX_BYTES)
            except BlockingIOError:
                return
            if record := access.parse(line):
                log.info("access", extra=record.shown())


def _bound(path: Path) -> socket.socket:
    """Renamed into place, so that a predecessor's is replaced without a gap."""
    own = path.with_name(f".{path.name}")
    own.unlink(missing_ok=True)
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        receiver.bind(os.fspath(own))
        own.chmod(_MODE)
        own.replace(path)
    except OSError:
        receiver.close()
        raise
    return receiver
