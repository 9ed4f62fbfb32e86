"""A real OTLP collector for tests: takes spans over gRPC and hands them out as plain values.

The tests of tracing point OTEL_EXPORTER_OTLP_ENDPOINT of whole processes at it and ask who is whose parent.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from grpc import aio
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2

# How long the batches of a process may take to come.
WAIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Span:
    """What a test asks of a span. Ids are hex; `parent` is "" for a root; `links` are (trace id, span id)."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent: str
    links: tuple[tuple[str, str], ...]
    kind: str
    failed: bool
    attributes: dict[str, Any]


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """`async with Collector() as collector:` receives on loopback at `collector.endpoint`."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self._arrived = asyncio.Event()
        self._server = aio.server()
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        self._port = self._server.add_insecure_port("127.0.0.1:0")

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        await self._server.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._server.stop(None)

    async def Export(
        self, request: trace_service_pb2.ExportTraceServiceRequest, _context: Any
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        for part in request.resource_spans:
            service = next(each.value.string_value for each in part.resource.attributes if each.key == "service.name")
            self.spans += [_parse(service, span) for scope in part.scope_spans for span in scope.spans]
        self._arrived.set()
        self._arrived = asyncio.Event()
        return trace_service_pb2.ExportTraceServiceResponse()

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    async def wait_until(self, is_complete: Callable[[Sequence[Span]], bool], timeout_s: float = WAIT_S) -> None:
        """Until the spans that have come satisfy `is_complete`; AssertionError lists them when they do not in time."""
        try:
            async with asyncio.timeout(timeout_s):
                while not is_complete(self.spans):
                    await self._arrived.wait()
        except TimeoutError:
            listed = "\n".join(f"  {span.service}: {span.name} {span.attributes}" for span in self.spans)
            raise AssertionError(f"spans missing after {timeout_s:g} s; there are:\n{listed}") from None


def _parse(service: str, span: trace_pb2.Span) -> Span:
    return Span(
        service=service,
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        failed=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        attributes={each.key: getattr(each.value, each.value.WhichOneof("value") or "string_value") for each in span.attributes},
    )
