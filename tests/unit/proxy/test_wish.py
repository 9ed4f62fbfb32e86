"""How each server of HAProxy is to be: weights, states, who rests because he is down, and what of a text is structure."""

import dataclasses
import ipaddress
from collections.abc import Mapping

import pytest

from services.proxy import model, plan, render
from services.proxy.plan import wish
from tests.unit.proxy import sample
from tests.unit.proxy.engine import Engine

SECTION = "vs.web.po.main"


def member(name: str, host: int, **fields: object) -> model.Member:
    made = model.Member(name, "routeTables/tenant-a", ipaddress.ip_address(f"10.0.0.{host}"), 8080)
    return dataclasses.replace(made, **fields)  # type: ignore[arg-type]


def desired(*members: model.Member, **fields: object) -> model.Desired:
    """A vService with these members; `fields` are its pool's."""
    pool = dataclasses.replace(model.Pool("main", members), **fields)  # type: ignore[arg-type]
    return model.Desired((dataclasses.replace(sample.vservice(), pools=(pool,)),), sample.TABLES)


def observed(*down: str, namespaces: frozenset[str] | None = None) -> plan.Observed:
    """Nothing runs; `down` are the hosts that do not answer."""
    targets = {model.Target("tenant-a.21", ipaddress.ip_address(host), 8080): "no answer" for host in down}
    known = frozenset(sample.TABLES.values()) if namespaces is None else namespaces
    return plan.Observed(sample.LIMITS, namespaces=known, down=targets)


def servers(wanted: model.Desired, seen: plan.Observed) -> Mapping[str, render.Server]:
    """Those that are somebody's, by member."""
    made = wish.wish(wanted, seen)
    return {member.name: made.servers[line] for line, member in made.owners.items()}


@pytest.mark.parametrize(
    ("changed", "weight", "enabled"),
    [
        (member("a1", 1), 1, True),
        (member("a1", 1, weight=256), 256, True),
        (member("a1", 1, weight=9, state="drain"), 0, True),
        (member("a1", 1, weight=9, state="disabled"), 9, False),
    ],
)
def test_a_drained_member_has_no_weight_and_a_disabled_one_is_out(changed: model.Member, weight: int, enabled: bool) -> None:
    made = servers(desired(changed, member("b1", 2)), observed())
    assert made == {"a1": render.Server("10.0.0.1:8080", weight, enabled), "b1": render.Server("10.0.0.2:8080", enabled=True)}


def test_a_member_that_is_down_is_out_until_it_is_up() -> None:
    wanted = desired(member("a1", 1, weight=3), member("b1", 2))
    assert [server.enabled for server in servers(wanted, observed("10.0.0.1")).values()] == [False, True]
    assert servers(wanted, observed("10.0.0.1"))["a1"].weight == 3
    assert [server.enabled for server in servers(wanted, observed()).values()] == [True, True]


def test_where_all_are_down_none_is_taken_out() -> None:
    """What is known then is little: it may be the checks that are wrong."""
    wanted = desired(member("a1", 1), member("b1", 2))
    assert [server.enabled for server in servers(wanted, observed("10.0.0.1", "10.0.0.2")).values()] == [True, True]


@pytest.mark.parametrize("state", ["drain", "disabled"])
def test_who_takes_nothing_new_anyway_does_not_count_as_left(state: str) -> None:
    wanted = desired(member("a1", 1), member("b1", 2, state=state))
    assert servers(wanted, observed("10.0.0.1"))["a1"].enabled


def test_who_has_no_namespace_does_not_count_as_left() -> None:
    wanted = desired(member("a1", 1), member("b1", 2, table="routeTables/tenant-b"))
    seen = observed("10.0.0.1", namespaces=frozenset({"dmz.11", "tenant-a.21"}))
    assert servers(wanted, seen) == {"a1": render.Server("10.0.0.1:8080", enabled=True)}


def test_who_is_refused_does_not_count_as_left() -> None:
    wanted = desired(member("a1", 1), member("b1", 2))
    refused = {render.Part(SECTION, "tenant-a.21", "10.0.0.2:8080"): plan.Refusal("no", 1)}
    seen = dataclasses.replace(observed("10.0.0.1"), refused=refused)
    assert servers(wanted, seen) == {"a1": render.Server("10.0.0.1:8080", enabled=True)}


