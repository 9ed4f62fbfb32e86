"""One trace from the caller through the gateway to the service, at a real OTLP collector; and none that costs anybody time."""

import asyncio
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from crossns import errors, proc, rpc, telemetry
from crossns.layout import Layout
from crossns.testing import otlp
from crossns.v1 import config_pb2, interface_pb2, route_table_pb2
from tests.e2e import stage

pytestmark = pytest.mark.e2e

WITHIN_S = 20.0
LAYOUT = Layout(run=Path("/run/tracing-test"))
GET = "crossns.v1.VServices/GetVService"
WAIT = "crossns.v1.Config/Wait"


@pytest.fixture
async def collector() -> AsyncIterator[otlp.Collector]:
    async with otlp.Collector() as receiving:
        yield receiving


@dataclass(slots=True)
class _Chain:
    """Gateway and toy as processes that trace to `endpoint`; what they have said after they were ended."""

    endpoint: str
    processes: dict[str, proc.Process]
    said: dict[str, str]

    async def call(self, deed: str, name: str, socket: Path = LAYOUT.gateway_socket) -> int:
        """A caller's deed; how many milliseconds it took him."""
        argv = [sys.executable, "-m", "tests.e2e.caller", f"unix:{socket}", deed, name]
        return int((await proc.run(argv, environ=_environ(self.endpoint))).check().stdout)

    async def end(self, name: str) -> float:
        """End a process as the supervisor does; how many seconds it took."""
        process, began = self.processes[name], time.monotonic()
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(WITHIN_S):
            assert process.stdout is not None
            self.said[name] = (await process.stdout.read()).decode()
            await process.wait()
        return time.monotonic() - began


def _environ(endpoint: str) -> Mapping[str, str]:
    return {**os.environ, "CROSSNS_RUN_DIR": str(LAYOUT.run), telemetry.ENDPOINT_VARIABLE: endpoint}


@asynccontextmanager
async def _chain(endpoint: str) -> AsyncIterator[_Chain]:
    service = LAYOUT.service_socket("proxy")
    for path in (service, LAYOUT.gateway_socket):
        path.parent.mkdir(parents=True)
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, LAYOUT.run)
        chain = _Chain(endpoint, {}, {})
        for name, argv, socket in (
            ("toy", ["-m", "tests.e2e.toy", f"unix:{service}"], service),
            ("gateway", ["-m", "gateway"], LAYOUT.gateway_socket),
        ):
            process = await proc.start([sys.executable, *argv], environ=_environ(endpoint))
            stack.push_async_callback(_end, process)
            chain.processes[name] = process
            await _wait_until_serving(socket)
        yield chain


async def _end(process: proc.Process) -> None:
    proc.kill(process)
    await process.wait()
    if process.stdout is not None:
        await process.stdout.read()


async def _wait_until_serving(socket: Path) -> None:
    async with asyncio.timeout(WITHIN_S), rpc.channel(f"unix:{socket}") as channel:
        while True:
            try:
                with rpc.translated():
                    await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=1)
                break
            except errors.TemporaryError:
                continue


def _child(collector: otlp.Collector, parent: otlp.Span, service: str, name: str) -> otlp.Span:
    (found,) = (span for span in collector.named(name) if span.parent == parent.span_id)
    assert (found.service, found.trace_id) == (service, parent.trace_id)
    return found


async def test_call_is_one_trace_through_three_processes(collector: otlp.Collector) -> None:
    async with _chain(collector.endpoint) as chain:
        await chain.call("get", "echo")
        # Caller, gateway in and out, toy.
        await collector.wait_until(lambda _spans: len(collector.named(GET)) == 4 and bool(collector.named("caller")))
    (root,) = collector.named("caller")
    assert root.parent == ""
    sent = _child(collector, root, "caller", GET)
    received = _child(collector, sent, "gateway", GET)
    forwarded = _child(collector, received, "gateway", GET)
    served = _child(collector, forwarded, "toy", GET)
    assert [span.kind for span in (sent, received, forwarded, served)] == ["client", "server", "client", "server"]
    for span in (sent, received, forwarded, served):
        assert span.attributes == {
            "rpc.system": "grpc",
            "rpc.service": "crossns.v1.VServices",
            "rpc.method": "GetVService",
            "rpc.grpc.status_code": 0,
        }
        assert not span.failed


