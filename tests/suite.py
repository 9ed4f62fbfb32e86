"""Fixtures: the suite on a device of its own, once for each module of tests; every test begins with nothing but `default`.

Directories whose tests want them import them into their conftest. Such tests share their module's event loop:
`pytestmark = pytest.mark.asyncio(loop_scope="module")`.
"""

from collections.abc import AsyncIterator

import pytest_asyncio

from crossns.testing import device as testing_device
from crossns.testing.lab import Lab


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="suite")
async def started_suite() -> AsyncIterator[testing_device.Device]:
    async with testing_device.started() as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def device(suite: testing_device.Device) -> AsyncIterator[testing_device.Device]:
    yield suite
    await suite.clear()


@pytest_asyncio.fixture(loop_scope="module")
async def lab() -> AsyncIterator[Lab]:
    async with Lab() as lab:
        yield lab
