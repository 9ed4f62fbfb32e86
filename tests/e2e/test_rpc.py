"""The server of every service on real sockets: errors, deadlines, cancellation, streams, health, reflection, its socket file."""

import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from crossns import errors, rpc
from crossns.rpc import guard, status
from crossns.v1 import config_pb2, config_pb2_grpc, v_service_pb2, v_service_pb2_grpc
from tests.e2e import toy

pytestmark = pytest.mark.e2e

ADMIN = rpc.Identity("root", "admin").metadata
WITHIN_S = 10.0
# A client that sends so many messages is still sending when the first of them is refused.
MANY = 300


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[toy.Toy]:
    async with toy.Toy(f"unix:{tmp_path}/s") as running:
        yield running


@pytest.fixture
async def channel(served: toy.Toy, tmp_path: Path) -> AsyncIterator[aio.Channel]:
    async with rpc.channel(f"unix:{tmp_path}/s") as opened:
        yield opened


async def _get(channel: aio.Channel, name: str, timeout_s: float | None = WITHIN_S) -> v_service_pb2.VService:
    request = v_service_pb2.GetVServiceRequest(name=f"vServices/{name}")
    with rpc.translated():
        return await v_service_pb2_grpc.VServicesStub(channel).GetVService(request, timeout=timeout_s, metadata=ADMIN)


def _wait(
    channel: aio.Channel, name: str, timeout_s: float = WITHIN_S
) -> "aio.UnaryStreamCall[config_pb2.WaitRequest, config_pb2.WaitResponse]":
    request = config_pb2.WaitRequest(targets=[config_pb2.WaitTarget(name=name)])
    return config_pb2_grpc.ConfigStub(channel).Wait(request, timeout=timeout_s, metadata=ADMIN)


async def test_error_of_a_servicer_arrives_with_class_reason_and_variables(channel: aio.Channel) -> None:
    with pytest.raises(errors.NotFound) as caught:
        await _get(channel, "missing")
    assert caught.value.reason == "NOT_FOUND"
    assert caught.value.metadata == {"resource": "vServices/missing"}


async def test_error_after_the_first_response_of_a_stream_arrives_too(channel: aio.Channel) -> None:
    call = _wait(channel, "waits/fail")
    first = await call.read()
    assert isinstance(first, config_pb2.WaitResponse)
    assert first.name == "waits/fail"
    with pytest.raises(errors.Aborted) as caught, rpc.translated():
        await call.read()
    assert caught.value.reason == "BEING_DELETED"


async def test_bug_is_internal_without_its_words_but_logged(channel: aio.Channel, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(errors.InvariantError) as caught:
        await _get(channel, "bug")
    assert "secret" not in caught.value.message
    assert "ZeroDivisionError: a secret" in caplog.text


async def test_abort_of_a_servicer_passes_as_it_is(channel: aio.Channel, caplog: pytest.LogCaptureFixture) -> None:
    stub = v_service_pb2_grpc.VServicesStub(channel)
    with pytest.raises(aio.AioRpcError) as caught:
        await stub.GetVService(v_service_pb2.GetVServiceRequest(name="vServices/abort"), timeout=WITHIN_S, metadata=ADMIN)
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.DATA_LOSS, "the toy's own words")
    assert toy.ABORT_DETAIL in set(caught.value.trailing_metadata())  # type: ignore[comparison-overlap] # wrong in the types
    assert caplog.text == ""


async def test_largest_error_fits_into_what_clients_take(channel: aio.Channel) -> None:
    with pytest.raises(errors.FailedPrecondition) as caught, rpc.translated():
        await config_pb2_grpc.ConfigStub(channel).Diff(config_pb2.DiffRequest(), timeout=WITHIN_S, metadata=ADMIN)
    assert caught.value.message.endswith("…")


