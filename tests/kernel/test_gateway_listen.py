"""The gateway in a route table: who gets in there and as whom, nobody anywhere else, and what comes and goes meanwhile."""

import asyncio
import contextlib
import errno
import os
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from grpc import aio

from crossns import errors, proc, rpc
from crossns.testing import device as testing_device
from crossns.testing.device import Device, doc, wait_until
from crossns.testing.lab import Cable, Lab
from crossns.v1 import route_table_pb2, route_table_pb2_grpc
from tests.certificate import certificate
from tests.kernel.privileged import socket_in
from tests.kernel.test_isolation import verify
from tests.kernel.view import table_with_card

pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]

ADDRESS, PORT = "192.0.2.1", 7443
STRANGER = 1234
PATIENCE_S = 10.0
# Where the gateway's uid can read them.
CERTIFICATES = Path("/run/gateway-listen-test")
REFUSED = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ETIMEDOUT)


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="suite")
async def suite_with_listeners() -> AsyncIterator[Device]:
    CERTIFICATES.mkdir()
    ca, _ = await certificate(CERTIFICATES, "ca")
    # The second one is that of a test's tunnel.
    cert, key = await certificate(CERTIFICATES, "gateway", "ca", f"IP:{ADDRESS},IP:127.0.0.1")
    await certificate(CERTIFICATES, "alice", "ca")
    key.chmod(0o644)
    listen = f"mgmt:{ADDRESS}:{PORT}, mgmt:127.0.0.1:{PORT}"
    names = {"LISTEN": listen, "TLS_CERT": str(cert), "TLS_KEY": str(key), "CLIENT_CA": str(ca)}
    async with testing_device.started({f"CROSSNS_GATEWAY_{name}": value for name, value in names.items()}) as started:
        yield started
    shutil.rmtree(CERTIFICATES)


ALICE = rpc.Tls(CERTIFICATES / "ca.pem", CERTIFICATES / "alice.pem", CERTIFICATES / "alice.key")


def in_table(device: Device, table: str) -> Path:
    return device.layout.netns / table


async def connected(namespace: Path, target: str, uid: int = 0) -> socket.socket:
    """A socket of `uid` in a namespace, connected; raises OSError."""
    with socket_in(namespace, socket.AF_INET, socket.SOCK_STREAM) as made:
        os.fchown(made.fileno(), uid, uid)
        made.setblocking(False)  # noqa: FBT003 - the name of the parameter is the method's
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.get_running_loop().sock_connect(made, (target, PORT))
        return socket.socket(fileno=made.detach())


@contextlib.asynccontextmanager
async def channel(namespace: Path, target: str, tls: rpc.Tls | None = None, uid: int = 0) -> AsyncIterator[aio.Channel]:
    """gRPC over one connection that was made in a namespace."""
    ends = await asyncio.open_connection(sock=await connected(namespace, target, uid))
    pipes: list[asyncio.Task[None]] = []

    def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pipes.extend((asyncio.create_task(pipe(reader, ends[1])), asyncio.create_task(pipe(ends[0], writer))))

    async with (
        await asyncio.start_server(join, "127.0.0.1", 0) as tunnel,
        rpc.channel("{}:{}".format(*tunnel.sockets[0].getsockname()), tls) as opened,
    ):
        yield opened
    await asyncio.gather(*pipes)


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def asked(through: aio.Channel) -> str:
    """The name of what the gateway answers with."""
    with rpc.translated():
        request = route_table_pb2.GetRouteTableRequest(name="routeTables/mgmt")
        return (await route_table_pb2_grpc.RouteTablesStub(through).GetRouteTable(request, timeout=PATIENCE_S)).name


async def is_listening(namespace: Path, target: str = ADDRESS) -> bool:
    try:
        (await connected(namespace, target)).close()
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        return False
    return True


async def listeners(*inside: str) -> int:
    """How many sockets listen on the port there."""
    return len((await proc.run([*inside, "ss", "-Hltn", f"sport = {PORT}"])).check().stdout.splitlines())


async def plug(device: Device, lab: Lab) -> Path:
    """The table `mgmt` with a host that may reach the gateway; where that host is."""
    host = await lab.host("admin", Cable("card-mgmt"), ["192.0.2.9/24"])
    await device.apply(*table_with_card("mgmt", "card-mgmt", f"{ADDRESS}/24"))
    await wait_until(lambda: is_listening(host.namespace))
    return host.namespace


