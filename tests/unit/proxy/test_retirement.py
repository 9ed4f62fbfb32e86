"""Workers that a reload replaced, of a HAProxy of values: they accept nothing at once, and end when they have nothing left."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from crossns import errors, names
from crossns.layout import Layout
from services.proxy import plan
from services.proxy.driver import Counting, Retirement, master, retirement
from tests.unit.proxy.haproxy import FRONTEND, POOL, HAProxy


class Launcher:
    """Ends the workers that it is asked to; `refusals`: what it answers instead, one for each call."""

    def __init__(self, haproxy: HAProxy) -> None:
        self._haproxy = haproxy
        self.ended: list[int] = []
        self.refusals: list[errors.CrossnsError] = []

    async def end(self, pids: tuple[int, ...]) -> None:
        if self.refusals:
            raise self.refusals.pop()
        self.ended += pids
        self._haproxy.workers = [each for each in self._haproxy.workers if each.pid not in pids]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retirement, "_SOON_S", 0.001)
    monkeypatch.setattr(retirement, "_LATER_S", 0.001)


@pytest_asyncio.fixture
async def haproxy(tmp_path: Path) -> AsyncIterator[HAProxy]:
    haproxy = HAProxy(Layout(run=tmp_path))
    await haproxy.start()
    yield haproxy
    await haproxy.stop()


@pytest.fixture
def launcher(haproxy: HAProxy) -> Launcher:
    return Launcher(haproxy)


@pytest.fixture
def counting(tmp_path: Path) -> Counting:
    return Counting(Layout(run=tmp_path))


@pytest.fixture
def retired(tmp_path: Path, launcher: Launcher, counting: Counting) -> Retirement:
    return Retirement(Layout(run=tmp_path), launcher.end, counting)


@contextlib.asynccontextmanager
async def ran(retired: Retirement) -> AsyncIterator[None]:
    """While this lasts."""
    running = asyncio.create_task(retired.run())
    try:
        yield
        assert not running.done(), running
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not is_so():
            await asyncio.sleep(0.001)


async def looks(haproxy: HAProxy, count: int) -> None:
    """Until HAProxy was asked for its processes so many times more."""
    wanted = haproxy.asked.count("show proc") + count
    await until(lambda: haproxy.asked.count("show proc") >= wanted)


async def falls_asleep(haproxy: HAProxy) -> None:
    """Until nobody has asked for many times as long as between two looks; the last answer may still be on its way."""
    async with asyncio.timeout(5):
        asked = -1
        while len(haproxy.asked) != asked:
            asked = len(haproxy.asked)
            await asyncio.sleep(0.05)


async def test_a_replaced_worker_accepts_nothing_more_and_the_current_one_everything(
    haproxy: HAProxy, retired: Retirement
) -> None:
    before = haproxy.workers[0]
    before.vservices = ("web", "other")
    current = haproxy.reload()
    await retired.shut()
    assert (before.accepting, before.shut) == ([], [FRONTEND, "vs.other.fe.fe"])
    assert current.shut == []


async def test_a_worker_is_shut_once(haproxy: HAProxy, retired: Retirement) -> None:
    before = haproxy.workers[0]
    haproxy.reload()
    for _ in range(3):
        await retired.shut()
    assert before.shut == [FRONTEND]
    haproxy.asked.clear()
    await retired.shut()
    assert haproxy.asked == ["show proc"]


async def test_frontends_beyond_a_line_of_commands_are_shut_too(
    haproxy: HAProxy, retired: Retirement, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retirement, "_BATCH", 2)
    before = haproxy.workers[0]
    before.vservices = tuple(f"v{number}" for number in range(5))
    haproxy.reload()
    await retired.shut()
    assert before.accepting == []


async def test_a_frontend_that_is_full_is_shut_too(haproxy: HAProxy, retired: Retirement) -> None:
    before = haproxy.workers[0]
    before.status = "FULL"
    haproxy.reload()
    await retired.shut()
    assert before.accepting == []


def test_a_line_of_commands_fits_into_the_buffer_that_it_is_read_into() -> None:
    """A master that has refused a reload has one of the usual size, of which a part is kept free (tune.maxrewrite)."""
    name = "n" * names.ID_MAX
    command = f"@!{2**22} shutdown frontend vs.{name}.fe.{name};"
    assert retirement._BATCH * len(command) < 16384 - 1024


async def test_a_worker_that_serves_alone_is_never_taken_for_a_replaced_one(
    haproxy: HAProxy, launcher: Launcher, retired: Retirement
) -> None:
    """A master that has no current worker shows what it has among the old ones."""
    haproxy.has_current = False
    await retired.shut()
    async with ran(retired):
        await looks(haproxy, 3)
    assert (haproxy.workers[0].shut, launcher.ended) == ([], [])


async def test_a_worker_ends_when_its_last_connection_has(haproxy: HAProxy, launcher: Launcher, retired: Retirement) -> None:
    before = haproxy.workers[0]
    before.connections = 1
    haproxy.reload()
    async with ran(retired):
        await retired.shut()
        await looks(haproxy, 5)
        assert launcher.ended == []
        before.connections = 0
        await until(lambda: launcher.ended == [before.pid])


@pytest.mark.parametrize("deaf", ["shutdown", "show stat -1 1"])
async def test_a_worker_that_may_still_accept_is_not_ended(
    haproxy: HAProxy, launcher: Launcher, retired: Retirement, deaf: str
) -> None:
    before = haproxy.workers[0]
    before.deaf = deaf
    haproxy.reload()
    async with ran(retired):
        await looks(haproxy, 5)
        assert launcher.ended == []
        before.deaf = "-"
        await until(lambda: launcher.ended == [before.pid])


async def test_what_a_process_before_this_one_left_is_found(haproxy: HAProxy, launcher: Launcher, retired: Retirement) -> None:
    """It was killed behind two reloads, before it had told anybody."""
    before = [haproxy.workers[0].pid, haproxy.reload().pid]
    haproxy.reload()
    async with ran(retired):
        await until(lambda: sorted(launcher.ended) == before)


async def test_where_no_worker_was_replaced_nobody_asks(haproxy: HAProxy, launcher: Launcher, retired: Retirement) -> None:
    async with ran(retired):
        await looks(haproxy, 1)
        await falls_asleep(haproxy)
        before = haproxy.workers[0]
        haproxy.reload()
        await retired.shut()
        await until(lambda: launcher.ended == [before.pid])
        await looks(haproxy, 1)
        await falls_asleep(haproxy)


async def test_a_reload_is_not_kept_waiting_by_long_rests(
    haproxy: HAProxy, launcher: Launcher, retired: Retirement, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retirement, "_LATER_S", 3600.0)
    first = haproxy.workers[0]
    first.connections = 1
    second = haproxy.reload()
    async with ran(retired):
        await until(lambda: haproxy.asked.count("show proc") == retirement._SOON_LOOKS)
        await falls_asleep(haproxy)
        haproxy.reload()
        await retired.shut()
        await until(lambda: launcher.ended == [second.pid])


async def test_a_worker_that_has_connections_for_long_is_looked_at_less_often(
    haproxy: HAProxy, retired: Retirement, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retirement, "_LATER_S", 3600.0)
    haproxy.workers[0].connections = 1
    haproxy.reload()
    async with ran(retired):
        await until(lambda: haproxy.asked.count("show proc") == retirement._SOON_LOOKS)
        await falls_asleep(haproxy)


async def test_a_haproxy_that_is_silent_is_asked_again(haproxy: HAProxy, launcher: Launcher, retired: Retirement) -> None:
    before = haproxy.workers[0]
    haproxy.reload()
    await haproxy.stop()
    await retired.shut()
    async with ran(retired):
        await asyncio.sleep(0)
        await haproxy.start()
        await until(lambda: launcher.ended == [before.pid])


async def test_a_haproxy_that_stays_silent_is_asked_no_more_until_a_reload(
    haproxy: HAProxy, launcher: Launcher, retired: Retirement, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There may be none, for as long as there is no vService."""
    asked: list[Sequence[str]] = []

    async def ask(_path: Path, commands: Sequence[str]) -> str:
        asked.append(commands)
        raise errors.EngineUnavailable("ENGINE_UNAVAILABLE", "nobody answers")

    async with ran(retired):
        with monkeypatch.context() as patch:
            patch.setattr(master, "ask", ask)
            await until(lambda: len(asked) > retirement._VAIN_LOOKS)
            await asyncio.sleep(0.05)
            assert len(asked) == retirement._VAIN_LOOKS + 1
        before = haproxy.workers[0]
        haproxy.reload()
        await retired.shut()
        await until(lambda: launcher.ended == [before.pid])


