"""One trace from the command line through gateway and service to the etcd write, and the rounds that answer it linked to it."""

import os
import sys
from collections.abc import AsyncIterator, Sequence

import pytest

from crossns import proc, telemetry
from crossns.testing import device as testing_device
from crossns.testing import otlp

pytestmark = pytest.mark.e2e

CREATE = "crossns.v1.RouteTables/CreateRouteTable"


@pytest.fixture
async def collector() -> AsyncIterator[otlp.Collector]:
    async with otlp.Collector() as receiving:
        yield receiving


def _one(spans: Sequence[otlp.Span], name: str, **wanted: str) -> otlp.Span:
    found = [span for span in spans if span.name == name and all(getattr(span, key) == value for key, value in wanted.items())]
    assert found, (name, wanted, [(span.service, span.name, span.parent) for span in spans])
    return found[0]


async def test_request_is_one_trace_and_its_round_is_linked_to_it(collector: otlp.Collector) -> None:
    environ = {telemetry.ENDPOINT_VARIABLE: collector.endpoint}
    async with testing_device.started(environ) as device:
        argv = [sys.executable, "-m", "crossns.cli", "table", "create", "traced"]
        (await proc.run(argv, environ={**os.environ, **environ})).check()
        await collector.wait_until(
            lambda spans: any(
                span.name == "apply Privileged" and span.attributes["resource"] == "routeTables/traced" for span in spans
            )
        )
        assert await device.state("routeTables/traced") == "READY"
    spans = collector.spans
    root = next(span for span in spans if span.service == "cli" and not span.parent)
    ours = [span for span in spans if span.trace_id == root.trace_id]
    at_gateway = _one(ours, CREATE, service="gateway", kind="server")
    served = _one(ours, CREATE, service="nsmanager", kind="server")
    write = next(span for span in ours if span.name == "etcd Txn" and span.parent == served.span_id)
    assert write.service == "nsmanager"
    ancestors = _ancestors(served, ours)
    assert at_gateway.span_id in ancestors
    assert ancestors[-1] == root.span_id
    round_ = next(span for span in spans if span.name == "reconcile" and any(trace == root.trace_id for trace, _ in span.links))
    assert round_.service == "nsmanager"
    assert round_.attributes["unit"] == "routeTables/traced"
    assert round_.trace_id != root.trace_id
    operation = next(span for span in spans if span.name == "apply Privileged" and span.parent == round_.span_id)
    assert "CreateNamespace" in operation.attributes["op"]
    status = next(span for span in spans if span.name == "etcd Txn" and span.parent == round_.span_id)
    assert status.trace_id == round_.trace_id


def _ancestors(span: otlp.Span, spans: Sequence[otlp.Span]) -> list[str]:
    by_id = {each.span_id: each for each in spans}
    found: list[str] = []
    while span.parent:
        found.append(span.parent)
        span = by_id[span.parent]
    return found
