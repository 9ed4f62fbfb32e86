"""`crossns service` without a device: which members are meant, what is sent, what is shown, and when waiting is over."""

import asyncio
import io
import json
import re
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any, cast

import click
import pytest
import yaml

from crossns import errors
from crossns.cli import client, columns, completion, exits, member, part, progress, render, root, statistics
from crossns.v1 import config_pb2, status_pb2, v_service_pb2

READY, PENDING, ERROR = status_pb2.STATE_READY, status_pb2.STATE_PENDING, status_pb2.STATE_ERROR
ENABLED, DRAIN = v_service_pb2.MEMBER_STATE_ENABLED, v_service_pb2.MEMBER_STATE_DRAIN
DISABLED, UNSAID = v_service_pb2.MEMBER_STATE_DISABLED, v_service_pb2.MEMBER_STATE_UNSPECIFIED


def web() -> v_service_pb2.VService:
    """Two pools that both have a member `a`; the frontend `office` names no pool of its own."""
    service = v_service_pb2.VService(name="vServices/web", etag="1", generation=1)
    spec = service.spec
    spec.protocol = v_service_pb2.PROTOCOL_HTTP
    spec.frontends.add(name="dmz", route_table="routeTables/dmz", address="203.0.113.10", port=80, pool="main")
    spec.frontends.add(name="office", route_table="routeTables/office", address="2001:db8::10", port=8000, end_port=8099)
    main, spare = spec.pools.add(name="main"), spec.pools.add(name="spare", algorithm=v_service_pb2.ALGORITHM_SOURCE_HASH)
    main.members.add(name="a", route_table="routeTables/a", address="10.0.0.5", port=8080)
    main.members.add(name="b", route_table="routeTables/b", address="10.0.0.5", port=8080, weight=3)
    spare.members.add(name="a", route_table="routeTables/a", address="fd00::5")
    observe(service)
    return service


def observe(service: v_service_pb2.VService, **states: Any) -> None:
    """All is READY, but for what `states` say by `pool_member`."""
    service.status.Clear()
    service.status.observed_generation = service.generation
    service.status.state = READY
    for front in service.spec.frontends:
        for observer in ("proxy", "nsmanager"):
            service.status.frontends.add(name=front.name, state=READY, reason="OK", service=observer)
    for name, _ in part.members(service):
        state, reason, message = states.get(name.replace("/", "_"), (READY, "OK", ""))
        told = {"state": state, "reason": reason, "message": message, "service": "proxy"}
        service.status.members.add(name=name, observed_generation=service.generation, **told)


DOWN = (ERROR, "MEMBER_DOWN", "does not accept connections")
REFUSED = (ERROR, "ENGINE_REFUSED", "left out")
COMING = (PENDING, "IN_PROGRESS", "not yet")


def states(service: v_service_pb2.VService) -> dict[str, str]:
    return {name: part.word(part.wanted(each)) for name, each in part.members(service)}


@pytest.mark.parametrize(
    ("given", "chosen"),
    [("b", ["main/b"]), ("a", ["main/a", "spare/a"]), ("spare/a", ["spare/a"]), ("main/b", ["main/b"])],
)
def test_member_is_meant_in_every_pool_that_has_it_or_in_the_one_that_is_named(given: str, chosen: list[str]) -> None:
    assert part.choose(web(), given) == chosen


@pytest.mark.parametrize("given", ["c", "spare/b", "main", "main/", "/a", ""])
def test_unknown_member_is_told_with_those_there_are(given: str) -> None:
    with pytest.raises(errors.NotFound, match=r"vServices/web has no member .*: it has main/a, main/b, spare/a"):
        part.choose(web(), given)


def test_of_many_members_some_are_listed_and_the_near_one_is_named() -> None:
    service = v_service_pb2.VService(name="vServices/big")
    pool = service.spec.pools.add(name="p")
    for number in range(100):
        pool.members.add(name=f"node-{number:02}")
    with pytest.raises(errors.NotFound) as raised:
        part.choose(service, "nod-77")
    assert raised.value.message.endswith("p/node-19 and 80 more; did you mean 'node-77'?")


def test_only_the_chosen_members_change_and_only_pools_are_sent() -> None:
    service = web()
    changed = part.with_state(service, ["main/a"], DRAIN)
    assert states(changed) == {"main/a": "DRAIN", "main/b": "ENABLED", "spare/a": "ENABLED"}
    assert (changed.name, changed.etag, [field.name for field, _ in changed.spec.ListFields()]) == (
        "vServices/web",
        "1",
        ["pools"],
    )
    assert states(service)["main/a"] == "ENABLED"
    assert changed.spec.pools[0].members[1] == service.spec.pools[0].members[1]


def test_draining_and_enabling_again_leaves_the_spec_as_it_was() -> None:
    service = web()
    drained = part.with_state(service, ["main/a", "spare/a"], DRAIN)
    assert part.with_state(drained, ["main/a", "spare/a"], ENABLED).spec.pools == service.spec.pools


