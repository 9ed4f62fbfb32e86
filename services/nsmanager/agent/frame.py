"""Frames that a trial sends on its own pair of links, and what comes back there: bytes only.

Pure. A trial speaks for a neighbour whose MAC address carries the table's number, so that every answer says whom it is for.
"""

import ipaddress
import struct

_IPV4, _ARP, _IPV6 = 0x0800, 0x0806, 0x86DD
_UDP, _ICMPV6 = 17, 58
_ARP_REQUEST, _ARP_REPLY = 1, 2
_SOLICITATION, _ADVERTISEMENT = 135, 136
_OPTION_SOURCE_LINK_LAYER = 1
_ETHERNET = 14
_NUMBERED = bytes.fromhex("02637400")
_BROADCAST = b"\xff" * 6
_SEALED = struct.Struct("!II")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def numbered_mac(number: int) -> bytes:
    """Of the neighbour that the table with that number has; locally administered."""
    return _NUMBERED + number.to_bytes(2, "big")


def number_of(mac: bytes) -> int | None:
    """The inverse; None for other addresses."""
    return int.from_bytes(mac[4:6], "big") if mac[:4] == _NUMBERED else None


def sealed(seal: int, number: int) -> bytes:
    """What a datagram of the trial says."""
    return _SEALED.pack(seal, number)


def unsealed(payload: bytes, seal: int) -> int | None:
    """Whose datagram it is; None for one that is none of this trial."""
    if len(payload) != _SEALED.size:
        return None
    found, number = _SEALED.unpack(payload)
    return number if found == seal else None


def datagram(macs: tuple[bytes, bytes], source: Address, target: Address, port: int, payload: bytes) -> bytes:
    """UDP from and to `port`; `macs` are the sender's and the receiver's."""
    bare = struct.pack("!HHHH", port, port, 8 + len(payload), 0) + payload
    # RFC 768: a checksum of 0 goes as all ones.
    checksum = _checksum(_pseudo(source, target, _UDP, len(bare)) + bare) or 0xFFFF
    return _packet(macs, source, target, _UDP, bare[:6] + struct.pack("!H", checksum) + payload, hops=64)


def _pseudo(source: Address, target: Address, protocol: int, size: int) -> bytes:
    """RFC 768; RFC 8200 8.1."""
    rest = struct.pack("!IxxxB", size, protocol) if source.version == 6 else struct.pack("!xBH", protocol, size)
    return source.packed + target.packed + rest


def _packet(macs: tuple[bytes, bytes], source: Address, target: Address, protocol: int, content: bytes, *, hops: int) -> bytes:
    sender, receiver = macs
    if source.version == 6:
        head = struct.pack("!IHBB", 6 << 28, len(content), protocol, hops) + source.packed + target.packed
        return receiver + sender + _IPV6.to_bytes(2, "big") + head + content
    bare = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(content), 0, 0, hops, protocol, 0) + source.packed + target.packed
    head = bare[:10] + struct.pack("!H", _checksum(bare)) + bare[12:]
    return receiver + sender + _IPV4.to_bytes(2, "big") + head + content


def question(mac: bytes, source: Address, target: Address) -> bytes:
    """Who has `target`? Tell `source` at `mac`: an ARP request, a neighbour solicitation (RFC 4861 4.3)."""
    if source.version == 4:
        fixed = struct.pack("!HHBBH", 1, _IPV4, 6, 4, _ARP_REQUEST)
        return _BROADCAST + mac + _ARP.to_bytes(2, "big") + fixed + mac + source.packed + bytes(6) + target.packed
    group = ipaddress.IPv6Address(int(ipaddress.IPv6Address("ff02::1:ff00:0")) | int(target) & 0xFFFFFF)
    body = struct.pack("!I", 0) + target.packed + struct.pack("!BB", _OPTION_SOURCE_LINK_LAYER, 1) + mac
    bare = struct.pack("!BBH", _SOLICITATION, 0, 0) + body
    checksum = _checksum(_pseudo(source, group, _ICMPV6, len(bare)) + bare)
    content = struct.pack("!BBH", _SOLICITATION, 0, checksum) + body
    return _packet((mac, b"\x33\x33" + group.packed[-4:]), source, group, _ICMPV6, content, hops=255)


def answered(frame: bytes) -> int | None:
    """For whose question this is the answer; None for any other frame."""
    kind, content = int.from_bytes(frame[12:14], "big"), frame[_ETHERNET:]
    is_arp = kind == _ARP and content[6:8] == _ARP_REPLY.to_bytes(2, "big")
    is_advertisement = kind == _IPV6 and content[6:7] == bytes((_ICMPV6,)) and content[40:41] == bytes((_ADVERTISEMENT,))
    return number_of(frame[:6]) if is_arp or is_advertisement else None


def _checksum(content: bytes) -> int:
    """RFC 1071."""
    padded = content + b"\0" * (len(content) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