async def test_who_has_a_certificate_gets_in_where_the_table_is_and_nobody_anywhere_else(device: Device, lab: Lab) -> None:
    admin = await plug(device, lab)
    tenant = await lab.host("tenant", Cable("card-a"), ["192.0.2.9/24"])
    await device.apply(*table_with_card("a", "card-a", f"{ADDRESS}/24"))
    async with channel(admin, ADDRESS, ALICE) as through:
        assert await asked(through) == "routeTables/mgmt"
    async with channel(admin, ADDRESS) as through:
        with pytest.raises(errors.TemporaryError):
            await asked(through)
    assert not await is_listening(tenant.namespace)
    assert (await listeners("ip", "netns", "exec", "mgmt"), await listeners("ip", "netns", "exec", "a")) == (2, 0)
    assert await listeners() == 0


async def test_listeners_of_the_gateway_are_no_leak_and_told(device: Device, lab: Lab) -> None:
    await plug(device, lab)
    _, found = await verify(device)
    (told,) = found["SOCKET", "ALLOWED"]
    assert told.startswith("given to gateway by agents: process ")
    assert f"TCP {ADDRESS}:{PORT}" in told
    assert told.endswith(" in routeTables/mgmt")


async def test_caller_on_loopback_of_the_table_is_known_by_his_uid(device: Device, lab: Lab) -> None:
    await plug(device, lab)
    async with channel(in_table(device, "mgmt"), "127.0.0.1") as through:
        assert await asked(through) == "routeTables/mgmt"
    async with channel(in_table(device, "mgmt"), "127.0.0.1", uid=STRANGER) as through:
        with pytest.raises(errors.PermissionDenied):
            await asked(through)


async def test_address_that_the_table_lacks_is_said_and_waited_for(device: Device, lab: Lab) -> None:
    await device.apply(doc("routeTables/mgmt"))
    said = f"cannot listen on {ADDRESS} port {PORT}: no link of the table has the address"
    await wait_until(lambda: any(said in line for name, line in device.log if name == "gateway"))
    await wait_until(lambda: is_listening(in_table(device, "mgmt"), "127.0.0.1"))
    # Binding alone would have gone well.
    assert await listeners("ip", "netns", "exec", "mgmt") == 1
    await plug(device, lab)


async def test_table_that_is_made_anew_is_listened_in_anew_and_nobody_stays_in_the_old_one(device: Device, lab: Lab) -> None:
    admin = await plug(device, lab)
    old = await connected(admin, ADDRESS)
    inside = await connected(in_table(device, "mgmt"), "127.0.0.1")
    await device.delete("routeTables/mgmt", evacuate=True)
    with inside:
        # What came by a socket of the table ends with it, also where no packet has to leave it.
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(ConnectionResetError):
                while await asyncio.get_running_loop().sock_recv(inside, 65536):
                    pass
    assert await listeners() == 0
    await device.apply(*table_with_card("mgmt", "card-mgmt", f"{ADDRESS}/24"))
    await wait_until(lambda: is_listening(admin))
    assert await listeners("ip", "netns", "exec", "mgmt") == 2
    old.close()


async def test_agent_that_was_killed_takes_no_client_away(device: Device, lab: Lab) -> None:
    admin = await plug(device, lab)
    async with channel(admin, ADDRESS, ALICE) as through:
        assert await asked(through) == "routeTables/mgmt"
        await device.kill("agent mgmt")
        assert await is_listening(admin)
        assert await asked(through) == "routeTables/mgmt"

    async def is_known_again() -> bool:
        async with channel(in_table(device, "mgmt"), "127.0.0.1") as inside:
            with contextlib.suppress(errors.PermissionDenied):
                return await asked(inside) == "routeTables/mgmt"
        return False

    await wait_until(is_known_again)
    assert await listeners("ip", "netns", "exec", "mgmt") == 2


async def test_gateway_that_was_killed_listens_again(device: Device, lab: Lab) -> None:
    admin = await plug(device, lab)
    await device.kill("gateway")
    await wait_until(device.serves)
    await wait_until(lambda: is_listening(admin))
