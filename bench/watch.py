"""A client that asks one HTTP target all the time and tells who answers: a line for each change, with the moment it was seen.

Run in a host of the lab by `bench.vservice`, as `python -m bench.watch ADDRESS:PORT`. A line is the time of CLOCK_MONOTONIC in
ns, which all namespaces share, and the first word of the answer's body; "-" stands for no answer. The first comes at once.
"""

import contextlib
import socket
import sys
import time

NOBODY = "-"
# Between two requests: what is seen is at most so much older than it looks, and a core stays free for what is measured.
_PAUSE_S = 0.001
# Until another attempt to connect: while a VIP is not there, nobody answers at all.
_CONNECT_MAX_S = 0.005
_ANSWER_MAX_S = 2.0
_REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n"
_END = b"\r\n\r\n"
_ANSWER_MAX_BYTES = 64 * 1024


def command(target: str) -> list[str]:
    """What a host runs to watch ADDRESS:PORT."""
    return [sys.executable, "-P", "-m", "bench.watch", target]


def ask(connection: socket.socket) -> str:
    """Who answered; raises OSError where nobody did."""
    connection.sendall(_REQUEST)
    received = b""
    while True:
        piece = connection.recv(_ANSWER_MAX_BYTES)
        if not piece:
            raise ConnectionResetError
        received += piece
        head, end, body = received.partition(_END)
        if end and len(body) >= int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]):
            return body.split(maxsplit=1)[0].decode() if head.startswith(b"HTTP/1.1 200 ") else NOBODY


def watch(target: tuple[str, int]) -> None:
    """Until the process is killed."""
    _tell(NOBODY)
    last = NOBODY
    while True:
        with contextlib.suppress(OSError), socket.create_connection(target, _CONNECT_MAX_S) as connection:
            connection.settimeout(_ANSWER_MAX_S)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while True:
                seen = ask(connection)
                if seen != last:
                    _tell(seen)
                    last = seen
                time.sleep(_PAUSE_S)
        time.sleep(_PAUSE_S)


def _tell(who: str) -> None:
    print(time.monotonic_ns(), who, flush=True)


if __name__ == "__main__":
    address, _, port = sys.argv[1].rpartition(":")
    watch((address, int(port)))
