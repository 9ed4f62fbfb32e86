"""The driver against a launcher and a HAProxy of values: when it asks, what it remembers, what it makes of a refusal."""

import asyncio
import dataclasses
import ipaddress
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from crossns import errors, operation
from crossns.layout import Layout
from crossns.retry import Backoff
from services.proxy import driver, model, plan, render
from services.proxy.driver import device, ending, refusals
from tests.unit.proxy import sample

LOOK = (Path(__file__).parents[2] / "testdata" / "proxy" / "show-stat.txt").read_text(encoding="utf-8")
CONFIG = "frontend vs.web.fe.fe from tcp\n    bind ipv4@203.0.113.10:80 namespace dmz.11 name dmz.11 transparent\n"

OnEvent = Callable[[operation.Event], None]


class Launcher:
    """Answers as the launcher does; `engine` is what it shows, `refusal` what it says to the next configuration."""

    def __init__(self) -> None:
        self.engine: operation.Engine | None = None
        self.refusal: errors.CrossnsError | None = None
        self.is_closed = False
        self.sessions = 0
        self.on_event: OnEvent | None = None
        self.calls: list[object] = []

    async def connect(self, _path: Path, _service: str, _token: operation.Token, on_event: OnEvent) -> "Launcher":
        self.sessions += 1
        self.is_closed = False
        await asyncio.sleep(0)
        self.on_event = on_event
        return self

    async def call(self, wanted: operation.Request) -> operation.Result | None:
        self.calls.append(wanted)
        match wanted:
            case operation.ListNamespaces():
                known = operation.Namespace(table="dmz", cookie=11, attached=True)
                return operation.Namespaces(items=(known, operation.Namespace(table="odd", cookie=0, attached=False)))
            case operation.ListEngines():
                return operation.Engines(items=(self.engine,) if self.engine else ())
            case operation.StartEngine() if self.refusal is not None:
                raise self.refusal
        return None

    async def wait_until_closed(self) -> None:
        while not self.is_closed:
            await asyncio.sleep(0)

    async def close(self) -> None:
        self.is_closed = True


class Engine:
    """HAProxy's master socket. `answer` is what it says whatever it is asked."""

    def __init__(self, layout: Layout) -> None:
        self.path = layout.haproxy_master
        self.asked: list[bytes] = []
        self.answer = LOOK
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self.path.parent.mkdir(parents=True)
        self._server = await asyncio.start_unix_server(self._answer, self.path)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append(await reader.read())
        writer.write(self.answer.encode())
        await writer.drain()
        writer.close()


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch) -> Launcher:
    made = Launcher()
    monkeypatch.setattr("crossns.launcher.Launcher.connect", made.connect)
    monkeypatch.setattr(device, "_BACK_MAX_S", 0.05)
    monkeypatch.setattr(device, "_PAUSE_S", 0.0)
    return made


@pytest_asyncio.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    made = Engine(Layout(run=tmp_path))
    yield made
    await made.stop()


class Beside:
    """What the driver asks and tells: the checks, the counting, the loop."""

    def __init__(self, launcher: Launcher) -> None:
        self.down: dict[model.Target, str] = {}
        self.unknown: frozenset[model.Target] = frozenset()
        self.changed: list[str] = []
        # How much the launcher had been asked for when it was told of a reload.
        self.reloads: list[int] = []
        # How often it was told that there may have been one.
        self.woken = 0
        self._launcher = launcher

    def wake(self) -> None:
        self.woken += 1

    async def after_reload(self) -> None:
        self.reloads.append(len(self._launcher.calls))


@pytest.fixture
def beside(launcher: Launcher) -> Beside:
    return Beside(launcher)


@pytest.fixture
def observer(tmp_path: Path, beside: Beside) -> driver.Device:
    told = driver.Beside(lambda: beside.down, lambda: beside.unknown, beside.after_reload, beside.wake, beside.changed.append)
    return driver.Device(Layout(run=tmp_path), operation.Token(1, 1), told)


def running(pid: int = 7, reloads: int = 0) -> operation.Engine:
    return operation.Engine(engine="haproxy", pid=pid, config_digest="d" * 64, reloads=reloads)


async def test_without_an_engine_nobody_is_asked(observer: driver.Device, engine: Engine) -> None:
    await engine.start()
    seen = await observer.observe(model.UNIT)
    assert (seen.running, seen.digest, seen.structure, seen.listeners, seen.servers) == (False, "", "", frozenset(), {})
    assert engine.asked == []


async def test_only_tables_with_a_namespace_can_be_entered(observer: driver.Device) -> None:
    assert (await observer.observe(model.UNIT)).namespaces == {"dmz.11"}


