"""Nobody takes the device from the others: neither by many connections nor by many ports, where HAProxy may open few files."""

import contextlib
import resource
import socket
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from crossns import errors
from crossns.testing.device import Device, wait_until
from crossns.testing.lab import Host, Lab
from crossns.v1 import v_service_pb2
from services.proxy import render
from tests.kernel.client import VIP, single
from tests.kernel.privileged import socket_in
from tests.kernel.test_proxy import A, B, frontend, plug, served_by, vservice

pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]

# What HAProxy may have open here. It is told to the launcher, which goes by it as by any limit.
OPEN_FILES = 2000
# More than HAProxy takes in all.
IDLE = 1000


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def limited(device: Device) -> AsyncIterator[None]:
    """The launcher has a lower limit meanwhile; the next one has the usual one again."""
    resource.prlimit(device.pid("launcher"), resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    yield
    await device.clear()
    await device.kill("launcher")
    await wait_until(lambda: _answers(device))


async def _answers(device: Device) -> bool:
    with contextlib.suppress(errors.TemporaryError):
        await device.kernel_writes()
        return True
    return False


@contextlib.contextmanager
def idle(host: Host, target: str, count: int) -> Iterator[None]:
    """Clients that connect and say nothing."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            wire = stack.enter_context(socket_in(host.namespace, socket.AF_INET, socket.SOCK_STREAM))
            wire.setblocking(False)  # noqa: FBT003 - the name of the parameter is the method's
            wire.connect_ex((target, 80))
        yield


async def test_the_clients_of_one_vservice_that_say_nothing_leave_room_for_those_of_another(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "office", "a", "b")
    other = vservice("other", frontend("fe", "office", "192.0.2.10"), main=[B])
    await device.apply(single(A), other)
    assert render.max_connections(OPEN_FILES, 2) < IDLE
    with idle(lab.hosts["dmz"], VIP, IDLE):
        assert await served_by(lab.hosts["office"], "192.0.2.10", 20) == ["b"] * 20
    assert set(await served_by(lab.hosts["dmz"], VIP)) == {"a"}


async def test_a_vservice_with_too_many_ports_is_left_out_and_the_others_go_on(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "office", "a", "b")
    big = frontend("big", "office", "192.0.2.10", 1000) | {"endPort": 1999}
    small = frontend("small", "office", "192.0.2.10", 80)
    assert render.max_listeners(OPEN_FILES) < 1000
    await device.apply(single(A))
    await device.apply(vservice("greedy", big, small, main=[B]), wait=False)
    found = await device.wait_until_state("vServices/greedy", "DEGRADED")
    assert isinstance(found, v_service_pb2.VService)
    reasons = {part.name: part.reason for part in found.status.frontends if part.service == "proxy"}
    assert reasons == {"big": "LISTENERS_EXHAUSTED", "small": "OK"}
    assert set(await served_by(lab.hosts["office"], "192.0.2.10")) == {"b"}
    # A change of the structure, and a vService that is new.
    await device.apply(single(A, timeouts={"connect": "4s"}), vservice("new", frontend("fe", "dmz", VIP, 81), main=[A]))
    assert set(await served_by(lab.hosts["dmz"], VIP)) == set(await served_by(lab.hosts["dmz"], f"{VIP}:81")) == {"a"}
    await device.apply(vservice("greedy", big | {"endPort": 1099}, small, main=[B]))
    assert set(await served_by(lab.hosts["office"], "192.0.2.10:1099")) == {"b"}