async def test_failed_call_has_its_code_on_every_span_and_its_bug_in_the_log(collector: otlp.Collector) -> None:
    codes = {"missing": 5, "bug": 13, "abort": 15}
    async with _chain(collector.endpoint) as chain:
        for done, name in enumerate(codes, 1):
            await chain.call("get", name)
            await collector.wait_until(lambda _spans, done=done: len(collector.named(GET)) == 4 * done)  # type: ignore[misc]
        await chain.end("toy")
    for (name, code), root in zip(codes.items(), collector.named("caller"), strict=True):
        spans = [span for span in collector.named(GET) if span.trace_id == root.trace_id]
        assert {span.attributes["rpc.grpc.status_code"] for span in spans} == {code}
        assert {span.failed for span in spans if span.kind == "server"} == {name != "missing"}
        assert {span.failed for span in spans if span.kind == "client"} == {True}
    lines = [json.loads(line) for line in chain.said["toy"].splitlines() if line.startswith("{")]
    (bug,) = (line for line in lines if "ZeroDivisionError" in line.get("exception", ""))
    (served,) = (span for span in collector.named(GET) if span.service == "toy" and span.attributes["rpc.grpc.status_code"] == 13)
    assert (bug["trace_id"], bug["span_id"]) == (served.trace_id, served.span_id)


async def test_deadline_is_told_apart_from_what_it_cancels(collector: otlp.Collector) -> None:
    async with _chain(collector.endpoint) as chain:
        await chain.call("get", "slow")
        await collector.wait_until(lambda _spans: len(collector.named(GET)) == 4)
    codes = {(span.service, span.kind): span.attributes["rpc.grpc.status_code"] for span in collector.named(GET)}
    assert codes.pop(("caller", "client")) == 4
    assert set(codes.values()) <= {1, 4}


@pytest.mark.parametrize(("name", "code"), [("ever", 1), ("fail", 10)])
async def test_stream_is_a_span_up_to_its_first_answer_and_another_at_its_end(
    collector: otlp.Collector, name: str, code: int
) -> None:
    async with _chain(collector.endpoint) as chain:
        await chain.call("wait", name, LAYOUT.service_socket("proxy"))
        await collector.wait_until(lambda _spans: bool(collector.named(f"{WAIT} end") and collector.named("caller")))
    (root,) = collector.named("caller")
    sent = _child(collector, root, "caller", WAIT)
    served = _child(collector, sent, "toy", WAIT)
    ended = _child(collector, served, "toy", f"{WAIT} end")
    assert "rpc.grpc.status_code" not in served.attributes
    assert ended.attributes["rpc.grpc.status_code"] == code