async def test_the_current_worker_tells_what_it_runs(observer: driver.Device, engine: Engine, launcher: Launcher) -> None:
    await engine.start()
    launcher.engine = running()
    seen = await observer.observe(model.UNIT)
    assert (seen.running, seen.digest, seen.structure) == (True, "d" * 64, "d85047ad1313e893f620b8498cc0357b")
    assert sample.listener() in seen.listeners
    assert seen.servers["vs.web.po.main"]["a1.tenant-a.21"].server == render.Server("10.0.0.5:8080", enabled=True)
    assert engine.asked == [b"@1 show info;@1 show stat -1 12 -1\n"]


async def test_what_changes_while_it_runs_is_seen_each_time(observer: driver.Device, engine: Engine, launcher: Launcher) -> None:
    await engine.start()
    launcher.engine = running()
    await observer.observe(model.UNIT)
    engine.answer = LOOK.replace(",no check,1,1,", ",MAINT,1,1,")
    seen = await observer.observe(model.UNIT)
    assert not seen.servers["vs.web.po.main"]["a1.tenant-a.21"].server.enabled


async def test_the_checks_tell_who_is_down_and_of_whom_nothing_is_known(observer: driver.Device, beside: Beside) -> None:
    one, other = (model.Target("dmz.11", ipaddress.ip_address(f"10.0.0.{host}"), 80) for host in (5, 6))
    beside.down, beside.unknown = {one: "no answer"}, frozenset({other})
    seen = await observer.observe(model.UNIT)
    assert dict(seen.down) == {one: "no answer"}
    assert seen.unknown == {other}


async def test_an_engine_that_does_not_answer_in_time_runs_nothing(observer: driver.Device, launcher: Launcher) -> None:
    launcher.engine = running()
    seen = await observer.observe(model.UNIT)
    assert (seen.running, seen.digest, seen.structure, seen.listeners) == (True, "d" * 64, "", frozenset())


async def test_an_engine_that_comes_back_is_waited_for(
    observer: driver.Device, engine: Engine, launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "_BACK_MAX_S", 20.0)
    launcher.engine = running()
    observing = asyncio.create_task(observer.observe(model.UNIT))
    while len(launcher.calls) < 5:
        await asyncio.sleep(0)
    await engine.start()
    assert sample.listener() in (await observing).listeners


async def test_what_is_refused_is_remembered_and_tried_again_after_a_while(
    observer: driver.Device, launcher: Launcher, beside: Beside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "_RETRY", Backoff(0.05, 1.0, 0.05))
    launcher.refusal = errors.PermanentError("ENGINE_REFUSED", "parsing [/run/haproxy.candidate:2] : no")
    await observer.apply(plan.StartEngine(CONFIG, generations={"vServices/web": 3}))
    refused = (await observer.observe(model.UNIT)).refused
    assert refused == {sample.listener(): plan.Refusal("parsing [/run/haproxy.candidate:2] : no", 3)}
    while not beside.changed:
        await asyncio.sleep(0)
    assert beside.changed == [model.UNIT]
    assert (await observer.observe(model.UNIT)).refused == {}
    # What a round was told does not change behind it.
    assert set(refused) == {sample.listener()}


async def test_a_refusal_that_names_nobody_stays_what_it_is(observer: driver.Device, launcher: Launcher) -> None:
    launcher.refusal = errors.PermanentError("ENGINE_REFUSED", f"no {'x' * 5000}")
    with pytest.raises(errors.PermanentError, match=r"^no x+") as caught:
        await observer.apply(plan.StartEngine(CONFIG))
    assert (caught.value.reason, len(caught.value.message)) == ("ENGINE_REFUSED", 256)
    assert (await observer.observe(model.UNIT)).refused == {}


async def test_nothing_is_tried_again_once_the_driver_is_closed(
    observer: driver.Device, launcher: Launcher, beside: Beside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "_RETRY", Backoff(0.0, 1.0, 0.0))
    launcher.refusal = errors.PermanentError("ENGINE_REFUSED", "parsing [/run/haproxy.candidate:2] : no")
    await observer.apply(plan.StartEngine(CONFIG))
    await observer.close()
    await asyncio.sleep(0.01)
    assert beside.changed == []


async def test_a_launcher_that_does_not_answer_is_no_refusal(observer: driver.Device, launcher: Launcher) -> None:
    launcher.refusal = errors.AgentUnavailable("LAUNCHER_UNAVAILABLE", "no answer")
    with pytest.raises(errors.AgentUnavailable):
        await observer.apply(plan.StartEngine(CONFIG))
    assert (await observer.observe(model.UNIT)).refused == {}


async def test_a_lost_session_is_opened_again(observer: driver.Device, launcher: Launcher) -> None:
    await observer.observe(model.UNIT)
    await observer.observe(model.UNIT)
    assert launcher.sessions == 1
    launcher.is_closed = True
    await observer.observe(model.UNIT)
    assert launcher.sessions == 2


