"""A fresh etcd, run as the suite runs it, and a store on it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from crossns.etcd.client import EtcdStore
from crossns.testing import etcd
from tests.suite import device, lab, started_suite

__all__ = ["device", "lab", "started_suite"]


@pytest.fixture
async def member(tmp_path: Path) -> AsyncIterator[etcd.Member]:
    async with etcd.embedded_member(tmp_path / "etcd") as running:
        yield running


@pytest.fixture
async def backend(member: etcd.Member) -> AsyncIterator[EtcdStore]:
    opened = await EtcdStore.connect(member.settings)
    yield opened
    await opened.close()
