"""An HTTP/1.1 backend with keep-alive that answers its own name, its route table and the client address it sees.

Raw asyncio protocols: it must not be what a measurement measures.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from crossns.testing.traffic import address

_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Identity:
    name: str
    table: str


class _Connection(asyncio.Protocol):
    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self._client = address.render(*peer[:2]) if peer else ""

    def data_received(self, data: bytes) -> None:
        self._received += data
        while _END in self._received:
            request, _, self._received = self._received.partition(_END)
            closing = b"connection: close" in request.lower()
            self._transport.write(self._answer(closing=closing))
            if closing:
                self._transport.close()

    def _answer(self, *, closing: bool) -> bytes:
        told = {"backend": self._identity.name, "table": self._identity.table, "client": self._client}
        body = json.dumps(told).encode() + b"\n"
        connection = b"close" if closing else b"keep-alive"
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: %s" % (
            len(body),
            connection,
        )
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
