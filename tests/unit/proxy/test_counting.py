"""The totals of a HAProxy of values that reloads, ends and comes back: nothing is lost, nothing is added twice."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from crossns import errors
from crossns.layout import Layout
from services.proxy import plan
from services.proxy.driver import Counting, counting, hold
from tests.unit.proxy.show_stat import row, table

FRONTEND, POOL = "vs.web.fe.fe", "vs.web.po.main"
SECTIONS = (FRONTEND, POOL)


@dataclass
class Worker:
    """`held`: connections on its own socket, without which it ends when it has no `connections` and is stopping; `looks`: how
    often it was asked for its state."""

    pid: int
    total: int = 0
    connections: int = 0
    vservices: tuple[str, ...] = ("web",)
    stopping: bool = False
    held: list[asyncio.StreamWriter] = field(default_factory=list)
    looks: int = 0

    @property
    def lives(self) -> bool:
        return not self.stopping or self.connections > 0 or any(not each.is_closing() for each in self.held)

    def answer(self, command: list[str]) -> str:
        match command:
            case ["show", "backend"]:
                return "\n".join(["# name", *(f"vs.{each}.po.main" for each in self.vservices), "", ""])
            case ["show", "stat", "-1", "7", "-1"]:
                return table(*self._rows(FRONTEND), *self._rows(POOL))
            case ["show", "stat", section, "7", "-1"]:
                return table(*self._rows(section)) if section.split(".")[1] in self.vservices else "No such proxy.\n\n"
        return f"unknown: {command}\n\n"

    def info(self) -> str:
        self.looks += 1
        jobs = 1 + len(self.held) + self.connections + (0 if self.stopping else 2)
        return f"Pid: {self.pid}\nStopping: {self.stopping:d}\nJobs: {jobs}\nUnstoppable Jobs: 1\nListeners: 1\n"

    def _rows(self, section: str) -> tuple[str, ...]:
        counts = {"stot": self.total, "scur": self.connections}
        if section == FRONTEND:
            return (row(FRONTEND, "FRONTEND", **counts),)
        return row(POOL, "a1.tenant-a.21", "10.0.0.5:8080", **counts), row(POOL, "BACKEND", **counts)


class HAProxy:
    """Its master socket and its workers' own; `workers` begins with the current one."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.pid, self.workers = 10, [Worker(11)]
        self.asked: list[str] = []
        self._servers: list[asyncio.Server] = []

    async def start(self) -> None:
        self._layout.haproxy_master.parent.mkdir(parents=True, exist_ok=True)
        own = self._layout.engine_dir("haproxy") / "stats.sock"
        self._servers = [
            await asyncio.start_unix_server(self._answer, self._layout.haproxy_master),
            await asyncio.start_unix_server(self._hold, own),
        ]

    async def stop(self) -> None:
        for server in self._servers:
            server.close()
            await server.wait_closed()
        for worker in self.workers:
            for writer in worker.held:
                writer.close()

    def reload(self, *vservices: str) -> Worker:
        self.workers[0].stopping = True
        self.workers.insert(0, Worker(self.workers[0].pid + 1, vservices=vservices or ("web",)))
        return self.workers[0]

    def living(self) -> list[Worker]:
        self.workers = [worker for worker in self.workers if worker.lives]
        return self.workers

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for command in (await reader.read()).decode().strip().split(";"):
            self.asked.append(command)
            target, *words = command.split()
            worker = next((each for each in self.living() if target == f"@!{each.pid}"), None)
            writer.write((worker.answer(words) if worker else self._processes()).encode())
        writer.close()

    def _processes(self) -> str:
        current, *old = self.living()
        lines = [
            "#<PID>          <type>          <reloads>       <uptime>        <version>",
            f"{self.pid}           master          7 [failed: 0]   1d00h00m04s     2.6.12",
            "# workers",
            f"{current.pid}           worker          0               0d00h01m40s     2.6.12",
            "# old workers",
            *(f"{each.pid}           worker          1               0d00h05m00s     2.6.12" for each in old),
            "# programs",
        ]
        return "\n".join([*lines, "", ""])

    async def _hold(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        worker = self.workers[0]
        worker.held.append(writer)
        while command := (await reader.readline()).decode().strip():
            writer.write(("\n> " if command == "prompt" else f"{worker.info()}\n> ").encode())
        writer.close()


@pytest_asyncio.fixture
async def haproxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[HAProxy]:
    monkeypatch.setattr(counting, "_SOON_S", 0.001)
    monkeypatch.setattr(counting, "_LATER_S", 0.001)
    haproxy = HAProxy(Layout(run=tmp_path))
    await haproxy.start()
    yield haproxy
    await haproxy.stop()


@pytest_asyncio.fixture
async def counts(tmp_path: Path) -> AsyncIterator[Counting]:
    counts = Counting(Layout(run=tmp_path))
    running = asyncio.create_task(counts.run())
    yield counts
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not is_so():
            await asyncio.sleep(0.001)


async def total(counts: Counting) -> int:
    """Connections so far, which frontend, pool and member agree on."""
    found = (await counts.read(SECTIONS)).counts
    totals = {each.connections_total for each in found.values()}
    assert set(found) == {plan.Subject(FRONTEND), plan.Subject(POOL), plan.Subject(POOL, "a1")}
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
        await counts.before_reload()
        haproxy.reload().total = 1


async def test_what_a_worker_counts_last_is_not_lost(haproxy: HAProxy, counts: Counting) -> None:
    """Nobody asks between the reload and its end."""
    before = haproxy.workers[0]
    before.total = 5
    await counts.before_reload()
    haproxy.reload()
    before.total = 9
    await until(lambda: before not in haproxy.living())
    assert await total(counts) == 9


async def test_a_worker_is_kept_as_long_as_it_has_connections(haproxy: HAProxy, counts: Counting) -> None:
    before = haproxy.workers[0]
    before.connections = 2
    await counts.before_reload()
    haproxy.reload().connections = 1
    assert await now(counts) == 3
    looks = before.looks
    await until(lambda: before.looks > looks + 2)
    before.connections, before.total = 0, 4
    await until(lambda: before not in haproxy.living())
    assert (await now(counts), await total(counts)) == (1, 4)


async def test_a_worker_whose_reload_failed_is_let_go(
    haproxy: HAProxy, counts: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "_RELOAD_MAX_S", 0.0)
    await counts.before_reload()
    await until(lambda: all(each.is_closing() for each in haproxy.workers[0].held))
    assert await total(counts) == 0


async def test_two_reloads_in_a_row_keep_a_worker_once(haproxy: HAProxy, counts: Counting) -> None:
    """The first one failed."""
    await counts.before_reload()
    await counts.before_reload()
    assert len(haproxy.workers[0].held) == 1


async def test_a_worker_that_is_killed_takes_nothing_back(haproxy: HAProxy, counts: Counting) -> None:
    before = haproxy.workers[0]
    before.total = 5
    assert await total(counts) == 5
    await counts.before_reload()
    haproxy.reload()
    for writer in before.held:
        writer.close()
    await until(lambda: before not in haproxy.living())
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
    await counts.before_reload()
    haproxy.reload("other")
    await counts.before_reload()
    haproxy.reload("web", "other").total = 1
    before.total = 6
    assert (await total(counts), await now(counts)) == (1, 0)
    before.connections = 0
    await until(lambda: before not in haproxy.living())
    assert await total(counts) == 1


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


async def test_a_haproxy_that_is_not_there_holds_up_no_reload(haproxy: HAProxy, counts: Counting) -> None:
    await haproxy.stop()
    await counts.before_reload()
    await haproxy.start()
    assert await total(counts) == 0


async def test_only_what_is_asked_for_is_read(haproxy: HAProxy, counts: Counting) -> None:
    haproxy.reload()
    haproxy.workers[1].connections = 1
    await counts.read([FRONTEND])
    assert haproxy.asked == ["show proc", f"@!12 show stat {FRONTEND} 7 -1", f"@!11 show stat {FRONTEND} 7 -1"]


@pytest.mark.parametrize("text", ["", "Pid: 5\nStopping: 0\n", "Permission denied\n"])
def test_a_worker_that_says_little_is_not_known(text: str) -> None:
    with pytest.raises(errors.EngineUnavailable):
        hold.state(text)


@pytest.mark.parametrize(
    "text", ["", "\n", "10 master 0 [failed: 0] 0d00h00m01s 2.6\n# workers\n# old workers\n9 worker 1 0d00h00m01s 2.6\n"]
)
def test_a_haproxy_without_a_current_worker_tells_nothing(text: str) -> None:
    with pytest.raises(errors.EngineUnavailable):
        counting.parse_processes(text)