async def test_caller_without_a_deadline_gets_one(channel: aio.Channel, served: toy.Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "UNARY_TIMEOUT_S", 0.05)
    async with asyncio.timeout(WITHIN_S):
        with pytest.raises(errors.DeadlineExceeded):
            await _get(channel, "slow", timeout_s=None)
        await served.v_services.cancelled.wait()


async def test_deadline_of_the_caller_ends_the_work_for_it(channel: aio.Channel, served: toy.Toy) -> None:
    with pytest.raises(errors.DeadlineExceeded):
        await _get(channel, "slow", timeout_s=0.2)
    async with asyncio.timeout(WITHIN_S):
        await served.v_services.cancelled.wait()


async def test_cancelled_call_ends_the_work_for_it(channel: aio.Channel, served: toy.Toy) -> None:
    calling = asyncio.create_task(_get(channel, "slow"))
    async with asyncio.timeout(WITHIN_S):
        await served.v_services.started.wait()
        calling.cancel()
        await served.v_services.cancelled.wait()


async def test_cancelled_stream_ends_the_work_for_it(channel: aio.Channel, served: toy.Toy) -> None:
    call = _wait(channel, "waits/ever")
    await call.read()
    call.cancel()
    async with asyncio.timeout(WITHIN_S):
        await served.config.ended.wait()


async def test_caller_of_whom_nothing_is_said_is_refused(channel: aio.Channel) -> None:
    with pytest.raises(errors.PermissionDenied), rpc.translated():
        await v_service_pb2_grpc.VServicesStub(channel).GetVService(v_service_pb2.GetVServiceRequest(name="vServices/echo"))
    with pytest.raises(errors.PermissionDenied), rpc.translated():
        async for _ in config_pb2_grpc.ConfigStub(channel).Wait(config_pb2.WaitRequest()):
            pass


async def test_servicer_learns_who_calls(channel: aio.Channel) -> None:
    assert (await _get(channel, "echo")).labels["caller"] == "root admin"


@pytest.mark.parametrize("method", ["/crossns.v1.VServices/Nope", "/no.such.Service/Get"])
async def test_unknown_method_is_refused_with_details_in_every_form_of_call(channel: aio.Channel, method: str) -> None:
    stream = channel.stream_stream(method, None, None)
    for call in (channel.unary_unary(method, None, None)(b""), stream(iter([b"", b""])), stream(iter([b""] * MANY))):
        assert await call.code() is grpc.StatusCode.UNIMPLEMENTED
        trailing = dict(await call.trailing_metadata())
        assert b"UNIMPLEMENTED" in trailing[status.DETAILS_KEY]


async def test_who_still_sends_when_he_is_refused_is_told_why(channel: aio.Channel) -> None:
    call = config_pb2_grpc.ConfigStub(channel).Apply(iter([config_pb2.ApplyRequest()] * MANY), timeout=WITHIN_S)
    with pytest.raises(errors.PermissionDenied), rpc.translated():
        await call.read()


