"""Calls through the gateway arrive as they were sent, answers as they were given. The toy is behind it, real sockets between."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from crossns import errors, rpc
from crossns.layout import Layout
from crossns.rpc import client, status
from crossns.v1 import config_pb2, config_pb2_grpc, v_service_pb2, v_service_pb2_grpc
from gateway import relay, router, settings
from gateway.listener import listening
from tests.e2e import toy

pytestmark = pytest.mark.e2e

WITHIN_S = 10.0
FORWARDED = ("crossns.v1.VServices", "crossns.v1.Config")


@pytest.fixture
async def backend(tmp_path: Path) -> AsyncIterator[toy.Toy]:
    async with toy.Toy(f"unix:{tmp_path}/toy") as running:
        yield running


@pytest.fixture
async def channel(backend: toy.Toy, tmp_path: Path) -> AsyncIterator[aio.Channel]:
    """To the gateway, through all of its parts but a process of its own."""
    async with rpc.channel(f"unix:{tmp_path}/toy") as behind:
        services = {name: router.service(name, "toy", behind) for name in FORWARDED}
        place = layout(tmp_path)
        place.gateway_socket.parent.mkdir()
        async with listening(place, settings.Settings(), services), rpc.channel(f"unix:{place.gateway_socket}") as opened:
            yield opened


def layout(tmp_path: Path) -> Layout:
    return Layout(run=tmp_path)


def _call(
    channel: aio.Channel, name: str, timeout_s: float | None = WITHIN_S, metadata: tuple[tuple[str, str | bytes], ...] = ()
) -> "aio.UnaryUnaryCall[v_service_pb2.GetVServiceRequest, v_service_pb2.VService]":
    request = v_service_pb2.GetVServiceRequest(name=f"vServices/{name}")
    return v_service_pb2_grpc.VServicesStub(channel).GetVService(request, timeout=timeout_s, metadata=metadata)


def _wait(
    channel: aio.Channel, name: str, timeout_s: float | None = WITHIN_S
) -> "aio.UnaryStreamCall[config_pb2.WaitRequest, config_pb2.WaitResponse]":
    request = config_pb2.WaitRequest(targets=[config_pb2.WaitTarget(name=name)])
    return config_pb2_grpc.ConfigStub(channel).Wait(request, timeout=timeout_s)


async def test_metadata_passes_in_both_directions(channel: aio.Channel) -> None:
    call = _call(channel, "echo", metadata=(("x-text", "words"), ("x-bytes-bin", b"\x00\x01\xff")))
    arrived = (await call).labels
    assert (arrived["x-text"], arrived["x-bytes-bin"]) == ("words", "0001ff")
    assert toy.INITIAL in set(await call.initial_metadata())
    assert toy.TRAILING in set(await call.trailing_metadata())


async def test_caller_is_who_the_gateway_says_and_not_who_he_says_himself(channel: aio.Channel) -> None:
    claims = (("crossns-identity", "somebody"), ("crossns-role", "viewer"), ("crossns-more", "x"))
    arrived = (await _call(channel, "echo", metadata=claims)).labels
    assert arrived["caller"] == "uid:0 admin"
    assert "crossns-more" not in arrived


async def test_deadline_passes_and_is_what_is_left_of_it(channel: aio.Channel) -> None:
    assert 4.0 < float((await _call(channel, "echo", timeout_s=5.0)).labels["left_s"]) <= 5.0
    assert (await _call(channel, "echo", timeout_s=None)).labels["left_s"] == ""


async def test_deadline_that_passes_ends_the_work_behind_the_gateway(channel: aio.Channel, backend: toy.Toy) -> None:
    with pytest.raises(errors.DeadlineExceeded), rpc.translated():
        await _call(channel, "slow", timeout_s=0.2)
    async with asyncio.timeout(WITHIN_S):
        await backend.v_services.cancelled.wait()


async def test_cancelled_call_ends_the_work_behind_the_gateway(channel: aio.Channel, backend: toy.Toy) -> None:
    call = _call(channel, "slow")
    async with asyncio.timeout(WITHIN_S):
        await backend.v_services.started.wait()
        call.cancel()
        await backend.v_services.cancelled.wait()


async def test_error_passes_with_all_its_details(channel: aio.Channel, backend: toy.Toy, tmp_path: Path) -> None:
    async def failure(through: aio.Channel) -> aio.AioRpcError:
        with pytest.raises(aio.AioRpcError) as caught:
            await _call(through, "missing", metadata=rpc.Identity("root", "admin").metadata)
        return caught.value

    async with rpc.channel(f"unix:{tmp_path}/toy") as direct:
        there, here = await failure(direct), await failure(channel)
    assert (here.code(), here.details()) == (there.code(), there.details())
    assert status.status_of(here) == status.status_of(there)
    assert status.status_of(here) is not None


async def test_foreign_status_passes_as_it_is(channel: aio.Channel) -> None:
    with pytest.raises(aio.AioRpcError) as caught:
        await _call(channel, "abort")
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.DATA_LOSS, "the toy's own words")
    assert toy.ABORT_DETAIL in set(caught.value.trailing_metadata())  # type: ignore[comparison-overlap]


@pytest.mark.parametrize("size", [1, 64 * 1024, client.MESSAGE_MAX_BYTES - 64])
async def test_message_of_any_size_passes(channel: aio.Channel, size: int) -> None:
    stub = v_service_pb2_grpc.VServicesStub(channel)
    answer = await stub.ListVServices(v_service_pb2.ListVServicesRequest(page_size=size), timeout=WITHIN_S)
    assert len(answer.next_page_token) == size


async def test_message_beyond_the_limit_is_refused_and_not_cut(channel: aio.Channel) -> None:
    stub = v_service_pb2_grpc.VServicesStub(channel)
    request = v_service_pb2.ListVServicesRequest(page_token="x" * (client.MESSAGE_MAX_BYTES + 1))
    with pytest.raises(errors.RequestError), rpc.translated():
        await stub.ListVServices(request, timeout=WITHIN_S)


async def test_both_directions_of_a_stream_pass_in_turn(channel: aio.Channel) -> None:
    call = config_pb2_grpc.ConfigStub(channel).Apply(None, timeout=WITHIN_S)
    for text in ("a", "b", "c"):
        await call.write(config_pb2.ApplyRequest(request_id=text))
        answer = await call.read()
        assert isinstance(answer, config_pb2.ApplyResponse)
        assert answer.name == text
    await call.done_writing()
    last = await call.read()
    assert isinstance(last, config_pb2.ApplyResponse)
    assert last.name == "end"
    assert await call.read() is grpc.aio.EOF  # type: ignore[attr-defined]


async def test_error_in_a_stream_comes_behind_what_came_before_it(channel: aio.Channel) -> None:
    call = _wait(channel, "waits/fail")
    assert isinstance(await call.read(), config_pb2.WaitResponse)
    with pytest.raises(errors.Aborted) as caught, rpc.translated():
        await call.read()
    assert (caught.value.reason, caught.value.metadata) == ("BEING_DELETED", {"resource": "routeTables/a"})


async def test_cancelled_stream_ends_the_work_behind_the_gateway(channel: aio.Channel, backend: toy.Toy) -> None:
    call = _wait(channel, "waits/ever", timeout_s=None)
    await call.read()
    call.cancel()
    async with asyncio.timeout(WITHIN_S):
        await backend.config.ended.wait()


async def test_deadline_of_a_stream_passes(channel: aio.Channel, backend: toy.Toy) -> None:
    call = _wait(channel, "waits/ever", timeout_s=0.3)
    await call.read()
    with pytest.raises(errors.DeadlineExceeded), rpc.translated():
        await call.read()
    async with asyncio.timeout(WITHIN_S):
        await backend.config.ended.wait()


async def test_client_that_vanishes_ends_the_work_behind_the_gateway(
    channel: aio.Channel, backend: toy.Toy, tmp_path: Path
) -> None:
    async with rpc.channel(f"unix:{layout(tmp_path).gateway_socket}") as vanishing:
        await _wait(vanishing, "waits/ever", timeout_s=None).read()
    async with asyncio.timeout(WITHIN_S):
        await backend.config.ended.wait()
    assert (await _call(channel, "echo")).name == "vServices/echo"


async def test_reader_that_does_not_read_stops_the_writer(channel: aio.Channel, backend: toy.Toy) -> None:
    call = _wait(channel, "waits/flood", timeout_s=None)
    await call.read()
    sent = -1
    while sent != backend.config.sent:
        sent = backend.config.sent
        for _ in range(50):
            await _call(channel, "echo")
    # Buffers on the way hold some; all of it would be 80 MB.
    assert 0 < sent < toy.FLOOD / 2
    read = 0
    while await call.read() is not grpc.aio.EOF:  # type: ignore[attr-defined]
        read += 1
    assert read == toy.FLOOD


async def test_service_that_is_down_is_named(channel: aio.Channel, backend: toy.Toy) -> None:
    await backend.server.stop(0)
    for call in (_call(channel, "echo"), _wait(channel, "waits/ever").read()):
        with pytest.raises(aio.AioRpcError) as caught:
            await call
        assert isinstance(rpc.error_of(caught.value), errors.ServiceUnavailable)
        assert rpc.error_of(caught.value).metadata == {"service": "toy"}
        found = status.status_of(caught.value)
        assert found is not None
        assert [detail.type_url.rsplit(".", 1)[1] for detail in found.details] == ["ErrorInfo", "RetryInfo"]


async def test_service_that_died_amid_a_call_is_named(channel: aio.Channel, backend: toy.Toy) -> None:
    calling = asyncio.ensure_future(_call(channel, "slow"))
    stream = _wait(channel, "waits/ever")
    async with asyncio.timeout(WITHIN_S):
        await stream.read()
        await backend.v_services.started.wait()
        await backend.server.stop(0)
        for call in (calling, stream.read()):
            with pytest.raises(errors.TemporaryError), rpc.translated():
                await call


async def test_service_that_is_back_is_reached_within_a_second(channel: aio.Channel, backend: toy.Toy, tmp_path: Path) -> None:
    await backend.server.stop(0)
    with pytest.raises(errors.ServiceUnavailable), rpc.translated():
        await _call(channel, "echo")
    async with toy.Toy(f"unix:{tmp_path}/toy"), asyncio.timeout(1.0):
        while True:
            try:
                with rpc.translated():
                    await _call(channel, "echo")
            except errors.ServiceUnavailable:
                continue
            break


@pytest.mark.parametrize("method", ["/crossns.v1.VServices/Nope", "/no.such.Service/Get"])
async def test_unknown_method_is_refused_with_details(channel: aio.Channel, method: str) -> None:
    for call in (channel.unary_unary(method, None, None)(b""), channel.stream_stream(method, None, None)(iter([b""]))):
        assert await call.code() is grpc.StatusCode.UNIMPLEMENTED
        assert b"UNIMPLEMENTED" in dict(await call.trailing_metadata())[status.DETAILS_KEY]


async def test_health_and_reflection_are_the_gateways_own(channel: aio.Channel, backend: toy.Toy) -> None:
    await backend.server.stop(0)
    check = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="crossns.v1.VServices"))
    assert check.status == health_pb2.HealthCheckResponse.SERVING
    requests = iter([reflection_pb2.ServerReflectionRequest(file_containing_symbol="crossns.v1.VServices")])
    answers = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(requests, timeout=WITHIN_S)
    async for answer in answers:
        assert answer.file_descriptor_response.file_descriptor_proto


async def test_one_user_cannot_take_all_connections(channel: aio.Channel, tmp_path: Path) -> None:
    # One is the channel's.
    await _call(channel, "echo")
    opened = [await asyncio.open_unix_connection(layout(tmp_path).gateway_socket) for _ in range(relay.CONNECTIONS_MAX - 1)]
    try:
        reader, writer = await asyncio.open_unix_connection(layout(tmp_path).gateway_socket)
        opened.append((reader, writer))
        async with asyncio.timeout(WITHIN_S):
            assert await reader.read() == b""
        assert (await _call(channel, "echo")).name == "vServices/echo"
    finally:
        for _, writer in opened:
            writer.close()
    async with asyncio.timeout(WITHIN_S):
        while True:
            reader, writer = await asyncio.open_unix_connection(layout(tmp_path).gateway_socket)
            greeting = await reader.read(1)
            writer.close()
            if greeting:
                break


async def test_many_calls_at_once_pass_over_one_connection(channel: aio.Channel) -> None:
    answers = await asyncio.gather(*(_call(channel, "echo") for _ in range(100)))
    assert {answer.name for answer in answers} == {"vServices/echo"}
