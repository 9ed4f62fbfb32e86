"""The only module that knows OpenTelemetry; `telemetry.setup` imports it when a collector is configured.

Spans are handed to a bounded queue; one daemon thread sends them. When the queue is full they are dropped: tracing may lose
spans, never hold up a caller.
"""

import asyncio
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from opentelemetry import context, trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from crossns import errors, telemetry

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_KINDS: dict[telemetry.Kind, trace.SpanKind] = {
    "internal": trace.SpanKind.INTERNAL,
    "server": trace.SpanKind.SERVER,
    "client": trace.SpanKind.CLIENT,
    "producer": trace.SpanKind.PRODUCER,
    "consumer": trace.SpanKind.CONSUMER,
}
# Many writes may fold into one reconcile round; more links than this tell nothing more.
LINKS_MAX = 8
QUEUE_MAX_SPANS = 4096
BATCH_MAX_SPANS = 512
# Short enough for a person who waits for the trace, long enough to make batches.
SCHEDULE_DELAY_MS = 500
EXPORT_TIMEOUT_S = 2


def parse(traceparent: str) -> trace.SpanContext | None:
    """The remote span that a W3C traceparent names; None for none or a malformed one."""
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None:
        return None
    trace_id, span_id, flags = (int(part, 16) for part in match.groups())
    parsed = trace.SpanContext(trace_id, span_id, is_remote=True, trace_flags=trace.TraceFlags(flags))
    return parsed if parsed.is_valid else None


def _parent_context(parent: str | None) -> context.Context | None:
    """None lets the current span be the parent."""
    if parent is None:
        return None
    remote = parse(parent)
    if remote is None:
        return context.Context()
    return trace.set_span_in_context(trace.NonRecordingSpan(remote), context.Context())


class _OtlpSpan:
    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def set(self, **attributes: telemetry.Attribute) -> None:
        self._span.set_attributes(attributes)

    def fail(self, reason: str) -> None:
        self._span.set_attribute("error.type", reason)
        self._span.set_status(trace.StatusCode.ERROR, reason)


class OtlpTracer:
    """Implements `telemetry.Tracer`."""

    def __init__(self, service_name: str) -> None:
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": service_name, "service.namespace": errors.DOMAIN}),
            # `shutdown` does it, in bounded time; the interpreter's end would wait.
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(
                OTLPSpanExporter(timeout=EXPORT_TIMEOUT_S),
                max_queue_size=QUEUE_MAX_SPANS,
                max_export_batch_size=BATCH_MAX_SPANS,
                schedule_delay_millis=SCHEDULE_DELAY_MS,
                export_timeout_millis=EXPORT_TIMEOUT_S * 1000,
            )
        )
        self._tracer = self._provider.get_tracer(errors.DOMAIN)

    @contextmanager
    def span(
        self,
        name: str,
        *,
        links: Iterable[str],
        parent: str | None,
        kind: telemetry.Kind,
        attributes: dict[str, telemetry.Attribute],
    ) -> Iterator[telemetry.Span]:
        targets = [target for target in map(parse, dict.fromkeys(links)) if target is not None]
        with self._tracer.start_as_current_span(
            name,
            context=_parent_context(parent),
            kind=_KINDS[kind],
            attributes=attributes,
            links=[trace.Link(target) for target in targets[:LINKS_MAX]],
            record_exception=False,
            set_status_on_exception=False,
        ) as started:
            span = _OtlpSpan(started)
            try:
                yield span
            except errors.CrossnsError as error:
                span.fail(error.reason)
                raise
            except asyncio.CancelledError:
                span.set(cancelled=True)
                raise
            except Exception as error:
                started.record_exception(error)
                span.fail(type(error).__name__)
                raise

    def traceparent(self) -> str:
        current = trace.get_current_span().get_span_context()
        if not current.is_valid:
            return ""
        return f"00-{current.trace_id:032x}-{current.span_id:016x}-{current.trace_flags:02x}"

    def shutdown(self, timeout_s: float) -> None:
        # A thread of its own, because the provider's shutdown waits for a collector that may answer nothing.
        flushing = threading.Thread(target=self._provider.shutdown, name="telemetry-shutdown", daemon=True)
        flushing.start()
        flushing.join(timeout_s)
