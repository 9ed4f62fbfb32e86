"""Accepts clients, finds out who they are, and pipes each to the private listener of that identity.

gRPC can neither serve a socket that was made or accepted elsewhere nor show a unix peer's uid; so the socket that clients see is
ours. Bytes are passed on as they are. Each direction reads only when it has nothing left to write: a reader that does not read
stops its writer, and at most one buffer lies in between.
"""

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from crossns import rpc
from gateway.settings import Address

# One caller's connections: clients need one each; whoever opens more shall not take the device's files from the others.
CONNECTIONS_MAX = 64
BUFFER_BYTES = 64 * 1024
_KIND = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
_BACKLOG = 128
# Between attempts to accept while the process has no file descriptor left.
_EXHAUSTED_S = 0.1

_log = logging.getLogger(__name__)

# Of an accepted client: who he is as far as his connections are counted, and the private listener where he belongs.
Guide = Callable[[socket.socket], tuple[str, Path]]


class _Direction:
    """Bytes from `source` to `sink` until either ends. Straight on the event loop: a transport would copy and buffer more."""

    def __init__(self, source: socket.socket, sink: socket.socket, on_end: Callable[[], None]) -> None:
        self._source, self._sink, self._on_end = source, sink, on_end
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray(BUFFER_BYTES)
        self._pending = memoryview(self._buffer)[:0]
        self._loop.add_reader(source, self._read)

    def _read(self) -> None:
        try:
            count = self._source.recv_into(self._buffer)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            count = 0
        if count == 0:
            self._on_end()
            return
        self._pending = memoryview(self._buffer)[:count]
        if self._write():
            self._loop.remove_reader(self._source)
            self._loop.add_writer(self._sink, self._go_on)

    def _write(self) -> bool:
        """Send what the sink takes; whether something is left."""
        try:
            self._pending = self._pending[self._sink.send(self._pending) :]
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            self._on_end()
            return False
        return len(self._pending) > 0

    def _go_on(self) -> None:
        if not self._write() and self._sink.fileno() >= 0:
            self._loop.remove_writer(self._sink)
            self._loop.add_reader(self._source, self._read)


class _Joint:
    """A client and its private listener, joined until one of them ends."""

    def __init__(self, ends: tuple[socket.socket, socket.socket], on_end: Callable[[], None]) -> None:
        self._ends = ends
        self._on_end = on_end

    def begin(self) -> None:
        client, server = self._ends
        _Direction(client, server, self.close)
        _Direction(server, client, self.close)

    def close(self) -> None:
        if self._ends[0].fileno() < 0:
            return
        loop = asyncio.get_running_loop()
        for end in self._ends:
            loop.remove_reader(end)
            loop.remove_writer(end)
            end.close()
        self._on_end()


class Relay:
    """The sockets that clients see."""

    def __init__(self) -> None:
        self._listening: dict[socket.socket, Guide] = {}
        self._files: list[rpc.SocketFile] = []
        self._connections: Counter[str] = Counter()
        # With the listener by which the client came.
        self._joints: dict[_Joint, socket.socket] = {}

    def listen_unix(self, path: Path, guide: Guide) -> None:
        """Everybody may connect, and learns there that he may not. Takes the place of a predecessor's socket."""
        file = rpc.SocketFile(path)
        listener = socket.socket(socket.AF_UNIX, _KIND)
        listener.bind(str(file.own))
        file.own.chmod(0o666)
        self._listen(listener, guide)
        file.place()
        self._files.append(file)

    def listen_tcp(self, address: Address, guide: Guide) -> int:
        """In this process's own namespace; the port."""
        listener = socket.socket(socket.AF_INET6 if address.host.version == 6 else socket.AF_INET, _KIND)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((str(address.host), address.port))
        self._listen(listener, guide)
        return int(listener.getsockname()[1])

    def _listen(self, listener: socket.socket, guide: Guide) -> None:
        listener.listen(_BACKLOG)
        self._listening[listener] = guide

    async def run(self) -> None:
        """Take clients until cancelled; those who are here stay until `close`."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for listener, guide in self._listening.items():
                    tasks.create_task(self.serve(listener, guide))
        finally:
            for file in self._files:
                file.remove()

    async def serve(self, listener: socket.socket, guide: Guide) -> None:
        """Take the clients of one listening socket until cancelled; it is closed then."""
        with listener:
            async with asyncio.TaskGroup() as tasks:
                await self._accept(listener, guide, tasks)

    def end(self, listener: socket.socket) -> None:
        """End the connections of those who came by it."""
        for joint in [joint for joint, origin in self._joints.items() if origin is listener]:
            joint.close()

    def close(self) -> None:
        """End every connection."""
        for joint in tuple(self._joints):
            joint.close()

    async def _accept(self, listener: socket.socket, guide: Guide, tasks: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, _ = await loop.sock_accept(listener)
            except OSError as error:
                _log.warning("cannot accept clients at present: %s", error)
                await asyncio.sleep(_EXHAUSTED_S)
                continue
            tasks.create_task(self._join(client, listener, guide))

    async def _join(self, client: socket.socket, listener: socket.socket, guide: Guide) -> None:
        who, private = guide(client)
        if self._connections[who] >= CONNECTIONS_MAX:
            _log.warning("%s has %d connections already: refused another", who, CONNECTIONS_MAX)
            client.close()
            return
        if client.family != socket.AF_UNIX:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connections[who] += 1
        server = socket.socket(socket.AF_UNIX, _KIND)
        joint = _Joint((client, server), lambda: self._forget(joint, who))
        self._joints[joint] = listener
        try:
            await asyncio.get_running_loop().sock_connect(server, str(private))
        except OSError as error:
            # Only while the gateway ends.
            _log.warning("the listener %s is gone: %s", private.name, error)
            joint.close()
            return
        joint.begin()

    def _forget(self, joint: _Joint, who: str) -> None:
        self._joints.pop(joint, None)
        self._connections -= Counter([who])
