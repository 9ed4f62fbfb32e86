"""Framing on the unix sockets of the privileged tree: 4 bytes of length, big-endian, then one MessagePack value.

Nothing here blocks or waits, so the launcher's poll loop and asyncio ends use the same code: `Decoder` for what comes,
`Outbox` for what goes. File descriptors travel with the first byte of their frame and come out in that order.
"""

import array
import collections
import functools
import os
import socket
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import msgspec

# Far above the largest real message (a dump of a large table, an engine's configuration); bounds a peer's claim on memory.
MESSAGE_MAX = 32 * 1024 * 1024
_HEADER_SIZE = 4
_CHUNK = 256 * 1024
# Descriptors per recvmsg. No message carries more than one.
_FDS_MAX = 8

_encoder = msgspec.msgpack.Encoder()
M = TypeVar("M")


class WireError(Exception):
    """The peer does not speak this protocol: the session ends."""


def encode(message: msgspec.Struct) -> bytes:
    """One frame."""
    body = _encoder.encode(message)
    if len(body) > MESSAGE_MAX:
        raise WireError(f"a message of {len(body)} bytes is longer than {MESSAGE_MAX}")
    return len(body).to_bytes(_HEADER_SIZE, "big") + body


@functools.cache
def _decoder_of(kind: object) -> msgspec.msgpack.Decoder[Any]:
    """To make one takes longer than a session's first messages, for every type of a message is looked at; it keeps no state."""
    return msgspec.msgpack.Decoder(kind)


class Decoder(Generic[M]):
    """Frames out of a byte stream, whatever its pieces. `kind` is M, or a union that M stands for."""

    def __init__(self, kind: object) -> None:
        self._decoder: msgspec.msgpack.Decoder[M] = _decoder_of(kind)
        self._buffer = bytearray()

    def feed(self, piece: bytes) -> list[M]:
        """The messages that `piece` completes."""
        self._buffer += piece
        messages: list[M] = []
        start = 0
        while (end := self._end_of_frame(start)) is not None:
            try:
                messages.append(self._decoder.decode(memoryview(self._buffer)[start + _HEADER_SIZE : end]))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise WireError(f"not a message of ours: {error}") from error
            start = end
        del self._buffer[:start]
        return messages

    def _end_of_frame(self, start: int) -> int | None:
        if len(self._buffer) < start + _HEADER_SIZE:
            return None
        size = int.from_bytes(self._buffer[start : start + _HEADER_SIZE], "big")
        if size > MESSAGE_MAX:
            raise WireError(f"the peer announces {size} bytes, more than {MESSAGE_MAX}")
        end = start + _HEADER_SIZE + size
        return end if end <= len(self._buffer) else None


def receive(peer: socket.socket) -> tuple[bytes, list[int]] | None:
    """What has come on a non-blocking socket, and the descriptors with it (the caller's now); None when nothing has.

    `b""` says that the peer is gone.
    """
    try:
        # Not socket.recv_fds: it leaves the descriptors inheritable.
        piece, ancillary, _, _ = peer.recvmsg(_CHUNK, socket.CMSG_SPACE(_FDS_MAX * 4), socket.MSG_CMSG_CLOEXEC)
    except (BlockingIOError, InterruptedError):
        return None
    except ConnectionError:
        return b"", []
    fds = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    return piece, list(fds)


class Outbox:
    """Frames that wait for a non-blocking socket to take them."""

    def __init__(self) -> None:
        self._frames: collections.deque[tuple[memoryview, Sequence[int]]] = collections.deque()
        self.size_bytes = 0

    def put(self, frame: bytes, fds: Sequence[int] = ()) -> None:
        """Queue a frame; `fds` are closed once they are sent."""
        self._frames.append((memoryview(frame), fds))
        self.size_bytes += len(frame)

    def flush(self, peer: socket.socket) -> bool:
        """Send what the socket takes; whether all is sent. Raises ConnectionError when the peer is gone."""
        while self._frames:
            frame, fds = self._frames[0]
            try:
                sent = socket.send_fds(peer, [frame], fds) if fds else peer.send(frame)
            except (BlockingIOError, InterruptedError):
                return False
            _close(fds)
            self.size_bytes -= sent
            if sent == len(frame):
                self._frames.popleft()
            else:
                self._frames[0] = (frame[sent:], ())
        return True

    def clear(self) -> None:
        """Drop everything, descriptors included."""
        for _, fds in self._frames:
            _close(fds)
        self._frames.clear()
        self.size_bytes = 0


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