async def test_who_waits_for_his_answer_is_refused_soon(channel: aio.Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "HEAR_OUT_S", 10 * WITHIN_S)
    waiting = config_pb2_grpc.ConfigStub(channel).Apply()  # type: ignore[call-arg] # may be left out, against the types
    async with asyncio.timeout(WITHIN_S):
        await waiting.write(config_pb2.ApplyRequest())
        assert await waiting.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_who_never_stops_sending_is_refused_nevertheless(channel: aio.Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    async def endless() -> AsyncIterator[config_pb2.ApplyRequest]:
        while True:
            yield config_pb2.ApplyRequest()
            await asyncio.sleep(0)

    monkeypatch.setattr(guard, "HEAR_OUT_S", 0.2)
    async with asyncio.timeout(WITHIN_S):
        assert await config_pb2_grpc.ConfigStub(channel).Apply(endless()).code() is not grpc.StatusCode.OK


async def test_health_is_told_to_everybody_and_follows_readiness(channel: aio.Channel, served: toy.Toy) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
    for service in ("", "crossns.v1.VServices", "grpc.health.v1.Health"):
        assert (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status == serving
    async with asyncio.timeout(WITHIN_S):
        watch = stub.Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == serving
        served.ready = False
        assert (await watch.read()).status == not_serving
    watch.cancel()
    assert (await stub.Check(health_pb2.HealthCheckRequest())).status == not_serving
    assert set((await stub.List(health_pb2.HealthListRequest())).statuses) >= {"", "crossns.v1.VServices"}


async def test_health_of_an_unknown_service_is_not_found(channel: aio.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    with pytest.raises(errors.NotFound), rpc.translated():
        await stub.Check(health_pb2.HealthCheckRequest(service="crossns.v1.Nope"))
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="crossns.v1.Nope"))
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    watch.cancel()


async def test_reflection_lists_the_services_and_gives_their_files(channel: aio.Channel) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="crossns.v1.VServices"),
    ]
    answers = [answer async for answer in stub.ServerReflectionInfo(iter(requests), metadata=ADMIN, timeout=WITHIN_S)]
    names = {service.name for service in answers[0].list_services_response.service}
    assert {"crossns.v1.VServices", "crossns.v1.Config", "grpc.health.v1.Health"} <= names
    assert answers[1].file_descriptor_response.file_descriptor_proto


async def test_stop_lets_running_calls_end_within_their_grace(served: toy.Toy, channel: aio.Channel) -> None:
    calling = asyncio.create_task(_get(channel, "slow"))
    await served.v_services.started.wait()
    async with asyncio.timeout(WITHIN_S):
        await served.server.stop(0.1)
        with pytest.raises(errors.ServiceUnavailable):
            await calling


async def test_socket_lets_its_group_in_and_nobody_else(served: toy.Toy, tmp_path: Path) -> None:
    mode = (tmp_path / "s").stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o770
    umask = os.umask(0o022)
    os.umask(umask)
    assert umask == 0o022


async def test_late_end_of_a_predecessor_leaves_the_successors_socket(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/s"
    older = toy.Toy(address)
    await older.server.start()
    async with toy.Toy(address), rpc.channel(address) as channel:
        await older.server.stop(0)
        assert (await _get(channel, "echo")).name == "vServices/echo"
    assert os.listdir(tmp_path) == []


async def test_socket_of_a_process_that_was_killed_is_no_obstacle(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(f"{tmp_path}/s")
    async with toy.Toy(f"unix:{tmp_path}/s"), rpc.channel(f"unix:{tmp_path}/s") as channel:
        assert (await _get(channel, "echo")).name == "vServices/echo"


async def test_restarted_service_is_found_within_a_second(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/s"
    async with rpc.channel(address) as channel:
        async with toy.Toy(address):
            await _get(channel, "echo")
        with pytest.raises(errors.ServiceUnavailable):
            await _get(channel, "echo")
        async with toy.Toy(address), asyncio.timeout(1.0):
            while True:
                try:
                    await _get(channel, "echo")
                except errors.ServiceUnavailable:
                    # The channel's own backoff paces this.
                    continue
                break


async def test_address_that_cannot_be_had_is_said(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no/such/directory"):
        await toy.Toy(f"unix:{tmp_path}/no/such/directory/s").server.start()


async def test_error_details_can_be_read_by_any_client(channel: aio.Channel) -> None:
    stub = v_service_pb2_grpc.VServicesStub(channel)
    with pytest.raises(aio.AioRpcError) as caught:
        await stub.GetVService(v_service_pb2.GetVServiceRequest(name="vServices/missing"), timeout=WITHIN_S, metadata=ADMIN)
    found = status.status_of(caught.value)
    assert found is not None
    info = error_details_pb2.ErrorInfo()
    assert found.details[0].Unpack(info)
    assert (info.domain, info.reason) == ("crossns", "NOT_FOUND")
