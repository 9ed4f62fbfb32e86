"""`crossns service` without a device: which members are meant, what is sent, and what is shown."""

import json
import re
from typing import Any, cast

import click
import pytest
import yaml

from crossns import errors
from crossns.cli import columns, completion, exits, part, render, root, statistics
from crossns.v1 import status_pb2, v_service_pb2
from tests.unit.cli_sample import COMING, DISABLED, DOWN, DRAIN, ENABLED, PENDING, REFUSED, UNSAID, observe, states, web


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
