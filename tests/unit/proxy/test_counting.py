"""The totals of a HAProxy of values that reloads, ends and comes back: nothing is lost, nothing is added twice."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from crossns import errors
from crossns.layout import Layout
from services.proxy import plan
from services.proxy.driver import Counting, counting, worker
from tests.unit.proxy.haproxy import FRONTEND, POOL, HAProxy, Worker

SECTIONS = (FRONTEND, POOL)


@pytest_asyncio.fixture
async def haproxy(tmp_path: Path) -> AsyncIterator[HAProxy]:
    haproxy = HAProxy(Layout(run=tmp_path))
    await haproxy.start()
    yield haproxy
    await haproxy.stop()


@pytest.fixture
def counts(tmp_path: Path) -> Counting:
    return Counting(Layout(run=tmp_path))


async def total(counts: Counting) -> int:
    """Connections so far, which frontend, pool and member agree on."""
    found = (await counts.read(SECTIONS)).counts
    totals = {each.connections_total for each in found.values()}
    assert set(found) == {plan.Subject(FRONTEND), plan.Subject(POOL), plan.Subject(POOL, "a1", "tenant-a")}
    assert len(totals) == 1
    return totals.pop()


async def now(counts: Counting) -> int:
    return (await counts.read(SECTIONS)).of(plan.Subject(POOL)).connections


async def test_what_a_worker_has_counted_is_read_when_somebody_asks(haproxy: HAProxy, counts: Counting) -> None:
    for number in (0, 5, 5, 7):
        haproxy.workers[0].total = number
        assert await total(counts) == number


async def test_totals_go_on_across_reloads(haproxy: HAProxy, counts: Counting) -> None:
    haproxy.workers[0].total = 5
    for expected in (5, 6, 7):
        assert await total(counts) == expected
        haproxy.reload().total = 1


async def test_what_a_worker_counts_last_is_not_lost(haproxy: HAProxy, counts: Counting) -> None:
    """Nobody asks between the reload and its end."""
    before = haproxy.workers[0]
    haproxy.reload()
    await counts.look()
    before.total = 9
    await counts.read_last(before.pid)
    haproxy.workers.remove(before)
    assert await total(counts) == 9


@pytest.mark.parametrize("is_there", [True, False])
async def test_a_worker_that_does_not_tell_what_it_counted_last_was_not_read(
    haproxy: HAProxy, counts: Counting, is_there: bool
) -> None:
    before = haproxy.workers[0]
    haproxy.reload()
    await counts.look()
    before.deaf = "show stat"
    if not is_there:
        haproxy.workers.remove(before)
    with pytest.raises(errors.EngineUnavailable):
        await counts.read_last(before.pid)


async def test_connections_of_now_are_those_of_all_workers(haproxy: HAProxy, counts: Counting) -> None:
    haproxy.workers[0].connections = 2
    haproxy.reload().connections = 1
    assert await now(counts) == 3


async def test_a_worker_that_is_killed_takes_nothing_back(haproxy: HAProxy, counts: Counting) -> None:
    before = haproxy.workers[0]
    before.total = 5
    assert await total(counts) == 5
    haproxy.reload()
    haproxy.workers.remove(before)
    assert await total(counts) == 5


async def test_another_haproxy_counts_from_its_start(haproxy: HAProxy, counts: Counting) -> None:
    haproxy.workers[0].total = 5
    assert await total(counts) == 5
    since = (await counts.read(SECTIONS)).since
    haproxy.pid, haproxy.workers = 20, [Worker(11, total=2)]
    assert await total(counts) == 2
    later = (await counts.read(SECTIONS)).since
    assert since is not None
    assert later is not None
    assert later > since


async def test_totals_begin_with_the_worker_that_was_current_at_first(
    haproxy: HAProxy, counts: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is 100 s old; what ended before is not known."""
    monkeypatch.setattr("time.time", lambda: 1000.0)
    assert (await counts.read(SECTIONS)).since == 900.0
    haproxy.reload()
    assert (await counts.read(SECTIONS)).since == 900.0


async def test_a_vservice_of_the_same_name_does_not_inherit(haproxy: HAProxy, counts: Counting) -> None:
    """While a worker still finishes the connections of the one that was deleted."""
    before = haproxy.workers[0]
    before.total, before.connections = 5, 1
    assert await total(counts) == 5
    haproxy.reload("other")
    await counts.look()
    haproxy.reload("web", "other").total = 1
    before.total = 6
    assert (await total(counts), await now(counts)) == (1, 0)
    await counts.read_last(before.pid)
    assert await total(counts) == 1


async def test_what_no_worker_has_any_more_is_forgotten(haproxy: HAProxy, counts: Counting) -> None:
    before = haproxy.workers[0]
    before.total = 5
    assert await total(counts) == 5
    haproxy.reload().line = "b1.tenant-b.22"
    gone = plan.Subject(POOL, "a1", "tenant-a")
    assert (await counts.read(SECTIONS)).of(gone).connections_total == 5
    haproxy.workers.remove(before)
    found = await counts.read(SECTIONS)
    assert gone not in found.counts
    assert found.of(plan.Subject(POOL)).connections_total == 5


@pytest.mark.parametrize("deaf", ["show backend", "show stat -1 1", "show servers conn"])
async def test_a_worker_that_does_not_tell_what_it_has_takes_no_total_away(haproxy: HAProxy, counts: Counting, deaf: str) -> None:
    haproxy.workers[0].total = 5
    assert await total(counts) == 5
    haproxy.reload().deaf = deaf
    with pytest.raises(errors.EngineUnavailable):
        await counts.look()
    haproxy.workers[0].deaf = "-"
    assert await total(counts) == 5


async def test_a_haproxy_that_is_silent_is_waited_for_and_then_reported(
    haproxy: HAProxy, counts: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    await haproxy.stop()
    monkeypatch.setattr(counting, "_PATIENCE_S", 10.0)
    reading = asyncio.create_task(total(counts))
    await asyncio.sleep(0)
    await haproxy.start()
    assert await reading == 0
    await haproxy.stop()
    monkeypatch.setattr(counting, "_PATIENCE_S", 0.05)
    with pytest.raises(errors.EngineUnavailable) as caught:
        await counts.read(SECTIONS)
    assert caught.value.reason == "ENGINE_UNAVAILABLE"


async def test_only_what_is_asked_for_is_read(haproxy: HAProxy, counts: Counting) -> None:
    haproxy.reload()
    await counts.look()
    haproxy.asked.clear()
    await counts.read([FRONTEND])
    assert haproxy.asked == ["show proc", f"@!12 show stat {FRONTEND} 7 -1", f"@!11 show stat {FRONTEND} 7 -1"]


@pytest.mark.parametrize(
    "text", ["", "\n", "10 master 0 [failed: 0] 0d00h00m01s 2.6\n# workers\n# old workers\n9 worker 1 0d00h00m01s 2.6\n"]
)
def test_a_haproxy_without_a_current_worker_tells_nothing(text: str) -> None:
    with pytest.raises(errors.EngineUnavailable):
        worker.parse(text)


async def test_more_sections_than_haproxy_takes_at_once_are_asked_for_by_everything(haproxy: HAProxy, counts: Counting) -> None:
    haproxy.workers[0].total = 5
    haproxy.asked.clear()
    many = [*SECTIONS, *(f"vs.other.fe.f{number}" for number in range(counting._SECTIONS_MAX))]
    found = (await counts.read(many)).counts
    assert found[plan.Subject(FRONTEND)].connections_total == 5
    assert [each for each in haproxy.asked if " 7 -1" in each] == ["@!11 show stat -1 7 -1"]
