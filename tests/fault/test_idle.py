"""A device at rest: nothing is written, neither to etcd nor to the kernel. On a suite of its own, where no freed index rests."""

import asyncio
from collections.abc import Callable

import pytest

from crossns import settings
from crossns.etcd.client import EtcdStore
from crossns.testing.device import Device, doc
from crossns.testing.lab import Host
from tests.fault.crossing import client, ready

__all__ = ["client"]

pytestmark = [pytest.mark.fault, pytest.mark.asyncio(loop_scope="module")]


async def test_idle_device_writes_neither_to_etcd_nor_to_the_kernel(
    device: Device, client: Host, count: Callable[[int, int], int]
) -> None:
    await ready(device)
    # One of each that has something to keep comparing.
    await device.apply(
        doc("interfaces/tap", routeTable="routeTables/s", tap={}),
        doc("interfaces/mv", routeTable="routeTables/c", macvlan={"parent": "interfaces/s"}, addresses=["2001:db8::1/64"]),
        doc("interfaces/vx", routeTable="routeTables/s", vxlan={"vni": 5, "local": "10.0.0.1"}),
        doc("interfaces/br", routeTable="routeTables/s", bridge={"ports": ["interfaces/tap", "interfaces/vx"]}),
        doc("routeTables/s/routes/r", destination="0.0.0.0/0", gateways=[{"address": "10.0.0.9"}, {"address": "10.0.0.8"}]),
        doc("routeTables/s/rules/r", priority=9, source="192.0.2.0/24", interface="interfaces/br", mark=1, kernelTable=9),
        doc("routeTables/s/neighbors/n", address="10.0.0.77", interface="interfaces/br", macAddress="02:00:00:00:00:77"),
        doc("routeTables/c/routes/r6", destination="::/0", gateways=[{"address": "2001:db8::9"}, {"address": "2001:db8::8"}]),
    )
    backend = await EtcdStore.connect(settings.Etcd((f"unix:{device.layout.etcd_socket}",)))
    try:
        revision = (await backend.list("/crossns/")).revision
        writes = await device.kernel_writes("default", "c", "s")
        await asyncio.sleep(count(12, 62))
        assert (await backend.list("/crossns/")).revision == revision
        assert await device.kernel_writes("default", "c", "s") == writes
    finally:
        await backend.close()