@pytest.fixture
async def device(collector: otlp.Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[stage.Stage]:
    monkeypatch.setenv(telemetry.ENDPOINT_VARIABLE, collector.endpoint)
    telemetry.setup("stage")
    async with stage.running(tmp_path) as running:
        yield running
    # The collector must be able to answer meanwhile.
    await asyncio.to_thread(telemetry.shutdown)


async def test_whole_bundle_is_one_trace_though_its_stream_outlives_its_first_span(
    device: stage.Stage, collector: otlp.Collector
) -> None:
    table = config_pb2.Resource(route_table=route_table_pb2.RouteTable(name="routeTables/a"))
    spec = interface_pb2.InterfaceSpec(route_table="routeTables/a", dummy=interface_pb2.DummyLink())
    link = config_pb2.Resource(interface=interface_pb2.Interface(name="interfaces/i", spec=spec))
    with telemetry.span("caller", parent=""):
        await device.apply(table, link)
    created = {
        "apply routeTables/a": "crossns.v1.RouteTables/CreateRouteTable",
        "apply interfaces/i": "crossns.v1.Interfaces/CreateInterface",
    }
    # Client and server span of each.
    await collector.wait_until(lambda _spans: all(len(collector.named(name)) == 2 for name in created.values()))
    await collector.wait_until(lambda _spans: bool(collector.named("caller")))
    (root,) = collector.named("caller")
    (applied,) = (span for span in collector.named("crossns.v1.Config/Apply") if span.kind == "server")
    for step, method in created.items():
        sent = _child(collector, _child(collector, applied, "stage", step), "stage", method)
        assert _child(collector, sent, "stage", method).trace_id == root.trace_id


_SPANS = """
from crossns import telemetry
telemetry.setup("script")
with telemetry.span("write") as write:
    cause = telemetry.traceparent()
    write.set(key=1)
with telemetry.span("outer"):
    with telemetry.span("round", parent="", links=[cause, cause, "", "nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"]):
        with telemetry.span("operation"):
            pass
    with telemetry.span("remote", parent=cause):
        pass
try:
    with telemetry.span("refused"):
        from crossns import errors
        raise errors.PermanentError("KERNEL_REFUSED", "no")
except errors.PermanentError:
    pass
with telemetry.span("many", links=[f"00-{index:032x}-{index:016x}-01" for index in range(1, 30)]):
    pass
assert telemetry.traceparent() == ""
telemetry.shutdown()
"""


async def test_spans_have_the_parents_links_and_failures_that_were_given(collector: otlp.Collector) -> None:
    (await proc.run([sys.executable, "-c", _SPANS], environ=_environ(collector.endpoint))).check()
    await collector.wait_until(lambda spans: len(spans) == 7)
    by_name = {span.name: span for span in collector.spans}
    write, loop_round, remote = by_name["write"], by_name["round"], by_name["remote"]
    assert write.attributes == {"key": 1}
    assert (loop_round.parent, loop_round.links) == ("", ((write.trace_id, write.span_id),))
    assert len({write.trace_id, loop_round.trace_id, by_name["outer"].trace_id}) == 3
    assert by_name["operation"].parent == loop_round.span_id
    assert (remote.trace_id, remote.parent) == (write.trace_id, write.span_id)
    assert by_name["refused"].failed
    assert by_name["refused"].attributes == {"error.type": "KERNEL_REFUSED"}
    assert len(by_name["many"].links) == 8


@asynccontextmanager
async def _black_hole() -> AsyncIterator[str]:
    """Accepts, reads nothing, answers nothing."""
    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _reader, writer: writers.append(writer), "127.0.0.1", 0, limit=1)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for writer in writers:
            writer.transport.abort()


@asynccontextmanager
async def _nobody() -> AsyncIterator[str]:
    yield "http://127.0.0.1:9"


@pytest.mark.parametrize("silent", [_black_hole, _nobody], ids=["answers nothing", "is not there"])
async def test_collector_that_is_gone_delays_neither_calls_nor_the_end_of_a_process(silent: object) -> None:
    async with silent() as endpoint, _chain(endpoint) as chain:  # type: ignore[operator]
        # Exporting alone would take seconds.
        assert await chain.call("get", "echo") < 1000
        for name in ("gateway", "toy"):
            assert await chain.end(name) < telemetry.SHUTDOWN_MAX_S + 3
            assert chain.processes[name].returncode == 0


_SHUTDOWN = """
import time
from crossns import telemetry
telemetry.setup("script")
with telemetry.span("lost"):
    pass
began = time.monotonic()
telemetry.shutdown()
print(time.monotonic() - began)
"""


async def test_last_spans_are_waited_for_in_bounded_time() -> None:
    async with _black_hole() as endpoint:
        ended = (await proc.run([sys.executable, "-c", _SHUTDOWN], environ=_environ(endpoint))).check()
    # An attempt to send them would last for twice that.
    assert float(ended.stdout) < 1.5 * telemetry.SHUTDOWN_MAX_S
