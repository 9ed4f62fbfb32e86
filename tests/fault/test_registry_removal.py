"""Who takes a resource out for good goes by what he has seen, as long as that still holds in the store."""

from collections.abc import Awaitable, Callable, Mapping, Sequence

import pytest

from crossns import store
from crossns.etcd.client import EtcdStore
from crossns.registry import Options
from crossns.v1 import status_pb2
from services.nsmanager import servicer
from tests.fault.test_registry import KEYS, lead, table

pytestmark = pytest.mark.fault


async def entries(backend: store.Store) -> dict[str, store.Entry]:
    return {entry.key: entry for entry in (await backend.list(KEYS.device_prefix)).entries}


async def test_what_a_remover_has_seen_counts_only_as_long_as_it_holds(
    backend: EtcdStore,
) -> None:
    tables = servicer.registries(backend, KEYS)["routeTables"]
    fence = await lead(backend)
    await tables.create(table("a", index=7), Options())
    living = await entries(backend)
    await tables.delete("routeTables/a", Options())
    seen = await entries(backend)
    asked: list[str] = []

    def reader(found: Mapping[str, store.Entry]) -> Callable[[Sequence[str]], Awaitable[Mapping[str, store.Entry]]]:
        async def read(keys: Sequence[str]) -> Mapping[str, store.Entry]:
            asked.extend(keys)
            return {key: found[key] for key in keys if key in found}

        return read

    # Nobody asks for its deletion there, or it is not what it was: either is looked up in the store.
    assert await tables.remove("routeTables/a", fence, reader(living))
    await backend.commit([], [store.Delete(KEYS.claim("index", "7"))])
    await tables.create(table("a", index=7), Options())
    assert not await tables.remove("routeTables/a", fence, reader(seen))
    assert (await tables.get("routeTables/a")).status.state != status_pb2.STATE_DELETING
    await tables.delete("routeTables/a", Options())
    asked.clear()
    assert await tables.remove("routeTables/a", fence, reader(await entries(backend)))
    assert asked == [KEYS.desired("routeTables/a"), KEYS.claim("index", "7")]
