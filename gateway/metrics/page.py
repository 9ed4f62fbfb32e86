"""`GET /metrics` over HTTP/1.1 (RFC 9112), one answer per connection, and nothing else.

A page that a scraper reads every few seconds needs no web framework. Whoever is slow, says too much or comes too often is cut
off; scrapes take turns, so that the services are asked once at a time.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from gateway.metrics.family import Collected, Scrape
from gateway.metrics.scrape import Scraper
from gateway.owner import Channels
from gateway.settings import Address, Tls

_PATH = "/metrics"
_HEAD_MAX_BYTES = 16 * 1024
# For a whole connection, TLS and its turn included; Prometheus itself gives up after 10 s.
_PATIENCE_S = 10.0
_CONNECTIONS_MAX = 32
_PLAIN = "text/plain; charset=utf-8"


@contextlib.asynccontextmanager
async def serving(address: Address, tls: Tls | None, channels: Channels) -> AsyncIterator[int]:
    """Serve on `address` while the block runs, which is told the port; beyond loopback with `tls`. Raises OSError where the
    address cannot be had."""
    page = Page(Scraper(channels).scrape)
    secure: dict[str, Any] = {}
    if tls is not None and not address.host.is_loopback:
        secure = {"ssl": _secure(tls), "ssl_handshake_timeout": _PATIENCE_S}
    server = await asyncio.start_server(page.serve, str(address.host), address.port, limit=_HEAD_MAX_BYTES, **secure)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        await page.close()
        await server.wait_closed()


def _secure(tls: Tls) -> ssl.SSLContext:
    """Who has no certificate that the clients' authority signed is not let in."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tls.client_ca))
    context.load_cert_chain(tls.cert, tls.key)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


class Page:
    """`scrape` asks the services."""

    def __init__(self, scrape: Callable[[], Awaitable[Scrape]]) -> None:
        self._scrape = scrape
        self._turn = asyncio.Lock()
        self._open: set[asyncio.Task[None] | None] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its request to its end."""
        task = asyncio.current_task()
        try:
            if len(self._open) < _CONNECTIONS_MAX:
                self._open.add(task)
                with contextlib.suppress(TimeoutError, OSError, asyncio.IncompleteReadError):
                    async with asyncio.timeout(_PATIENCE_S):
                        writer.write(await self._answer(reader))
                        await writer.drain()
        finally:
            self._open.discard(task)
            writer.close()

    async def close(self) -> None:
        """End every connection."""
        left = [task for task in self._open if task is not None]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except asyncio.LimitOverrunError:
            return _response(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        line, *fields = head.split("\r\n")
        method, _, rest = line.partition(" ")
        target, _, version = rest.partition(" ")
        if not version.startswith("HTTP/1."):
            return _response(HTTPStatus.BAD_REQUEST)
        if target.partition("?")[0] != _PATH:
            return _response(HTTPStatus.NOT_FOUND, text=f"the metrics are at {_PATH}\n")
        if method not in ("GET", "HEAD"):
            return _response(HTTPStatus.METHOD_NOT_ALLOWED, "Allow: GET, HEAD")
        kind, body = await self._page(_accepted(fields))
        response = _response(HTTPStatus.OK, kind=kind, body=body)
        return response if method == "GET" else response.removesuffix(body)

    async def _page(self, accept: str) -> tuple[str, bytes]:
        try:
            encode, kind = choose_encoder(accept)
        except (TypeError, ValueError):
            # A version that is none; what everybody reads, then.
            encode, kind = choose_encoder("")
        async with self._turn:
            registry = CollectorRegistry(auto_describe=False)
            registry.register(Collected(await self._scrape()))
            # Tens of thousands of lines: calls go on meanwhile.
            return kind, await asyncio.to_thread(encode, registry)


def _accepted(fields: list[str]) -> str:
    """A version that is accepted comes back in the answer's head: nothing that could end a line there is taken."""
    for field in fields:
        name, _, value = field.partition(":")
        if name.lower() == "accept" and value.isprintable() and value.isascii():
            return value.strip()
    return ""


def _response(status: HTTPStatus, *fields: str, kind: str = _PLAIN, text: str = "", body: bytes = b"") -> bytes:
    body = body or (text or f"{status.phrase}\n").encode()
    head = (f"HTTP/1.1 {status.value} {status.phrase}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *fields)
    return "\r\n".join((*head, "Connection: close", "", "")).encode() + body