async def test_a_launcher_that_is_away_is_asked_again(haproxy: HAProxy, launcher: Launcher, retired: Retirement) -> None:
    before = haproxy.workers[0]
    haproxy.reload()
    launcher.refusals = [
        errors.AgentUnavailable("LAUNCHER_UNAVAILABLE", "no answer"),
        errors.FailedPrecondition("STALE_TOKEN", "a newer process acts"),
    ]
    async with ran(retired):
        await until(lambda: launcher.ended == [before.pid])


async def test_a_worker_that_does_not_answer_holds_up_no_other(haproxy: HAProxy, launcher: Launcher, retired: Retirement) -> None:
    deaf, fine = haproxy.workers[0], haproxy.reload()
    haproxy.reload()
    deaf.deaf = "show"
    await retired.shut()
    assert fine.accepting == []
    async with ran(retired):
        await until(lambda: launcher.ended == [fine.pid])
        deaf.deaf = "-"
        await until(lambda: launcher.ended == [fine.pid, deaf.pid])


async def test_a_worker_that_hangs_holds_up_no_other(
    haproxy: HAProxy, launcher: Launcher, retired: Retirement, monkeypatch: pytest.MonkeyPatch
) -> None:
    hung, fine = haproxy.workers[0], haproxy.reload()
    haproxy.reload()
    ask = master.ask

    async def answer(path: Path, commands: Sequence[str]) -> str:
        if commands[0].startswith(f"@!{hung.pid} "):
            raise errors.EngineUnavailable("ENGINE_UNAVAILABLE", "no answer in time")
        return await ask(path, commands)

    monkeypatch.setattr(master, "ask", answer)
    async with ran(retired):
        await until(lambda: launcher.ended == [fine.pid])


async def test_a_worker_is_read_before_it_ends(
    haproxy: HAProxy, launcher: Launcher, retired: Retirement, counting: Counting
) -> None:
    before = haproxy.workers[0]
    before.total, before.deaf = 5, "show stat -1 7"
    haproxy.reload()
    async with ran(retired):
        await looks(haproxy, 5)
        assert launcher.ended == []
        before.total, before.deaf = 9, "-"
        await until(lambda: launcher.ended == [before.pid])
    assert (await counting.read([POOL])).of(plan.Subject(POOL)).connections_total == 9


async def test_a_pid_that_is_used_again_is_another_worker(haproxy: HAProxy, retired: Retirement) -> None:
    first = haproxy.workers[0]
    haproxy.reload()
    for _ in range(2):
        await retired.shut()
    haproxy.workers.remove(first)
    await retired.shut()
    again, current = haproxy.workers[0], haproxy.reload()
    again.pid = first.pid
    await retired.shut()
    assert (again.accepting, current.accepting) == ([], [FRONTEND])