def test_a_drained_member_that_is_down_stays_in_for_who_he_has() -> None:
    wanted = desired(member("a1", 1, state="drain"), member("b1", 2))
    assert servers(wanted, observed("10.0.0.1"))["a1"] == render.Server("10.0.0.1:8080", 0, enabled=True)


def test_the_same_address_in_another_table_is_another_one() -> None:
    wanted = desired(member("a1", 1), member("b1", 1, table="routeTables/tenant-b"))
    assert [server.enabled for server in servers(wanted, observed("10.0.0.1")).values()] == [False, True]


def test_a_member_that_goes_down_and_comes_back_costs_no_reload() -> None:
    engine = Engine()
    wanted = desired(member("a1", 1), member("b1", 2))
    engine.settle(wanted)
    for down in (observed("10.0.0.1").down, {}, observed("10.0.0.1", "10.0.0.2").down):
        engine.observed = dataclasses.replace(engine.observed, down=down)
        engine.settle(wanted)
    assert len(engine.starts) == 1


def test_who_was_out_when_the_proxy_came_back_is_out_until_it_knows_better() -> None:
    """And who was in stays in: a restart of the proxy changes nothing."""
    engine = Engine()
    wanted = desired(member("a1", 1), member("b1", 2))
    engine.observed = dataclasses.replace(engine.observed, down=observed("10.0.0.1").down)
    engine.settle(wanted)
    everybody = frozenset(observed("10.0.0.1", "10.0.0.2").down)
    engine.observed = dataclasses.replace(engine.observed, down={}, unknown=everybody)
    assert plan.plan(wanted, engine.observed) == ()
    engine.observed = dataclasses.replace(engine.observed, unknown=frozenset())
    (change, _) = plan.plan(wanted, engine.observed)
    assert isinstance(change, plan.SetServer)
    assert (change.name, change.wanted.enabled) == ("a1.tenant-a.21", True)


def test_where_no_haproxy_runs_nobody_was_out() -> None:
    wanted = desired(member("a1", 1), member("b1", 2))
    seen = dataclasses.replace(observed(), unknown=frozenset(observed("10.0.0.1", "10.0.0.2").down))
    assert [server.enabled for server in servers(wanted, seen).values()] == [True, True]


@pytest.mark.parametrize(
    "changed",
    [
        member("a1", 1, weight=2),
        member("a1", 1, state="drain"),
        member("a1", 1, state="disabled"),
        member("a1", 1, max_connections=5),
        member("a1", 9),
        member("a1", 1, port=9),
        member("a1", 1, address=ipaddress.ip_address("fd00::1")),
    ],
)
def test_what_a_running_haproxy_takes_is_no_structure(changed: model.Member) -> None:
    before, after = wish.wish(desired(member("a1", 1)), observed()), wish.wish(desired(changed), observed())
    assert before.config.structure == after.config.structure
    assert before.config.text != after.config.text


@pytest.mark.parametrize(
    "other",
    [
        desired(member("a1", 1, port=0)),
        desired(member("a2", 1)),
        desired(member("a1", 1, table="routeTables/tenant-b")),
        desired(member("a1", 1), member("b1", 2)),
        desired(member("a1", 1), algorithm="random"),
        desired(member("a1", 1), send_proxy=1),
        desired(member("a1", 1), send_proxy=2),
        model.Desired(desired(member("a1", 1)).services, {**sample.TABLES, "routeTables/dmz": "dmz.12"}),
    ],
)
def test_what_takes_a_reload_is_structure(other: model.Desired) -> None:
    seen = observed(namespaces=frozenset({*sample.TABLES.values(), "dmz.12"}))
    assert wish.wish(other, seen).config.structure != wish.wish(desired(member("a1", 1)), seen).config.structure


def test_where_members_at_the_port_of_arrival_are_is_structure() -> None:
    before, after = desired(member("a1", 1, port=0)), desired(member("a1", 2, port=0))
    assert wish.wish(before, observed()).config.structure != wish.wish(after, observed()).config.structure