async def test_the_end_of_the_engine_wakes_the_loop(observer: driver.Device, launcher: Launcher, beside: Beside) -> None:
    await observer.observe(model.UNIT)
    assert launcher.on_event is not None
    launcher.on_event(operation.AgentExited(table="dmz", pid=5))
    assert beside.changed == []
    launcher.on_event(operation.EngineExited(engine="haproxy", pid=7, status=9))
    assert beside.changed == [model.UNIT]


async def test_a_reload_that_nobody_asked_for_is_looked_into(observer: driver.Device, launcher: Launcher, beside: Beside) -> None:
    """The launcher tries once more what it was at when it died."""
    await observer.observe(model.UNIT)
    assert launcher.on_event is not None
    launcher.on_event(operation.EngineReloaded(engine="haproxy"))
    assert (beside.woken, beside.changed) == (1, [])


async def test_a_launcher_that_is_back_is_found_and_everything_looked_at(
    observer: driver.Device, launcher: Launcher, beside: Beside
) -> None:
    """With nobody asking for anything: whatever it did meanwhile was not told."""
    running = asyncio.create_task(observer.run())
    async with asyncio.timeout(5):
        for number in (1, 2):
            while (beside.woken, beside.changed) != (number, [model.UNIT] * number):
                await asyncio.sleep(0)
            launcher.is_closed = True
    running.cancel()
    assert launcher.sessions >= 2


async def test_the_engine_is_stopped_by_the_launcher(observer: driver.Device, launcher: Launcher) -> None:
    await observer.apply(plan.StopEngine())
    assert launcher.calls == [operation.StopEngine(engine="haproxy")]


async def test_a_text_that_runs_already_is_only_kept(observer: driver.Device, launcher: Launcher, beside: Beside) -> None:
    await observer.apply(plan.SaveEngine(CONFIG))
    assert launcher.calls == [operation.SaveEngine(engine="haproxy", config=CONFIG)]
    assert beside.reloads == []


async def test_the_worker_from_before_is_retired_behind_a_reload(
    observer: driver.Device, launcher: Launcher, beside: Beside
) -> None:
    await observer.apply(plan.StartEngine(CONFIG))
    assert launcher.calls == [operation.StartEngine(engine="haproxy", config=CONFIG)]
    assert beside.reloads == [1]


async def test_workers_are_ended_by_the_launcher_in_the_one_session_that_there_is(
    observer: driver.Device, launcher: Launcher
) -> None:
    await asyncio.gather(observer.end_workers((5, 6)), observer.observe(model.UNIT))
    assert launcher.calls[0] == operation.EndWorkers(engine="haproxy", pids=(5, 6))
    assert launcher.sessions == 1


CHANGE = plan.SetServer(
    "vs.web.po.main",
    "a1.tenant-a.21",
    render.Server("10.0.0.5:8080", enabled=True),
    render.Server("10.0.0.5:8080", enabled=False),
    "vServices/web",
)


async def test_a_server_is_changed_by_haproxy_itself(observer: driver.Device, engine: Engine, launcher: Launcher) -> None:
    await engine.start()
    engine.answer = "\n"
    await observer.apply(CHANGE)
    assert engine.asked == [b"@1 set server vs.web.po.main/a1.tenant-a.21 state maint\n"]
    assert launcher.calls == []


async def test_a_change_that_haproxy_does_not_make_is_an_error(observer: driver.Device, engine: Engine) -> None:
    await engine.start()
    engine.answer = "No such server.\n\n"
    with pytest.raises(errors.PermanentError, match=r"No such server\.$"):
        await observer.apply(CHANGE)


async def test_connections_end_after_the_change_that_lets_no_more_come(
    observer: driver.Device, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await engine.start()
    engine.answer = "\n"
    ended: list[tuple[int, frozenset[render.Part]]] = []

    async def end(_path: Path, members: frozenset[render.Part]) -> None:
        ended.append((len(engine.asked), members))

    monkeypatch.setattr(ending, "end", end)
    await observer.apply(dataclasses.replace(CHANGE, ended=frozenset({sample.server()})))
    await observer.apply(plan.StartEngine(CONFIG, ended=frozenset({sample.server("other")})))
    assert ended == [(1, frozenset({sample.server()})), (1, frozenset({sample.server("other")}))]


async def test_nobodys_connections_end_by_a_reload_that_is_refused(
    observer: driver.Device, launcher: Launcher, beside: Beside, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def end(_path: Path, _members: frozenset[render.Part]) -> None:
        raise AssertionError

    monkeypatch.setattr(ending, "end", end)
    launcher.refusal = errors.PermanentError("ENGINE_REFUSED", "parsing [/run/haproxy.candidate:2] : no")
    await observer.apply(plan.StartEngine(CONFIG, ended=frozenset({sample.server()})))
    assert beside.reloads == []
    await observer.close()
