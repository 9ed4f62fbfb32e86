"""Members put into another state, against a gateway of the tests' own: what is written, what is asked, when waiting is over."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any, cast

import click
import pytest

from crossns import errors
from crossns.cli import client, exits, member, progress
from crossns.v1 import config_pb2, status_pb2, v_service_pb2
from tests.unit.cli_sample import COMING, DISABLED, DOWN, DRAIN, ENABLED, ERROR, REFUSED, observe, states, web


class Device:
    """A gateway with one vService. `observes` what was stored in the way that it is told; `rivals` writers come in between."""

    def __init__(self, service: v_service_pb2.VService, timeout_s: float = 5) -> None:
        self.service, self.rivals, self.writes = service, 0, 0
        self.observes: Callable[[v_service_pb2.VService], None] = observe
        self.counts: list[int | errors.CrossnsError] = []
        self.connection = client.Connection("unix:x", None, timeout_s)
        self.channel = self
        self._deadline = asyncio.get_running_loop().time() + timeout_s

    def unary_unary(self, path: str, **_: Any) -> str:
        return path.rpartition("/")[2]

    unary_stream = unary_unary

    def _check_time(self) -> None:
        if asyncio.get_running_loop().time() > self._deadline:
            raise errors.DeadlineExceeded("DEADLINE_EXCEEDED", "not done in time")

    async def get(self, _name: str) -> v_service_pb2.VService:
        self._check_time()
        read = v_service_pb2.VService()
        read.CopyFrom(self.service)
        return read

    async def call(self, method: str, request: Any) -> Any:
        self._check_time()
        return self._update(request) if method == "UpdateVService" else self._count(request)

    def _update(self, request: v_service_pb2.UpdateVServiceRequest) -> v_service_pb2.VService:
        assert list(request.update_mask.paths) == ["spec.pools"]
        if self.rivals:
            self.rivals -= 1
            self._write()
            self.service.spec.pools[0].members[1].weight += 1
        if request.v_service.etag != self.service.etag:
            raise errors.StaleEtag("STALE_ETAG", "somebody else has changed it")
        self._write()
        self.service.spec.ClearField("pools")
        self.service.spec.pools.extend(request.v_service.spec.pools)
        self.observes(self.service)
        return self.service

    def _write(self) -> None:
        self.writes += 1
        self.service.generation += 1
        self.service.etag += "+"

    def _count(self, _request: v_service_pb2.GetVServiceStatisticsRequest) -> v_service_pb2.VServiceStatistics:
        """One after the other of `counts` for main/a; the last one goes on."""
        count = self.counts.pop(0) if len(self.counts) > 1 else self.counts[0]
        if isinstance(count, errors.CrossnsError):
            raise count
        told = v_service_pb2.VServiceStatistics()
        told.members.add(name="main/a").traffic.connections = count
        return told

    async def make(self, who: str, state: v_service_pb2.MemberState.ValueType, *, yes: bool = False, **how: bool) -> int:
        change = member.Change("vServices/web", who, state, yes)
        return await member.make(cast("client.Client", self), change, no_wait=how.pop("no_wait", False), **how)


@pytest.fixture
async def device() -> Device:
    return Device(web())


async def test_drain_is_stored_and_told_when_it_is_in_effect(device: Device, capsys: pytest.CaptureFixture[str]) -> None:
    assert await device.make("main/a", DRAIN) == exits.DONE
    assert states(device.service) == {"main/a": "DRAIN", "main/b": "ENABLED", "spare/a": "ENABLED"}
    assert capsys.readouterr().out == "main/a of vServices/web is DRAIN\n"


async def test_nothing_is_written_when_the_state_is_as_wanted_already(device: Device, capsys: pytest.CaptureFixture[str]) -> None:
    assert await device.make("b", ENABLED) == exits.DONE
    assert device.writes == 0
    assert capsys.readouterr().out == "main/b of vServices/web is ENABLED already: nothing changed\n"


async def test_change_of_somebody_else_in_between_is_kept(device: Device) -> None:
    device.rivals = 3
    assert await device.make("main/a", DRAIN) == exits.DONE
    assert states(device.service)["main/a"] == "DRAIN"
    assert device.service.spec.pools[0].members[1].weight == 6


async def test_who_is_always_second_gives_up_with_the_reason(device: Device) -> None:
    device.rivals = 1000
    with pytest.raises(errors.StaleEtag):
        await device.make("main/a", DRAIN)
    assert states(device.service)["main/a"] == "ENABLED"


@pytest.mark.parametrize(("state", "living"), [(DRAIN, "go on"), (DISABLED, "end")])
async def test_last_member_that_serves_is_not_taken_without_consent(
    device: Device, state: v_service_pb2.MemberState.ValueType, living: str
) -> None:
    with pytest.raises(click.ClickException) as refused:
        await device.make("spare/a", state)
    assert device.writes == 0
    assert "No other member of the pool spare of vServices/web serves: no frontend leads there" in refused.value.message
    observe(device.service, main_b=DOWN)
    with pytest.raises(click.ClickException) as refused:
        await device.make("main/a", state)
    where = "at dmz 203.0.113.10:80, office [2001:db8::10]:8000-8099 requests would be answered 503"
    assert f"{where}, connections that there are would {living}." in refused.value.message
    assert refused.value.message.endswith("Nothing was changed: give --yes if that is wanted.")


async def test_last_member_goes_with_consent_and_a_note(device: Device, capsys: pytest.CaptureFixture[str]) -> None:
    assert await device.make("spare/a", DRAIN, yes=True) == exits.DONE
    assert capsys.readouterr().err.startswith("note: No other member of the pool spare")
    assert states(device.service)["spare/a"] == "DRAIN"


@pytest.mark.parametrize(("answer", "is_drained"), [("y\n", True), ("n\n", False), ("\n", False)])
async def test_on_a_terminal_it_asks(device: Device, monkeypatch: pytest.MonkeyPatch, answer: str, *, is_drained: bool) -> None:
    terminal = io.StringIO(answer)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)
    if is_drained:
        assert await device.make("spare/a", DRAIN) == exits.DONE
    else:
        with pytest.raises(click.ClickException, match="nothing was changed"):
            await device.make("spare/a", DRAIN)
    assert (states(device.service)["spare/a"] == "DRAIN") == is_drained


async def test_enabling_needs_no_consent(device: Device) -> None:
    # The other one is meant, too, and is the last that serves in its pool: nothing happens to it.
    device.service.spec.pools[0].members[0].state = DRAIN
    assert await device.make("a", ENABLED) == exits.DONE
    assert states(device.service) == {"main/a": "ENABLED", "main/b": "ENABLED", "spare/a": "ENABLED"}


async def test_without_waiting_the_status_is_nobodys_concern(device: Device) -> None:
    device.observes = lambda _service: None
    assert await device.make("main/a", DRAIN, no_wait=True) == exits.DONE


async def test_what_is_not_taken_up_in_time_exits_with_3_and_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    device = Device(web(), timeout_s=0.3)
    device.observes = lambda service: observe(service, main_a=COMING)
    assert await device.make("main/a", DRAIN) == exits.TIMED_OUT
    assert capsys.readouterr().err == "error: vServices/web is not as wanted after 0.3 s: main/a: not yet\n"


async def test_member_that_stays_in_error_fails_with_its_reason(
    device: Device, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(member, "_HOPELESS_S", 0.05)
    device.service.spec.pools[0].members[0].state = DRAIN
    device.observes = lambda service: observe(service, main_a=REFUSED)
    assert await device.make("main/a", ENABLED) == exits.FAILED
    assert capsys.readouterr().err == "error: vServices/web is not as wanted: main/a: left out\n"


async def test_enabled_member_that_is_down_is_told(device: Device, capsys: pytest.CaptureFixture[str]) -> None:
    device.service.spec.pools[0].members[0].state = DRAIN
    device.observes = lambda service: observe(service, main_a=DOWN)
    assert await device.make("main/a", ENABLED) == exits.DONE
    assert capsys.readouterr().out == ("main/a of vServices/web is ENABLED, but it does not serve: does not accept connections\n")


@pytest.mark.parametrize(
    ("happens", "words"),
    [
        (lambda service: service.spec.pools[0].members[0].ClearField("state"), "main/a is wanted ENABLED"),
        (lambda service: service.spec.pools[0].members.pop(0), "main/a is gone"),
    ],
)
async def test_who_is_overruled_meanwhile_is_told(
    device: Device, happens: Callable[[v_service_pb2.VService], Any], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    device.observes = happens
    assert await device.make("main/a", DRAIN) == exits.FAILED
    assert f"somebody has changed vServices/web meanwhile: {words}" in capsys.readouterr().err


async def test_drain_until_idle_ends_with_the_last_connection(
    device: Device, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(member, "_IDLE_POLL_S", 0)
    unavailable = errors.EngineUnavailable("ENGINE_UNAVAILABLE", "HAProxy does not answer")
    device.counts = [1234, 1234, unavailable, 1, 0]
    assert await device.make("main/a", DRAIN, until_idle=True) == exits.DONE
    told = capsys.readouterr()
    assert told.out.splitlines()[-1] == "main/a of vServices/web has no connection left"
    assert told.err.splitlines() == [
        "main/a of vServices/web has 1,234 connections left",
        "nothing is counted at present: HAProxy does not answer",
        "main/a of vServices/web has 1 connection left",
    ]


async def test_drain_that_is_not_idle_in_time_exits_with_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(member, "_IDLE_POLL_S", 0.05)
    device = Device(web(), timeout_s=0.3)
    device.counts = [2]
    assert await device.make("main/a", DRAIN, until_idle=True) == exits.TIMED_OUT
    assert capsys.readouterr().err.splitlines()[-1] == (
        "error: main/a of vServices/web has 2 connections left after 0.3 s; the state stays DRAIN"
    )


class Waited:
    """A gateway whose Wait gives these answers, and then no more for `silence_s`."""

    def __init__(self, *answers: config_pb2.WaitResponse, silence_s: float = 0) -> None:
        self._answers, self._silence_s = answers, silence_s
        self.config = SimpleNamespace(Wait=None)
        self.connection = client.Connection("unix:x", None, 1)

    async def stream(self, _method: Any, _request: Any) -> AsyncIterator[config_pb2.WaitResponse]:
        for answer in self._answers:
            yield answer
        if self._silence_s:
            await asyncio.sleep(self._silence_s)
            raise errors.DeadlineExceeded("DEADLINE_EXCEEDED", "time is up")

    async def status(self) -> int:
        return await progress.wait(cast("client.Client", self), [progress.target("vServices/web")])


def answer(state: status_pb2.State.ValueType, *types: str, done: bool = False) -> config_pb2.WaitResponse:
    false = status_pb2.CONDITION_STATUS_FALSE
    conditions = [status_pb2.Condition(type=each, status=false, message="main/b: it is down") for each in types]
    return config_pb2.WaitResponse(name="vServices/web", done=done, state=state, conditions=conditions)


@pytest.mark.parametrize("state", [status_pb2.STATE_DEGRADED, ERROR])
async def test_members_that_are_down_are_a_note_and_no_failure(
    state: status_pb2.State.ValueType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await Waited(answer(state, "Healthy", done=True)).status() == exits.DONE
    told = capsys.readouterr()
    assert told.out == f"vServices/web is {status_pb2.State.Name(state).removeprefix('STATE_')}\n"
    assert told.err == "note: vServices/web: main/b: it is down\n"


async def test_what_may_be_in_error_for_its_members_only_is_not_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_HOPELESS_S", 0.01)
    assert await Waited(answer(ERROR, "Programmed"), silence_s=0.1).status() == exits.FAILED
    assert await Waited(answer(ERROR, "Programmed", "Healthy"), silence_s=0.1).status() == exits.TIMED_OUT