@pytest.mark.parametrize(
    "fields",
    [
        {"timeouts": model.Timeouts(connect_ms=7)},
        {"timeouts": model.Timeouts(client_idle_ms=7)},
        {"access_log": True},
        {"protocol": "http"},
        {"name": "vServices/other"},
    ],
)
def test_what_else_a_vservice_says_is_structure(fields: dict[str, object]) -> None:
    (before,) = desired(member("a1", 1)).services
    after = dataclasses.replace(before, **fields)  # type: ignore[arg-type]
    made = [wish.wish(model.Desired((each,), sample.TABLES), observed()).config.structure for each in (before, after)]
    assert made[0] != made[1]


def test_the_text_says_which_structure_it_has() -> None:
    config = wish.wish(desired(member("a1", 1)), observed()).config
    assert f"    description {config.structure}\n" in config.text
    assert repr(config) == f"Config(structure={config.structure!r}, {len(config.text)} characters)"


def test_lines_are_kept_while_the_structure_can_stay() -> None:
    engine = Engine()
    engine.settle(desired(member("a1", 1), member("b1", 2)))
    made = wish.wish(desired(member("a1", 1), member("c1", 3)), engine.observed)
    assert made.config.structure == engine.observed.structure
    assert made.lines == {(SECTION, "a1"): "a1.tenant-a.21", (SECTION, "c1"): "_1.tenant-a.21"}
    assert made.servers[SECTION, "b1.tenant-a.21"] == render.Server()


def test_lines_of_a_namespace_that_is_gone_are_not_kept() -> None:
    """HAProxy would not start with them, whosever they are."""
    engine = Engine()
    engine.settle(desired(member("a1", 1), member("b1", 1, table="routeTables/tenant-b")))
    engine.settle(desired(member("a1", 1)))
    assert "namespace tenant-b.22" in wish.wish(desired(member("a1", 1)), engine.observed).config.text
    engine.enter(frozenset({"dmz.11", "tenant-a.21"}))
    assert "tenant-b" not in wish.wish(desired(member("a1", 1)), engine.observed).config.text


def _circumstances() -> list[tuple[Mapping[str, str], plan.Observed]]:
    """Each differs from the first in one of all the things on which a vService's piece may depend."""
    tables = {**sample.TABLES, "routeTables/tenant-a": "tenant-a.77"}
    running = Engine()
    running.settle(desired(member("a1", 1), member("b1", 2)))
    seen = running.observed
    part = render.Part(SECTION, "tenant-a.21", "10.0.0.1:8080")
    target = model.Target("tenant-a.21", ipaddress.ip_address("10.0.0.1"), 8080)
    line, known = seen.servers[SECTION]["a1.tenant-a.21"], seen.servers[SECTION]
    out = dataclasses.replace(line, server=dataclasses.replace(line.server, enabled=False))
    without = dataclasses.replace(seen, servers={SECTION: {**known, "a1.tenant-a.21": out}})
    return [
        (sample.TABLES, seen),
        (tables, dataclasses.replace(seen, namespaces=frozenset(tables.values()))),
        (sample.TABLES, dataclasses.replace(seen, refused={part: plan.Refusal("in use", sample.vservice().generation)})),
        (sample.TABLES, dataclasses.replace(seen, down={target: "no answer"})),
        (sample.TABLES, without),
        (sample.TABLES, dataclasses.replace(without, unknown=frozenset({target}))),
        (sample.TABLES, dataclasses.replace(seen, servers={})),
    ]


def test_what_is_remembered_is_what_would_be_made() -> None:
    (service,) = desired(member("a1", 1), member("b1", 2)).services
    made = []
    for before in _circumstances():
        for tables, seen in (before, *_circumstances()):
            remembered = wish.wish(model.Desired((service,), tables), seen)
            assert remembered == wish.wish(model.Desired((dataclasses.replace(service),), tables), seen)
            made.append((remembered.config.text, tuple(remembered.servers.items())))
    assert len(set(made)) == 4


def test_what_is_as_it_was_is_not_made_anew() -> None:
    (service,) = desired(member("a1", 1)).services
    before, other = wish.wish(model.Desired((service,), sample.TABLES), observed()), observed()
    after = wish.wish(model.Desired((service,), sample.TABLES), other)
    assert after.owners is not before.owners
    assert list(map(id, after.servers.values())) == list(map(id, before.servers.values()))
