"""Routes that nobody asked crossns for, put into a route table straight away and as many as wanted: what agents hear of.

`python -m bench.route RATE SECONDS`, run inside a table's namespace by `bench.tables.event`, changes routes at that rate and
prints the rate that it reached. The benchmark itself calls the rest. Each route is a blackhole for one address of the range for
benchmarks (RFC 2544), so that it needs no link; messages are those of rtnetlink(7).
"""

import os
import socket
import struct
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from crossns import netns

# linux/rtnetlink.h, linux/netlink.h
_NEWROUTE, _DELROUTE = 24, 25
_REQUEST, _ACK, _EXCL, _CREATE = 0x1, 0x4, 0x200, 0x400
_MAIN, _STATIC, _UNIVERSE, _BLACKHOLE = 254, 4, 0, 6
_RTA_DST = 1
_HEADER, _ROUTE, _DESTINATION = struct.Struct("IHHII"), struct.Struct("8BI"), struct.Struct("HH4s")
_SIZE = _HEADER.size + _ROUTE.size + _DESTINATION.size
# So many changes go to the kernel at once in a storm: few, for a kernel without preemption lets nobody else on that core until
# they are worked off.
_BATCH = 25


def address(number: int) -> str:
    return f"198.{18 + number // 65536 % 2}.{number // 256 % 256}.{number % 256}"


def message(number: int, *, is_new: bool, ack: bool = True) -> bytes:
    """The request that puts, or removes, the route number `number`."""
    flags = _REQUEST | (_CREATE | _EXCL if is_new else 0) | (_ACK if ack else 0)
    header = _HEADER.pack(_SIZE, _NEWROUTE if is_new else _DELROUTE, flags, 0, 0)
    route = _ROUTE.pack(socket.AF_INET, 32, 0, 0, _MAIN, _STATIC, _UNIVERSE, _BLACKHOLE, 0)
    return header + route + _DESTINATION.pack(_DESTINATION.size, _RTA_DST, socket.inet_aton(address(number)))


def opened(namespace: Path) -> socket.socket:
    """A socket for requests to a namespace."""
    fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return netns.inside(fd, _socket)
    finally:
        os.close(fd)


def change(to: socket.socket, number: int, *, is_new: bool) -> None:
    """Done when it returns; raises OSError where the kernel refuses."""
    to.send(message(number, is_new=is_new))
    (code,) = struct.unpack_from("i", to.recv(4096), _HEADER.size)
    if code:
        raise OSError(-code, os.strerror(-code))


def storm(rate: int, duration_s: float) -> float:
    """Put and remove the same routes over and over; the changes per second that were reached."""
    pairs = ((message(number, is_new=is_new, ack=False) for is_new in (True, False)) for number in range(_BATCH // 2))
    batch = b"".join(each for pair in pairs for each in pair)
    with _socket() as kernel:
        begun = time.monotonic()
        sent = 0
        while (passed_s := time.monotonic() - begun) < duration_s:
            if sent > rate * passed_s:
                time.sleep((sent - rate * passed_s) / rate)
            kernel.send(batch)
            sent += _BATCH
        return sent / passed_s


def _socket() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)


def main(argv: Sequence[str]) -> None:
    rate, duration_s = argv
    print(storm(int(rate), float(duration_s)))


if __name__ == "__main__":
    main(sys.argv[1:])
