"""A device at rest: nothing is written, neither to etcd nor to the kernel. On a suite of its own, where no freed index rests."""

import asyncio
from collections.abc import Callable

import pytest

from crossns import settings
from crossns.etcd.client import EtcdStore
from crossns.testing.device import Device
from crossns.testing.lab import Host
from tests.fault.crossing import client, ready

__all__ = ["client"]

pytestmark = [pytest.mark.fault, pytest.mark.asyncio(loop_scope="module")]


async def test_idle_device_writes_neither_to_etcd_nor_to_the_kernel(
    device: Device, client: Host, count: Callable[[int, int], int]
) -> None:
    await ready(device)
    backend = await EtcdStore.connect(settings.Etcd((f"unix:{device.layout.etcd_socket}",)))
    try:
        revision = (await backend.list("/crossns/")).revision
        writes = await device.kernel_writes("default", "c", "s")
        await asyncio.sleep(count(12, 62))
        assert (await backend.list("/crossns/")).revision == revision
        assert await device.kernel_writes("default", "c", "s") == writes
    finally:
        await backend.close()
