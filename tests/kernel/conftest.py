"""The suite on a device of its own, once for each module of tests; every test begins with nothing but `default`."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from crossns.testing import device as testing_device
from crossns.testing.lab import Lab


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="_suite")
async def _started() -> AsyncIterator[testing_device.Device]:
    async with testing_device.started() as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def device(_suite: testing_device.Device) -> AsyncIterator[testing_device.Device]:
    yield _suite
    await _suite.clear()


@pytest_asyncio.fixture(loop_scope="module")
async def lab() -> AsyncIterator[Lab]:
    async with Lab() as lab:
        yield lab
