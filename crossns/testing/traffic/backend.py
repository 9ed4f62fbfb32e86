"""An HTTP/1.1 backend with keep-alive that answers its own name, its route table and the client address it sees.

Raw asyncio protocols and answers that are made once for a connection: it must not be what a measurement measures. Where it
expects the PROXY protocol, the client is who the header says, and a connection without one is closed unanswered.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from crossns.testing.traffic import address, proxy_header

_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who answers. `expects_header`: each connection begins with a header of the PROXY protocol."""

    name: str
    table: str
    expects_header: bool = False


class _Connection(asyncio.Protocol):
    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._expects_header = identity.expects_header
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self._introduce(address.render(*peer[:2]) if peer else "")

    def _introduce(self, client: str) -> None:
        self._keeping, self._closing = (_answer(self._identity, client, how) for how in (b"keep-alive", b"close"))

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._expects_header and not self._has_read_header():
            return
        while _END in self._received:
            request, _, self._received = self._received.partition(_END)
            if b"connection: close" in request.lower():
                self._transport.write(self._closing)
                self._transport.close()
            else:
                self._transport.write(self._keeping)

    def _has_read_header(self) -> bool:
        try:
            header = proxy_header.parse(self._received)
        except ValueError:
            self._transport.abort()
            return False
        if header is None:
            return False
        client, self._received = header
        self._introduce(client)
        self._expects_header = False
        return True


def _answer(identity: Identity, client: str, connection: bytes) -> bytes:
    body = json.dumps({"backend": identity.name, "table": identity.table, "client": client}).encode() + b"\n"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: %s" % (len(body), connection)
    return head + _END + body


async def serve(listen: Sequence[str], identity: Identity) -> None:
    """Serve until cancelled; prints one line once it listens everywhere."""
    loop = asyncio.get_running_loop()
    servers = [
        await loop.create_server(lambda: _Connection(identity), *address.parse(where), backlog=1024, reuse_address=True)
        for where in listen
    ]
    print(json.dumps({"listening": list(listen)}), flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))
