"""A client that asks without ever asking twice, and counts: answered, lost, how fast, by whom, and the longest silence.

Two streams at once: connections that are kept open, a request after the other, and requests on a new connection each. Raw
asyncio protocols, so that one core makes several thousand requests a second.
"""

import asyncio
import math
import os
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import cast

from crossns.testing.traffic import address

_END = b"\r\n\r\n"
# A connection that was refused is tried anew after this long: a dead target must not make the client spin.
_RECONNECT_S = 0.01
# How often requests are looked through for those whose time is up.
_SWEEP_S = 0.1


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do. Rates are per second; 0 for `rate` is as fast as the connections go, for `rate_new` none."""

    target: str
    connections: int = 1
    rate: float = 0
    rate_new: float = 0
    requests: int = 0
    seconds: float = 10
    timeout_s: float = 5


@dataclass(slots=True)
class Tally:
    """What one stream of requests got."""

    latencies_ms: list[float] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)

    def as_json(self) -> dict[str, object]:
        ordered = sorted(self.latencies_ms)
        ranks = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
        at = (
            {name: round(ordered[max(0, math.ceil(rank * len(ordered)) - 1)], 3) for name, rank in ranks.items()}
            if ordered
            else {}
        )
        return {"ok": len(ordered), "failed": self.failed.total(), "errors": dict(self.failed), "latency_ms": at}


class Load:
    """A running client."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.host, self.port = address.parse(plan.target)
        where = address.render(self.host, self.port).encode()
        self.keep_alive = b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n" % where
        self.single = b"GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % where
        self.kept, self.new = Tally(), Tally()
        self.by_backend: Counter[str] = Counter()
        self.longest_gap_s = 0.0
        self.last_success = time.monotonic()
        self.started = 0
        self.open: set[_Connection] = set()
        self.is_over = False
        self._time: asyncio.Timeout

    def may_start(self) -> bool:
        """Whether another request is to be made."""
        if self.is_over or (self.plan.requests and self.started >= self.plan.requests):
            return False
        self.started += 1
        return True

    def succeeded(self, tally: Tally, latency_s: float, body: bytes) -> None:
        now = time.monotonic()
        self.longest_gap_s = max(self.longest_gap_s, now - self.last_success)
        self.last_success = now
        tally.latencies_ms.append(latency_s * 1000)
        self.by_backend[_backend_of(body)] += 1
        self._finish_when_done()

    def failed(self, tally: Tally, why: str) -> None:
        tally.failed[why] += 1
        self._finish_when_done()

    def stop(self) -> None:
        """What is under way is given up, uncounted."""
        self.is_over = True
        self._time.reschedule(asyncio.get_running_loop().time())

    def _finish_when_done(self) -> None:
        answered = sum(len(tally.latencies_ms) + tally.failed.total() for tally in (self.kept, self.new))
        if self.plan.requests and answered >= self.plan.requests:
            self.stop()

    async def run(self) -> dict[str, object]:
        began = self.last_success = time.monotonic()
        try:
            async with asyncio.timeout(self.plan.seconds) as self._time, asyncio.TaskGroup() as group:
                for number in range(self.plan.connections):
                    group.create_task(self._keep(number))
                group.create_task(self._open_new(group))
                group.create_task(self._sweep())
        except TimeoutError:
            self.is_over = True
        took_s = time.monotonic() - began
        self.longest_gap_s = max(self.longest_gap_s, time.monotonic() - self.last_success)
        return {
            "seconds": round(took_s, 3),
            "kept": self.kept.as_json(),
            "new": self.new.as_json(),
            "by_backend": dict(sorted(self.by_backend.items())),
            "longest_gap_ms": round(self.longest_gap_s * 1000, 3),
        }

    async def _keep(self, number: int) -> None:
        """One kept connection; a new one in its place when it breaks."""
        interval_s = self.plan.connections / self.plan.rate if self.plan.rate else 0
        await asyncio.sleep(interval_s * number / self.plan.connections)
        while True:
            await self._connect(_Connection(self, self.kept, self.keep_alive, interval_s))
            await asyncio.sleep(_RECONNECT_S)

    async def _open_new(self, group: asyncio.TaskGroup) -> None:
        if not self.plan.rate_new:
            return
        due = time.monotonic()
        while not self.is_over:
            group.create_task(self._connect(_Connection(self, self.new, self.single, None)))
            due += 1 / self.plan.rate_new
            await asyncio.sleep(max(0, due - time.monotonic()))

    async def _connect(self, connection: "_Connection") -> None:
        """Until the connection has ended."""
        if not connection.begin():
            return
        try:
            async with asyncio.timeout(self.plan.timeout_s):
                await asyncio.get_running_loop().create_connection(lambda: connection, self.host, self.port)
        except TimeoutError:
            connection.lose("connect timeout")
        except OSError as error:
            connection.lose(f"connect: {os.strerror(error.errno) if error.errno else error}")
        else:
            await connection.closed.wait()
        finally:
            connection.close()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            late = time.monotonic() - self.plan.timeout_s
            for connection in [connection for connection in self.open if connection.asked_at and connection.asked_at < late]:
                connection.lose("timeout")


