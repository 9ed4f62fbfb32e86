"""Tries to connect, as many as wanted: a flood of SYNs that nobody stands behind.

`python -m bench.syn ADDRESS PORT RATE SECONDS`, run inside a host's namespace by `bench.tables.flood`, prints the rate that it
reached. Each try is a socket of its own that is closed at once: the kernel sends its SYN once and answers what comes back with
a reset, so that no try lives longer than the flood.
"""

import errno
import socket
import sys
import time
from collections.abc import Sequence

# So many tries are made before the clock is looked at.
_BATCH = 50
# Every port is on its way: the kernel has none to give for the moment.
_NO_PORT = (errno.EADDRNOTAVAIL, errno.EAGAIN)


def flood(target: tuple[str, int], rate: int, duration_s: float) -> float:
    """The tries per second that were reached."""
    begun = time.monotonic()
    made = 0
    while (passed_s := time.monotonic() - begun) < duration_s:
        if made > rate * passed_s:
            time.sleep((made - rate * passed_s) / rate)
        for _ in range(_BATCH):
            made += _try(target)
    return made / passed_s


def _try(target: tuple[str, int]) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as made:
        code = made.connect_ex(target)
    if code not in {0, errno.EINPROGRESS, *_NO_PORT}:
        raise OSError(code, f"connect: {errno.errorcode.get(code)}")
    return code not in _NO_PORT


def main(argv: Sequence[str]) -> None:
    host, port, rate, duration_s = argv
    print(flood((host, int(port)), int(rate), float(duration_s)))


if __name__ == "__main__":
    main(sys.argv[1:])
