"""Traces and logs of every process: `setup` once in `__main__`, then `span` wherever time is worth knowing.

Without OTEL_EXPORTER_OTLP_ENDPOINT nothing of OpenTelemetry is imported and `span` hands out one shared object that does
nothing. With it, spans go out over OTLP from a thread of their own (`crossns.otel`): a collector that is dead or answers
nothing never delays a call, nor the end of the process by more than SHUTDOWN_MAX_S.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Literal, Protocol, Self

Attribute = str | bool | int | float
Kind = Literal["internal", "server", "client", "producer", "consumer"]

ENDPOINT_VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"
# What a process may wait for its last spans when it ends.
SHUTDOWN_MAX_S = 1.0


class Span(Protocol):
    """An open span, for what is learnt on the way."""

    def set(self, **attributes: Attribute) -> None: ...

    def fail(self, reason: str) -> None:
        """Mark the span as failed, for a failure that no exception carries out of it."""


class Tracer(Protocol):
    def span(
        self, name: str, *, links: Iterable[str], parent: str | None, kind: Kind, attributes: dict[str, Attribute]
    ) -> AbstractContextManager[Span]: ...

    def traceparent(self) -> str: ...

    def shutdown(self, timeout_s: float) -> None: ...


class _NoSpan:
    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        return None

    def set(self, **attributes: Attribute) -> None:
        pass

    def fail(self, reason: str) -> None:
        pass


class _Off:
    def span(
        self, _name: str, *, links: Iterable[str], parent: str | None, kind: Kind, attributes: dict[str, Attribute]
    ) -> AbstractContextManager[Span]:
        del links, parent, kind, attributes
        return _NO_SPAN

    def traceparent(self) -> str:
        return ""

    def shutdown(self, timeout_s: float) -> None:
        pass


class _Process:
    """What this process traces with."""

    tracer: Tracer


_NO_SPAN = _NoSpan()
_OFF = _Off()
_process = _Process()
_process.tracer = _OFF


def setup(service_name: str) -> None:
    """Trace under `service_name` from now on, if the environment names a collector. Call `shutdown` before the process ends."""
    if os.environ.get(ENDPOINT_VARIABLE):
        from crossns import otel  # noqa: PLC0415 - costs 200 ms and 20 MB that only a traced process shall pay

        _process.tracer = otel.OtlpTracer(service_name)


def is_enabled() -> bool:
    return _process.tracer is not _OFF


def shutdown() -> None:
    """Send what is queued, for at most SHUTDOWN_MAX_S."""
    tracer, _process.tracer = _process.tracer, _OFF
    tracer.shutdown(SHUTDOWN_MAX_S)


def span(
    name: str, *, links: Iterable[str] = (), parent: str | None = None, kind: Kind = "internal", **attributes: Attribute
) -> AbstractContextManager[Span]:
    """A span that is current inside the `with` block and fails with its exception.

    `parent` and `links` are W3C traceparents; links that are empty or malformed are left out. `parent` None means the
    current span, "" begins a trace of its own.
    """
    return _process.tracer.span(name, links=links, parent=parent, kind=kind, attributes=attributes)


def traceparent() -> str:
    """The current span as a W3C traceparent; "" when there is none."""
    return _process.tracer.traceparent()


# What every LogRecord has by itself; the rest of its attributes came by `extra=`.
_RECORD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object per line; what callers give as `extra` stands beside the standard fields."""

    def __init__(self, service_name: str) -> None:
        super().__init__()
        self._service = service_name

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if parts := traceparent().split("-")[1:3]:
            line["trace_id"], line["span_id"] = parts
        line.update({key: value for key, value in vars(record).items() if key not in _RECORD_FIELDS})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def setup_logging(service_name: str, level: str = "INFO") -> None:
    """Log to stderr as JSON lines that carry the trace they belong to."""
    stderr = logging.StreamHandler(sys.stderr)
    stderr.setFormatter(JsonFormatter(service_name))
    logging.basicConfig(level=level, handlers=[stderr], force=True)
    # The exporter tells about every attempt on a collector that is down; one line per lost batch is enough.
    logging.getLogger("opentelemetry").setLevel(logging.ERROR)
    # A traceback for each client that leaves in the middle of a stream. What servicers raise is logged by the guard.
    logging.getLogger("grpc._cython.cygrpc").setLevel(logging.CRITICAL)
