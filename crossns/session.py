"""The asyncio end of a session with a privileged process: what the clients of launcher and agents share.

Calls may overlap; answers find their caller by number. When the connection is lost every open call fails, and so does each
later one: the owner connects anew, with its token of then.
"""

import asyncio
import itertools
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Self

from crossns import errors, fault, operation, telemetry, wire
from crossns.listener import OpenListener

# Longer than any operation takes (an engine's check and start, at their worst); a process that is stopped holds no caller.
TIMEOUT_S = 30.0
# pid, uid, gid (unix(7)).
_UCRED = struct.Struct("3i")

# A reply and the descriptor that came with it, -1 for none.
Answer = tuple[operation.Reply, int]


class Session:
    """`reason` is that of errors.proto for a peer that does not answer; `peer_name` says in messages who that is."""

    reason: ClassVar[str]
    peer_name: ClassVar[str]

    def __init__(self, peer: socket.socket, on_event: Callable[[operation.Event], None] | None) -> None:
        self.welcome = operation.Welcome(boot_id="", pid=0)
        self._peer = peer
        self._on_event = on_event
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        # Calls whose good answer brings a descriptor, still waited for or not.
        self._with_fd: set[int] = set()
        self._fds: list[int] = []
        self._outbox = wire.Outbox()
        self._decoder: wire.Decoder[operation.Reply | operation.Notice] = wire.Decoder(operation.Reply | operation.Notice)
        self._closed = asyncio.Event()
        self._loop.add_reader(peer.fileno(), self._read)

    @classmethod
    async def connect(
        cls, path: Path, service: str, token: operation.Token, on_event: Callable[[operation.Event], None] | None = None
    ) -> Self:
        """A session that the peer has accepted. `on_event` is called, in the loop, with each event that it pushes."""
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            peer.connect(os.fspath(path))
        except OSError as error:
            peer.close()
            message = f"{cls.peer_name} is not reached on {path}: {os.strerror(error.errno or 0)}"
            raise errors.AgentUnavailable(cls.reason, message, path=path) from error
        session = cls(peer, on_event)
        try:
            welcome = await session.call(operation.Hello(service=service, token=token))
        except BaseException:
            await session.close()
            raise
        if isinstance(welcome, operation.Welcome):
            session.welcome = welcome
        return session

    @property
    def is_closed(self) -> bool:
        """Whether the connection is lost or was closed."""
        return self._closed.is_set()

    async def wait_until_closed(self) -> None:
        await self._closed.wait()

    @property
    def peer_pid(self) -> int:
        """As this process's pid namespace numbers it, 0 where it does not see it: the kernel's word (SO_PEERCRED)."""
        return int(_UCRED.unpack(self._peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))[0])

    async def close(self) -> None:
        self._lose()

    async def call(self, wanted: operation.Request) -> operation.Result | None:
        """Have an operation carried out. Raises what `fault.raised` makes of a refusal, and AgentUnavailable where no answer
        comes: then it may or may not have been done. A call that is cancelled is carried out nevertheless."""
        reply, _ = await self._answer(wanted)
        return reply.result

    def post(self, wanted: operation.Request) -> None:
        """Have an operation carried out whose answer nobody needs; a lost connection carries out nothing."""
        if not self.is_closed:
            self._put(next(self._numbers), wanted)

    def _put(self, number: int, wanted: operation.Request) -> None:
        self._outbox.put(wire.encode(operation.Call(number, wanted, telemetry.traceparent())))
        self._flush()

    async def _answer(self, wanted: operation.Request) -> Answer:
        if self.is_closed:
            raise self._unavailable("the connection is lost")
        number = next(self._numbers)
        answer = self._waiting[number] = self._loop.create_future()
        if isinstance(wanted, operation.OpenSocket | OpenListener):
            self._with_fd.add(number)
        self._put(number, wanted)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                reply, fd = await answer
        except TimeoutError as error:
            _close_untaken(answer)
            raise self._unavailable(f"no answer to {type(wanted).__name__} in {TIMEOUT_S:g} s") from error
        except asyncio.CancelledError:
            _close_untaken(answer)
            raise
        finally:
            del self._waiting[number]
        if reply.fault:
            raise fault.raised(reply.fault)
        return reply, fd

    def _unavailable(self, what: str) -> errors.AgentUnavailable:
        return errors.AgentUnavailable(self.reason, f"{self.peer_name}: {what}")

    def _read(self) -> None:
        received = wire.receive(self._peer)
        if received is None:
            return
        piece, fds = received
        self._fds += fds
        if not piece:
            self._lose()
            return
        try:
            messages = self._decoder.feed(piece)
        except wire.WireError:
            self._lose()
            return
        for message in messages:
            if isinstance(message, operation.Reply):
                self._on_reply(message)
            elif self._on_event and not self.is_closed:
                # Behind whoever waits for an answer that came before it: he knows then which of the two is the later.
                self._loop.call_soon(self._on_event, message.event)

    def _on_reply(self, reply: operation.Reply) -> None:
        has_fd = reply.id in self._with_fd and reply.fault is None and bool(self._fds)
        self._with_fd.discard(reply.id)
        fd = self._fds.pop(0) if has_fd else -1
        answer = self._waiting.get(reply.id)
        if answer and not answer.done():
            answer.set_result((reply, fd))
        elif has_fd:
            # Its caller did not wait.
            os.close(fd)

    def _flush(self) -> None:
        try:
            is_empty = self._outbox.flush(self._peer)
        except ConnectionError:
            self._lose()
            return
        if is_empty:
            self._loop.remove_writer(self._peer.fileno())
        else:
            self._loop.add_writer(self._peer.fileno(), self._flush)

    def _lose(self) -> None:
        if self.is_closed:
            return
        self._closed.set()
        self._loop.remove_reader(self._peer.fileno())
        self._loop.remove_writer(self._peer.fileno())
        self._peer.close()
        self._outbox.clear()
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(self._unavailable("the connection was lost"))


def _close_untaken(answer: asyncio.Future[Answer]) -> None:
    """It may have come in the same turn of the loop in which its caller was cancelled."""
    if answer.done() and not answer.cancelled() and answer.exception() is None and answer.result()[1] >= 0:
        os.close(answer.result()[1])
