"""Single datagrams from a host: who gets one, or what comes back instead, tells what the tables between did with it."""

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

from crossns.testing.lab import Host
from tests.kernel.privileged import socket_in

PORT = 9999
PATIENCE_S = 10.0
# A datagram may meet a link that has no carrier yet: it is sent again this often.
_AGAIN_S = 0.1
# linux/in.h, linux/in6.h: errors that may pass by themselves are told, too.
_IP_RECVERR, _IPV6_RECVERR = 11, 25


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


@contextlib.contextmanager
def ears(hosts: Mapping[str, Path], address: str) -> Iterator[dict[str, socket.socket]]:
    """In each namespace somebody who listens on that very address."""
    with contextlib.ExitStack() as stack:
        opened = {}
        for name, namespace in hosts.items():
            ear = stack.enter_context(socket_in(namespace, _family(address), socket.SOCK_DGRAM))
            ear.bind((address, PORT))
            ear.settimeout(0)
            opened[name] = ear
        yield opened


async def taken_by(client: Host, source: str, target: str, listening: Mapping[str, socket.socket]) -> str:
    """Which of them gets what the client sends from `source`."""
    words = secrets.token_bytes(8)
    with _sender(client, source) as sender:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                sender.sendto(words, (target, PORT))
                await asyncio.sleep(_AGAIN_S)
                if took := {name for name, ear in listening.items() if heard(ear, words)}:
                    assert len(took) == 1, took
                    return took.pop()


def send(client: Host, source: str, target: str, words: bytes = b"") -> None:
    with _sender(client, source) as sender:
        sender.sendto(words, (target, PORT))


async def refusal(client: Host, source: str, target: str) -> str:
    """The error (RFC 792, RFC 4443) that the client is told for what it sends, as errno's name for it."""
    level, option = (socket.IPPROTO_IPV6, _IPV6_RECVERR) if ":" in source else (socket.IPPROTO_IP, _IP_RECVERR)
    with _sender(client, source) as sender:
        sender.setsockopt(level, option, 1)
        sender.connect((target, PORT))
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    sender.send(b"x")
                    await asyncio.sleep(_AGAIN_S)
                    sender.recv(1)
                except BlockingIOError:
                    continue
                except OSError as error:
                    return os.strerror(error.errno or 0)


def heard(ear: socket.socket, words: bytes) -> bool:
    """Whether just that has come; all that has come is taken out."""
    found = False
    while True:
        try:
            found |= ear.recv(64) == words
        except BlockingIOError:
            return found


@contextlib.contextmanager
def _sender(client: Host, source: str) -> Iterator[socket.socket]:
    with socket_in(client.namespace, _family(source), socket.SOCK_DGRAM) as made:
        made.bind((source, 0))
        made.settimeout(0)
        yield made