@pytest.mark.parametrize("said", [ENABLED, UNSAID])
def test_what_is_enabled_already_is_not_changed_however_the_file_says_it(said: v_service_pb2.MemberState.ValueType) -> None:
    service = web()
    service.spec.pools[0].members[0].state = said
    assert part.with_state(service, ["main/a"], ENABLED).spec.pools == service.spec.pools


def test_pool_is_left_alone_by_its_last_member_that_serves() -> None:
    service = web()
    assert part.left_alone(service, {"main/a"}) == []
    assert part.left_alone(service, {"main/a", "main/b"}) == ["main"]
    assert part.left_alone(service, {"main/a", "spare/a"}) == ["spare"]
    observe(service, main_b=DOWN)
    assert part.left_alone(service, {"main/a"}) == ["main"]
    assert part.left_alone(service, {"main/b"}) == []
    service.spec.pools[0].members[0].state = DRAIN
    assert part.left_alone(service, {"main/a"}) == []


def test_where_no_member_serves_the_last_enabled_one_counts() -> None:
    service = web()
    observe(service, main_a=DOWN, main_b=DOWN)
    assert part.left_alone(service, {"main/a"}) == []
    service.spec.pools[0].members[1].state = DISABLED
    assert part.left_alone(service, {"main/a"}) == ["main"]


def test_state_is_in_effect_when_the_device_has_observed_the_generation() -> None:
    service = web()
    assert part.is_in_effect(service, ["main/a"], 1)
    assert not part.is_in_effect(service, ["main/a"], 2)
    service.status.ClearField("members")
    assert not part.is_in_effect(service, ["main/a"], 1)


def test_other_parts_do_not_hold_up_a_member_but_it_itself_does() -> None:
    service = web()
    observe(service, main_b=COMING, spare_a=REFUSED)
    service.status.state = PENDING
    assert part.is_in_effect(service, ["main/a"], 1)
    assert not part.is_in_effect(service, ["main/a", "main/b"], 1)
    assert not part.is_in_effect(service, ["spare/a"], 1)


def test_member_that_is_down_is_in_effect_all_the_same() -> None:
    service = web()
    observe(service, main_a=DOWN)
    assert part.is_in_effect(service, ["main/a"], 1)


def test_list_tells_protocol_vips_and_how_many_members_serve() -> None:
    service = web()
    service.spec.pools[0].members[0].state = DRAIN
    observe(service, main_b=DOWN)
    heads, row = click.unstyle(columns.table([service])).splitlines()
    assert heads.split() == ["NAME", "STATE", "PROTOCOL", "LISTENS", "ON", "FRONTENDS", "SERVING"]
    fronts = "dmz 203.0.113.10:80, office [2001:db8::10]:8000-8099"
    assert re.split(" {2,}", row) == ["web", "READY", "HTTP", fronts, "2/2", "1/3"]


def test_list_stays_readable_with_many_frontends() -> None:
    service = web()
    for number in range(62):
        service.spec.frontends.add(name=f"f{number}", route_table="routeTables/t", address="203.0.113.9", port=1000 + number)
    row = click.unstyle(columns.table([service])).splitlines()[1]
    assert "t 203.0.113.9:1000 and 61 more" in row
    assert len(row) < 130


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (23 * 1024**3, "23.0 GiB"),
        (5000 * 1024**5, "5,000.0 PiB"),
    ],
)
def test_bytes_have_units(count: int, text: str) -> None:
    assert statistics.size(count) == text


def counted() -> v_service_pb2.VServiceStatistics:
    told = v_service_pb2.VServiceStatistics(name="vServices/web")
    told.counted_since.FromJsonString("2026-11-24T03:00:00Z")
    front = told.frontends.add(name="dmz", denied_total=7, requests_total=1234567, request_errors_total=2)
    front.traffic.connections, front.traffic.connections_total = 12, 34567
    front.traffic.received_bytes_total, front.traffic.sent_bytes_total = 2048, 3 * 1024**3
    front.responses.successful_total, front.responses.server_error_total = 1234000, 5
    pool = told.pools.add(name="main", queued=4, connect_errors_total=3)
    pool.traffic.connections = 9
    one = told.members.add(name="main/a", connect_errors_total=2)
    one.traffic.connections, one.traffic.connections_total = 8, 1000
    one.responses.client_error_total = 11
    told.members.add(name="main/b").traffic.connections = 1
    return told


def lines(text: str, section: str) -> list[list[str]]:
    """The rows of one section, as words."""
    found = click.unstyle(text).partition(f"\n{section}:\n")[2]
    rows = []
    for line in found.splitlines():
        if not line.startswith("  "):
            break
        rows.append(line.split())
    return rows


