"""The gateway as a process: who is let in and as whom, on each kind of socket; wrong settings; its end; life without etcd."""

import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from crossns import errors, proc, rpc
from crossns.layout import Layout
from crossns.v1 import config_pb2, config_pb2_grpc, events_pb2, events_pb2_grpc, v_service_pb2, v_service_pb2_grpc
from tests.certificate import certificate
from tests.e2e import toy

pytestmark = pytest.mark.e2e

WITHIN_S = 20.0
STRANGER = 1234
# Beyond loopback for everybody who asks, though it lies on `lo`.
ADDRESS = "192.0.2.1"


@pytest.fixture
async def layout() -> AsyncIterator[Layout]:
    """Where other uids get to, with the proxy's place taken by the toy."""
    place = Layout(run=Path("/run/gateway-test"))
    for directory in (place.gateway_socket.parent, place.service_socket("proxy").parent):
        directory.mkdir(parents=True)
    async with toy.Toy(f"unix:{place.service_socket('proxy')}"):
        yield place
    shutil.rmtree(place.run)


@asynccontextmanager
async def _started(layout: Layout, *flags: str) -> AsyncIterator[proc.Process]:
    argv = [sys.executable, "-m", "gateway", *flags]
    process = await proc.start(argv, environ={**os.environ, "CROSSNS_RUN_DIR": str(layout.run)})
    try:
        yield process
    finally:
        proc.kill(process)
        await process.wait()
        # To its end, so that the pipe is closed.
        if process.stdout is not None:
            await process.stdout.read()


@asynccontextmanager
async def _running(layout: Layout, *flags: str) -> AsyncIterator[proc.Process]:
    async with _started(layout, *flags) as process, rpc.channel(f"unix:{layout.gateway_socket}") as channel:
        async with asyncio.timeout(WITHIN_S):
            while True:
                try:
                    with rpc.translated():
                        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=1)
                    break
                except errors.TemporaryError:
                    assert process.returncode is None
        yield process


@contextmanager
def _as_user(uid: int) -> Iterator[None]:
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


async def _caller(target: str, uid: int = 0, tls: rpc.Tls | None = None) -> str:
    """Who one is taken for who connects as `uid`."""
    async with rpc.channel(target, tls) as channel:
        with _as_user(uid):
            async with asyncio.timeout(WITHIN_S):
                await channel.channel_ready()
        return await _asked(channel)


async def _asked(channel: aio.Channel) -> str:
    request = v_service_pb2.GetVServiceRequest(name="vServices/echo")
    with rpc.translated():
        return (await v_service_pb2_grpc.VServicesStub(channel).GetVService(request, timeout=WITHIN_S)).labels["caller"]


async def test_root_is_an_admin_a_stranger_is_told_what_to_do(layout: Layout) -> None:
    async with _running(layout):
        target = f"unix:{layout.gateway_socket}"
        assert await _caller(target) == "uid:0 admin"
        with pytest.raises(errors.PermissionDenied, match="--admin-uid") as caught:
            await _caller(target, STRANGER)
        assert caught.value.metadata["identity"] == "anonymous"


async def test_uid_that_was_named_is_an_admin(layout: Layout) -> None:
    async with _running(layout, "--admin-uid", str(STRANGER)):
        target = f"unix:{layout.gateway_socket}"
        assert await _caller(target, STRANGER) == f"uid:{STRANGER} admin"
        with pytest.raises(errors.PermissionDenied):
            await _caller(target, STRANGER + 1)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
async def test_caller_on_loopback_is_known_by_his_uid_too(layout: Layout, host: str) -> None:
    async with _running(layout, "--listen", f"{host}:7443", "--admin-uid", "77"):
        assert await _caller(f"{host}:7443") == "uid:0 admin"
        assert await _caller(f"{host}:7443", 77) == "uid:77 admin"
        with pytest.raises(errors.PermissionDenied):
            await _caller(f"{host}:7443", STRANGER)


async def test_private_listeners_are_nobody_elses(layout: Layout) -> None:
    async with _running(layout):
        private = layout.gateway_socket.parent / "private" / "uid:0"
        assert private.is_socket()
        with _as_user(STRANGER), pytest.raises(PermissionError):
            private.stat()


async def test_stranger_learns_of_health_only(layout: Layout) -> None:
    async with _running(layout), rpc.channel(f"unix:{layout.gateway_socket}") as channel:
        with _as_user(STRANGER):
            await channel.channel_ready()
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=WITHIN_S)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        for call in (
            config_pb2_grpc.ConfigStub(channel).Diff(config_pb2.DiffRequest(), timeout=WITHIN_S),
            config_pb2_grpc.ConfigStub(channel).Apply(iter([config_pb2.ApplyRequest()]), timeout=WITHIN_S).read(),
            events_pb2_grpc.EventsStub(channel).Watch(events_pb2.WatchRequest(), timeout=WITHIN_S).read(),
        ):
            with pytest.raises(errors.PermissionDenied), rpc.translated():
                await call