class _Connection(asyncio.Protocol):
    """One connection: asks when it is made and again each `interval_s`, an answer permitting (None: only once)."""

    def __init__(self, load: Load, tally: Tally, request: bytes, interval_s: float | None) -> None:
        self._load, self._tally, self._request, self._interval_s = load, tally, request, interval_s
        self._transport: asyncio.Transport | None = None
        self._received = b""
        # When the request that is under way was made; 0 while none is.
        self.asked_at = 0.0
        self._due = 0.0
        self.closed = asyncio.Event()

    def begin(self) -> bool:
        """Count the first request, which includes making the connection."""
        if not self._load.may_start():
            return False
        self.asked_at = self._due = time.monotonic()
        return True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._load.open.add(self)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(_END)
        if not end or len(body) < _content_length(head):
            return
        self._received = b""
        asked_at, self.asked_at = self.asked_at, 0.0
        now = time.monotonic()
        if head.startswith(b"HTTP/1.1 200 "):
            self._load.succeeded(self._tally, now - asked_at, body)
        else:
            self._load.failed(self._tally, head.split(b"\r\n", 1)[0].decode(errors="replace"))
        # Who says that it closes takes no further request (RFC 9112, 9.6): one that were sent would not be its loss.
        if self._interval_s is None or b"\r\nconnection: close" in head.lower():
            self.close()
            return
        self._due += self._interval_s
        if self._due <= now:
            self._ask()
        else:
            asyncio.get_running_loop().call_later(self._due - now, self._ask)

    def _ask(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if not self._load.may_start():
            self.close()
            return
        self.asked_at = time.monotonic()
        self._transport.write(self._request)

    def lose(self, why: str) -> None:
        """The request under way, if any, will not be answered any more."""
        if self.asked_at and not self._load.is_over:
            self._load.failed(self._tally, why)
        self.close()

    def close(self) -> None:
        """What is under way is given up, uncounted."""
        self.asked_at = 0.0
        self._load.open.discard(self)
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lose(f"connection lost: {exc}" if exc else "connection closed before the answer")
        self.closed.set()


def _content_length(head: bytes) -> int:
    _, _, rest = head.lower().partition(b"\r\ncontent-length:")
    return int(rest.split(b"\r\n", 1)[0])


def _backend_of(body: bytes) -> str:
    """The name in the backend's JSON answer, without parsing all of it."""
    return body.partition(b'"backend": "')[2].partition(b'"')[0].decode(errors="replace")


async def run(plan: Plan) -> dict[str, object]:
    """Carry out the plan, or what SIGTERM leaves of it; the counts as JSON values."""
    load = Load(plan)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, load.stop)
    return await load.run()
