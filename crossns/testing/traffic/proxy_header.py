"""The header of the PROXY protocol, version 1 or 2, that tells a backend whose connection it is (haproxy's proxy-protocol.txt).

`backend` reads it where it was told to expect one; the tests write it as a proxy in front of crossns would. It is parsed as
strictly as is needed to notice a header that is none: nothing here guesses.
"""

import ipaddress
import struct
from typing import Literal

from crossns.testing.traffic import address

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
# Version 2, command PROXY (2.2). A LOCAL one, 0x20, would be the proxy's own connection: nothing here makes one.
_PROXIED = 0x21
# Family and transport (2.2): TCP over IPv4, over IPv6 -> the length of one address.
_LENGTHS = {0x11: 4, 0x21: 16}
# The longest line of version 1 (2.1), with its end.
_LINE_MAX = 107

Socket = tuple[str, int]


def parse(received: bytes) -> tuple[str, bytes] | None:
    """(the client as `address:port`, what follows); None while more must come; ValueError where it is no header."""
    if received.startswith(_SIGNATURE[: len(received)]):
        return _parse_binary(received)
    line, end, rest = received.partition(b"\r\n")
    if not end:
        if not received.startswith(b"PROXY "[: len(received)]) or len(received) >= _LINE_MAX:
            raise ValueError(f"{received[:_LINE_MAX]!r} is no header of the PROXY protocol")
        return None
    words = line.decode("ascii").split(" ")
    if len(words) != 6 or words[0] != "PROXY" or words[1] not in {"TCP4", "TCP6"}:
        raise ValueError(f"{line[:_LINE_MAX]!r} is no header of the PROXY protocol")
    return _render(words[2], int(words[4])), rest


def _parse_binary(received: bytes) -> tuple[str, bytes] | None:
    if len(received) < 16:
        return None
    command, family, length = struct.unpack_from("!BBH", received, len(_SIGNATURE))
    size = _LENGTHS.get(family, 0)
    if command != _PROXIED or not size or length < 2 * size + 4:
        raise ValueError(f"{received[:16]!r} is no header of the PROXY protocol that tells a client of TCP")
    if len(received) < 16 + length:
        return None
    (port,) = struct.unpack_from("!H", received, 16 + 2 * size)
    return _render(received[16 : 16 + size], port), received[16 + length :]


def _render(client: str | bytes, port: int) -> str:
    return address.render(str(ipaddress.ip_address(client)), port)


def render(version: Literal[1, 2], client: Socket, target: Socket) -> bytes:
    """The header that a proxy in front sends before the client's first byte."""
    source, destination = ipaddress.ip_address(client[0]), ipaddress.ip_address(target[0])
    if version == 1:
        return f"PROXY TCP{source.version} {source} {destination} {client[1]} {target[1]}\r\n".encode()
    addresses = source.packed + destination.packed + struct.pack("!HH", client[1], target[1])
    family = 0x11 if source.version == 4 else 0x21
    return _SIGNATURE + struct.pack("!BBH", _PROXIED, family, len(addresses)) + addresses
