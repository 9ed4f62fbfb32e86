"""Packets that nobody asked for, each from a sender of its own: what a flood into a table is made of.

Called by the tests of budgets. They are made whole, IP header included, so that no kernel of the sender's has a say.
"""

import ipaddress
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tests.kernel.privileged import socket_in

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# What follows the IP header, with its protocol.
Payload = Callable[[Address, Address], tuple[int, bytes]]
_SENDERS = {4: ipaddress.ip_address("10.77.0.0"), 6: ipaddress.ip_address("2001:db8:77::")}
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_PORT = 5000
_FIN, _SYN, _RST, _PSH, _ACK, _URG = (1 << bit for bit in range(6))
_TCP, _UDP, _ICMP, _ICMPV6, _SCTP = 6, 17, 1, 58, 132
_DESTINATION_OPTIONS, _FRAGMENT = 60, 44
# Castagnoli's polynomial, from its low end (RFC 9260, appendix A).
_CRC32C = 0x82F63B78


def _sum(content: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{(len(content) + 1) // 2}H", content + bytes(len(content) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _crc32c(content: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (_CRC32C if crc & 1 else 0)
    return ~crc & 0xFFFFFFFF


def _summed(sender: Address, target: Address, protocol: int, content: bytes, at: int) -> tuple[int, bytes]:
    """With the checksum over `content` and the addresses at its place."""
    pseudo = sender.packed + target.packed + struct.pack("!II", len(content), protocol)
    return protocol, content[:at] + struct.pack("!H", _sum(pseudo + content)) + content[at + 2 :]


def _tcp(flags: int) -> Payload:
    head = struct.pack("!HHIIBBHHH", 4000, _PORT, 7, 7, 5 << 4, flags, 1000, 0, 0)
    return lambda sender, target: _summed(sender, target, _TCP, head, 16)


def _udp(sender: Address, target: Address) -> tuple[int, bytes]:
    return _summed(sender, target, _UDP, struct.pack("!HHHH", 4000, _PORT, 16, 0) + bytes(8), 6)


def _echo(sender: Address, target: Address) -> tuple[int, bytes]:
    if sender.version == 6:
        return _summed(sender, target, _ICMPV6, struct.pack("!BBHHH", 128, 0, 0, 7, 1), 2)
    head = struct.pack("!BBHHH", 8, 0, 0, 7, 1)
    return _ICMP, head[:2] + struct.pack("!H", _sum(head)) + head[4:]


def _sctp(chunk: bytes) -> Payload:
    head = struct.pack("!HHI", 4000, _PORT, 7)
    whole = head + struct.pack("<I", _crc32c(head + bytes(4) + chunk)) + chunk
    return lambda *_: (_SCTP, whole)


def _raw(protocol: int) -> Payload:
    return lambda *_: (protocol, bytes(16))


def _behind_options(payload: Payload) -> Payload:
    def made(sender: Address, target: Address) -> tuple[int, bytes]:
        protocol, content = payload(sender, target)
        return _DESTINATION_OPTIONS, bytes((protocol, 0, 1, 4, 0, 0, 0, 0)) + content

    return made


# Sessions as they begin, what is in the middle of one, and protocols that have none.
KINDS: Mapping[str, Payload] = {
    "TCP SYN": _tcp(_SYN),
    "TCP ACK": _tcp(_ACK),
    "TCP SYN ACK": _tcp(_SYN | _ACK),
    "TCP FIN ACK": _tcp(_FIN | _ACK),
    "TCP RST": _tcp(_RST),
    "TCP without flags": _tcp(0),
    "TCP with all flags": _tcp(_FIN | _SYN | _RST | _PSH | _ACK | _URG),
    "UDP": _udp,
    "ICMP echo": _echo,
    "SCTP INIT": _sctp(struct.pack("!BBHIIHHI", 1, 0, 20, 7, 1500, 1, 1, 7)),
    "SCTP DATA": _sctp(struct.pack("!BBHIHHI", 0, 3, 20, 7, 0, 0, 0) + bytes(4)),
    "SCTP HEARTBEAT": _sctp(struct.pack("!BBHHH", 4, 0, 8, 1, 4)),
    "DCCP": _raw(33),
    "UDP-Lite": _raw(136),
    "GRE": _raw(47),
    "ESP": _raw(50),
    "OSPF": _raw(89),
    "VRRP": _raw(112),
    "protocol 253": _raw(253),
}
IPV6_KINDS: Mapping[str, Payload] = {
    "ACK behind options": _behind_options(_tcp(_ACK)),
    "UDP behind options": _behind_options(_udp),
    "protocol 253 behind options": _behind_options(_raw(253)),
}


def flood(namespace: Path, target: str, payload: Payload, count: int, *, in_fragments: bool = False) -> None:
    """Sends `count` packets from a host, each from another address."""
    to = ipaddress.ip_address(target)
    with socket_in(namespace, _FAMILIES[to.version], socket.SOCK_RAW, socket.IPPROTO_RAW) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        for number in range(1, count + 1):
            origin = _SENDERS[to.version] + number
            for packet in _packets(origin, to, *payload(origin, to), number, in_fragments=in_fragments):
                sender.sendto(packet, (target, 0))


def _packets(
    sender: Address, target: Address, protocol: int, content: bytes, number: int, *, in_fragments: bool
) -> Iterator[bytes]:
    if not in_fragments:
        yield _ip(sender, target, protocol, content)
        return
    # In units of eight bytes.
    for offset, piece, more in ((0, content[:8], True), (1, content[8:], False)):
        if sender.version == 6:
            head = struct.pack("!BBHI", protocol, 0, offset << 3 | more, number)
            yield _ip(sender, target, _FRAGMENT, head + piece)
        else:
            yield _ip(sender, target, protocol, piece, number, offset | more << 13)


def _ip(sender: Address, target: Address, protocol: int, content: bytes, number: int = 0, fragment: int = 0) -> bytes:
    if sender.version == 6:
        return struct.pack("!IHBB", 6 << 28, len(content), protocol, 64) + sender.packed + target.packed + content
    # The kernel fills in the checksum (raw(7)).
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(content), number, fragment, 64, protocol, 0)
    return head + sender.packed + target.packed + content
