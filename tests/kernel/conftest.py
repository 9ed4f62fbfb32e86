"""The suite on a device of its own, once for each module of tests; every test begins with nothing but `default`."""

from collections.abc import AsyncIterator

import pytest

from crossns.testing import device as testing_device
from crossns.testing.lab import Lab


@pytest.fixture(scope="module", name="_suite")
async def _started() -> AsyncIterator[testing_device.Device]:
    async with testing_device.started() as started:
        yield started


@pytest.fixture
async def device(_suite: testing_device.Device) -> AsyncIterator[testing_device.Device]:
    yield _suite
    await _suite.clear()


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    async with Lab() as lab:
        yield lab