@pytest.fixture
async def beyond_loopback() -> AsyncIterator[None]:
    (await proc.run(["ip", "address", "add", f"{ADDRESS}/32", "dev", "lo"])).check()
    yield
    (await proc.run(["ip", "address", "delete", f"{ADDRESS}/32", "dev", "lo"])).check()


@pytest.mark.usefixtures("beyond_loopback")
async def test_client_with_a_certificate_is_who_it_names_and_others_do_not_get_in(layout: Layout, tmp_path: Path) -> None:
    ca, _ = await certificate(tmp_path, "ca")
    await certificate(tmp_path, "other-ca")
    cert, key = await certificate(tmp_path, "gateway", "ca", f"IP:{ADDRESS}")
    alice = rpc.Tls(ca, *await certificate(tmp_path, "alice", "ca"))
    mallory = rpc.Tls(ca, *await certificate(tmp_path, "mallory", "other-ca"))
    flags = ("--tls-cert", str(cert), "--tls-key", str(key), "--client-ca", str(ca))
    async with _running(layout, "--listen", f"{ADDRESS}:7443", *flags):
        assert await _caller(f"{ADDRESS}:7443", tls=alice) == "cert:alice admin"
        for stranger in (mallory, None):
            async with rpc.channel(f"{ADDRESS}:7443", stranger) as channel:
                with pytest.raises(errors.TemporaryError):
                    await _asked(channel)


@pytest.mark.parametrize(
    "flags", [("--listen", "0.0.0.0:7443"), ("--listen", "nonsense"), ("--admin-uid", "root"), ("--nonsense",)]
)
async def test_wrong_settings_are_said_and_end_with_status_2(layout: Layout, flags: tuple[str, ...]) -> None:
    async with _started(layout, *flags) as process, asyncio.timeout(WITHIN_S):
        assert await process.wait() == 2
        assert process.stdout is not None
        said = (await process.stdout.read()).decode()
    assert flags[0] in said
    assert "Traceback" not in said
    assert not layout.gateway_socket.exists()


async def test_address_that_is_taken_is_said_and_ends_with_status_1(layout: Layout) -> None:
    taken = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 7443)
    async with taken, _started(layout, "--listen", "127.0.0.1:7443") as process, asyncio.timeout(WITHIN_S):
        assert await process.wait() == 1
        assert process.stdout is not None
        said = (await process.stdout.read()).decode()
    assert "cannot listen" in said
    assert "Traceback" not in said


async def test_sigterm_ends_it_within_its_grace_though_somebody_watches(layout: Layout) -> None:
    async with _running(layout) as process, rpc.channel(f"unix:{layout.gateway_socket}") as channel:
        calling = asyncio.ensure_future(_slow(channel))
        async with asyncio.timeout(WITHIN_S):
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            await watch.read()
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
            assert time.monotonic() - began < 5
            with pytest.raises(errors.TemporaryError):
                await calling
    assert not layout.gateway_socket.exists()


async def _slow(channel: aio.Channel) -> None:
    request = v_service_pb2.GetVServiceRequest(name="vServices/slow")
    with rpc.translated():
        await v_service_pb2_grpc.VServicesStub(channel).GetVService(request, timeout=WITHIN_S)


async def test_gateway_that_was_killed_is_followed_by_another_at_the_same_place(layout: Layout) -> None:
    target = f"unix:{layout.gateway_socket}"
    async with rpc.channel(target) as channel:
        async with _running(layout):
            assert await _asked(channel) == "uid:0 admin"
        async with _running(layout):
            assert await _asked(channel) == "uid:0 admin"


async def test_without_etcd_it_forwards_and_says_what_is_missing_for_the_rest(layout: Layout) -> None:
    async with _running(layout), rpc.channel(f"unix:{layout.gateway_socket}") as channel:
        assert await _asked(channel) == "uid:0 admin"
        resources = [config_pb2.Resource(v_service=v_service_pb2.VService(name="vServices/v"))]
        with pytest.raises(errors.StoreUnavailable), rpc.translated():
            await config_pb2_grpc.ConfigStub(channel).Diff(config_pb2.DiffRequest(resources=resources), timeout=WITHIN_S)
        with pytest.raises(errors.StoreUnavailable), rpc.translated():
            await events_pb2_grpc.EventsStub(channel).Watch(events_pb2.WatchRequest(), timeout=WITHIN_S).read()