def test_screen_has_every_part_with_its_state_and_figures() -> None:
    service = web()
    service.spec.pools[0].members[0].state = DRAIN
    observe(service, main_b=DOWN)
    text = statistics.screen(service, counted(), "")
    assert click.unstyle(text).startswith("vServices/web  READY  HTTP\n")
    assert "totals since 2026-11-24 03:00:00 UTC" in text
    figures = ["12", "34,567", "2.0", "KiB", "3.0", "GiB", "7"]
    assert lines(text, "frontends")[1] == ["dmz", "dmz", "203.0.113.10:80", "main", "READY", *figures]
    # The frontend that names no pool has the only one there is, or the first; it is not counted yet.
    assert lines(text, "frontends")[2] == ["office", "office", "[2001:db8::10]:8000-8099", "main", "READY", *"-----"]
    assert lines(text, "pools")[1] == ["main", "round", "robin", "0/2", "9", "0", "0", "B", "0", "B", "4", "3"]
    assert lines(text, "pools")[2][:4] == ["spare", "source", "hash", "1/1"]
    drained, down, unnamed = lines(text, "members")[1:]
    assert drained == ["main/a", "a", "10.0.0.5:8080", "1", "DRAIN", "READY", "8", "1,000", "0", "B", "0", "B", "2"]
    assert down[:6] == ["main/b", "b", "10.0.0.5:8080", "3", "ENABLED", "ERROR"]
    assert " ".join(down).endswith("0 does not accept connections")
    assert unnamed == ["spare/a", "a", "[fd00::5]:*", "1", "ENABLED", "READY", *"-----"]


def test_screen_of_http_has_requests_and_answers_by_class() -> None:
    rows = lines(statistics.screen(web(), counted(), ""), "requests and answers")
    assert rows[1] == ["frontend", "dmz", "1,234,567", "0", "1,234,000", "0", "0", "5", "2"]
    assert ["member", "main/a", "0", "0", "0", "11", "0"] in rows
    service = web()
    service.spec.protocol = v_service_pb2.PROTOCOL_TCP
    assert "requests and answers" not in statistics.screen(service, counted(), "")


def test_screen_says_what_is_not_as_wanted() -> None:
    service = web()
    good = {"type": "Programmed", "status": status_pb2.CONDITION_STATUS_TRUE, "reason": "OK"}
    service.status.conditions.add(**good)
    assert "not as wanted" not in statistics.screen(service, counted(), "")
    bad = {
        "type": "Healthy",
        "status": status_pb2.CONDITION_STATUS_FALSE,
        "reason": "MEMBER_DOWN",
        "message": "main/b: it is down",
    }
    service.status.conditions.add(**bad, service="proxy")
    rows = lines(statistics.screen(service, counted(), ""), "not as wanted")
    assert [" ".join(row) for row in rows[1:]] == ["Healthy proxy MEMBER_DOWN main/b: it is down"]


def test_without_statistics_the_rest_is_shown_and_why() -> None:
    text = statistics.screen(web(), None, "HAProxy does not answer")
    assert "nothing is counted at present: HAProxy does not answer" in text
    assert lines(text, "members")[1] == ["main/a", "a", "10.0.0.5:8080", "1", "ENABLED", "READY", *"-----"]


def test_figures_stand_below_each_other() -> None:
    shown = click.unstyle(columns.aligned([["NAME", "NOW"], ["a", "7"], ["b", click.style("1,000", fg="red")]], {"NOW"}))
    assert shown.splitlines() == ["NAME    NOW", "a         7", "b     1,000"]


def test_what_scripts_get_is_the_resource_as_get_prints_it_beside_all_figures() -> None:
    told = statistics.plain(web(), counted())
    assert told["vService"] == render.to_plain(web())
    front, pool, one = (told["statistics"][each][0] for each in ("frontends", "pools", "members"))
    assert (front["requestsTotal"], front["responses"]["successfulTotal"], front["deniedTotal"]) == (1234567, 1234000, 7)
    assert (pool["traffic"]["receivedBytesTotal"], one["queued"]) == (0, 0)
    assert "responses" not in told["statistics"]["members"][1]
    assert told["statistics"]["countedSince"] == "2026-11-24T03:00:00Z"
    assert statistics.plain(web(), None)["statistics"] is None
    assert json.loads(json.dumps(told)) == told
    assert yaml.safe_load(render.to_yaml([told])) == told


def test_connections_are_those_of_the_chosen_members() -> None:
    assert statistics.connections(counted(), ["main/a"]) == 8
    assert statistics.connections(counted(), ["main/a", "main/b"]) == 9
    assert statistics.connections(counted(), ["spare/a"]) == 0


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


@pytest.mark.parametrize(
    "argv",
    [
        ["service", "drain", "web"],
        ["service", "drain", "web", "a", "--until-idle", "--no-wait"],
        ["service", "enable", "web", "a", "--until-idle"],
        ["service", "show"],
    ],
)
def test_wrong_usage_exits_with_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert root.run(argv) == exits.USAGE
    assert "Error: " in capsys.readouterr().err


def test_completion_of_names_is_silent_without_a_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("CROSSNS_SERVER", f"unix:{tmp_path}/nobody.sock")
    context = click.Context(root.cli)
    context.params = {"v_service": "web"}
    assert completion.services(context, cast("click.Parameter", None), "") == []
    assert completion.members(context, cast("click.Parameter", None), "") == []


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
