"""One attempt to reach an address: an ICMP echo (RFC 792, RFC 4443), or a TCP connection. Never repeated."""

import asyncio
import dataclasses
import os
import secrets
import socket
import struct
import time
from collections.abc import Sequence

from crossns.testing.traffic import address

_ECHO_REQUEST, _ECHO_REPLY = {4: 8, 6: 128}, {4: 0, 6: 129}


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """`how` is "tcp" or "icmp"; `why` says what stopped it."""

    target: str
    how: str
    reached: bool
    why: str = ""
    milliseconds: float = 0

    def as_json(self) -> dict[str, object]:
        return {
            "target": self.target,
            "how": self.how,
            "reached": self.reached,
            "why": self.why,
            "ms": round(self.milliseconds, 3),
        }


async def attempt_all(targets: Sequence[str], timeout_s: float) -> list[Outcome]:
    """Try all targets at the same time; the outcomes in their order."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(attempt(target, timeout_s)) for target in targets]
    return [task.result() for task in tasks]


async def attempt(target: str, timeout_s: float) -> Outcome:
    """Try `target`, ADDRESS:PORT by TCP or ADDRESS by ICMP echo."""
    is_tcp = target.startswith("[") or target.count(":") == 1
    how, attempted = ("tcp", _connect(target)) if is_tcp else ("icmp", _echo(target))
    began = time.monotonic()
    try:
        async with asyncio.timeout(timeout_s):
            await attempted
    except TimeoutError:
        return Outcome(target, how, reached=False, why=f"no answer within {timeout_s:g} s")
    except OSError as error:
        return Outcome(target, how, reached=False, why=os.strerror(error.errno) if error.errno else str(error))
    return Outcome(target, how, reached=True, milliseconds=(time.monotonic() - began) * 1000)


async def _connect(target: str) -> None:
    _, writer = await asyncio.open_connection(*address.parse(target))
    writer.close()


async def _echo(target: str) -> None:
    loop = asyncio.get_running_loop()
    version = 6 if ":" in target else 4
    family, protocol = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if version == 6 else (socket.AF_INET, socket.IPPROTO_ICMP)
    # Several attempts of one process run at once; each wants its own answer only.
    request = _echo_request(_ECHO_REQUEST[version], secrets.randbits(16))
    with socket.socket(family, socket.SOCK_RAW, protocol) as raw:
        raw.setblocking(False)  # noqa: FBT003 - the name of the parameter is the method's
        raw.connect((target, 0))
        await loop.sock_sendall(raw, request)
        while True:
            packet = await loop.sock_recv(raw, 2048)
            # IPv4 hands over its own header too (raw(7)).
            message = packet[(packet[0] & 0xF) * 4 :] if version == 4 else packet
            if message[0] == _ECHO_REPLY[version] and message[4:] == request[4:]:
                return


def _echo_request(kind: int, identifier: int) -> bytes:
    """With the checksum of RFC 1071, which the kernel puts in itself for ICMPv6."""
    body = struct.pack("!HH", identifier, 1) + b"crossns!"
    words = struct.unpack(f"!{len(body) // 2}H", body)
    total = (kind << 8) + sum(words)
    total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!BBH", kind, 0, ~(total + (total >> 16)) & 0xFFFF) + body
