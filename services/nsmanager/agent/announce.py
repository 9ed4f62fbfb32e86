"""Tells the neighbours of an address that it is here now: gratuitous ARP (RFC 5227) and unsolicited NA (RFC 4861 7.2.6).

Called after an address was added. An announcement that cannot be sent is no failure of the address. Nothing is announced that has
gone meanwhile: an address that moved would be taken from its new owner.
"""

import contextlib
import ipaddress
import socket
import struct
from collections.abc import Callable

from crossns import operation

# RFC 5227 2.3: two announcements, ANNOUNCE_INTERVAL apart.
_INTERVAL_S = 2.0
_ETH_P_ARP = 0x0806
_ARPOP_REQUEST = 1
_ARPHRD_ETHER = 1
_BROADCAST = b"\xff" * 6
_ALL_NODES = "ff02::1"
_ND_NEIGHBOR_ADVERT = 136
_OVERRIDE = 0x20000000
_OPTION_TARGET_LINK_LAYER = 2


def announce(
    link: operation.Link, address: str, is_there: Callable[[], bool], later: Callable[[float, Callable[[], None]], object]
) -> None:
    """Now, and once more if the link has the address then (`is_there`); `later(delay_s, call)` is the loop's."""
    if not link.mac or link.kind == "loopback":
        return
    send = _send_arp if ipaddress.ip_address(address).version == 4 else _send_advertisement

    def once() -> None:
        # The link may be down, gone, or without carrier.
        with contextlib.suppress(OSError):
            send(link, address)

    def again() -> None:
        if is_there():
            once()

    once()
    later(_INTERVAL_S, again)


def _hardware(link: operation.Link) -> bytes:
    return bytes.fromhex(link.mac.replace(":", ""))


def _send_arp(link: operation.Link, address: str) -> None:
    ip, mac = socket.inet_aton(address), _hardware(link)
    packet = struct.pack("!HHBBH", _ARPHRD_ETHER, 0x0800, 6, 4, _ARPOP_REQUEST) + mac + ip + bytes(6) + ip
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.settimeout(0)
        sender.sendto(packet, (link.name, _ETH_P_ARP, 0, _ARPHRD_ETHER, _BROADCAST))


def _send_advertisement(link: operation.Link, address: str) -> None:
    packet = struct.pack("!BBHI", _ND_NEIGHBOR_ADVERT, 0, 0, _OVERRIDE) + socket.inet_pton(socket.AF_INET6, address)
    packet += struct.pack("!BB", _OPTION_TARGET_LINK_LAYER, 1) + _hardware(link)
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMPV6) as sender:
        sender.settimeout(0)
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, link.index)
        sender.bind((address, 0, 0, link.index))
        # The kernel fills in the checksum (RFC 3542 3.1).
        sender.sendto(packet, (_ALL_NODES, 0, 0, link.index))
