"""One service that crosses, with a real client and a real backend: what the tests of the whole suite put faults to.

Test modules import the fixture `client`; such tests share their module's event loop.
"""

import contextlib
import sys
from collections.abc import AsyncIterator

import pytest_asyncio

from crossns.testing.device import Device, doc, wait_until
from crossns.testing.lab import Cable, Host, Lab

TRAFFIC = [sys.executable, "-m", "crossns.testing.traffic"]


@pytest_asyncio.fixture(loop_scope="module")
async def client(device: Device, lab: Lab) -> AsyncIterator[Host]:
    """A client of one tenant's service, which is READY: network `c`, VIP 203.0.113.10, backend 10.0.0.5 in network `s`."""
    host = await lab.host("client", Cable("card-c"), ["203.0.113.6/24"])
    server = await lab.host("server", Cable("card-s"), ["10.0.0.5/24"])
    await server.start([*TRAFFIC, "serve", "--listen", "10.0.0.5:8080", "--name", "s"], output=None)
    await device.apply(
        doc("routeTables/c"),
        doc("routeTables/s"),
        doc("interfaces/c", routeTable="routeTables/c", physical={"linkName": "card-c"}, addresses=["203.0.113.1/24"]),
        doc("interfaces/s", routeTable="routeTables/s", physical={"linkName": "card-s"}, addresses=["10.0.0.1/24"]),
        doc(
            "vServices/web",
            protocol="TCP",
            frontends=[{"name": "f", "routeTable": "routeTables/c", "address": "203.0.113.10", "port": 80}],
            pools=[
                {
                    "name": "p",
                    "members": [{"name": "m", "routeTable": "routeTables/s", "address": "10.0.0.5", "port": 8080}],
                }
            ],
        ),
    )
    yield host
    await device.delete("vServices/web")


async def ready(device: Device) -> None:
    async def is_ready() -> bool:
        with contextlib.suppress(Exception):
            return await device.state("vServices/web") == "READY" and await device.state("routeTables/s") == "READY"
        return False

    await wait_until(is_ready)
