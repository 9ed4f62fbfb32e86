"""What is said of each vService, its frontends and its members."""

import dataclasses
import ipaddress

import pytest

from crossns import errors
from crossns.resource import Status
from crossns.v1 import status_pb2, v_service_pb2
from services.proxy import model, plan
from tests.unit.proxy import sample
from tests.unit.proxy.engine import Engine

PENDING, READY, DEGRADED, ERROR = (
    status_pb2.STATE_PENDING,
    status_pb2.STATE_READY,
    status_pb2.STATE_DEGRADED,
    status_pb2.STATE_ERROR,
)
REFUSED = errors.PermanentError("ENGINE_REFUSED", "haproxy refused the configuration: no")
SILENT = errors.EngineUnavailable("ENGINE_UNAVAILABLE", "HAProxy does not answer")


def desired(*services: model.VService, tables: dict[str, str] | None = None, leaving: tuple[str, ...] = ()) -> model.Desired:
    return model.Desired(services, sample.TABLES if tables is None else tables, frozenset(leaving))


def reported(
    wanted: model.Desired,
    observed: plan.Observed,
    failure: errors.CrossnsError | None = None,
    previous: dict[str, Status] | None = None,
    what: str = model.UNIT,
) -> v_service_pb2.VServiceStatus:
    """Of the first vService; `failure` is that of an operation for `what`."""
    failures = {what: failure} if failure is not None else {}
    status = plan.report(wanted, observed, failures, previous or {})[wanted.services[0].name]
    assert isinstance(status, v_service_pb2.VServiceStatus)
    return status


def served(wanted: model.Desired) -> plan.Observed:
    engine = Engine()
    engine.settle(wanted)
    return engine.observed


def before(wanted: model.Desired, observed: plan.Observed) -> dict[str, Status]:
    """What was said of it last."""
    return {name: status for name, status in plan.report(wanted, observed, {}, {}).items() if status is not None}


def with_members(*members: model.Member, generation: int = 1) -> model.VService:
    vservice = sample.vservice(generation=generation)
    return dataclasses.replace(vservice, pools=(dataclasses.replace(vservice.pools[0], members=members),))


def member(name: str, host: int, **fields: object) -> model.Member:
    made = model.Member(name, "routeTables/tenant-a", ipaddress.ip_address(f"10.0.0.{host}"), 8080)
    return dataclasses.replace(made, **fields)  # type: ignore[arg-type]


def target(host: int) -> model.Target:
    return model.Target("tenant-a.21", ipaddress.ip_address(f"10.0.0.{host}"), 8080)


def states(status: v_service_pb2.VServiceStatus) -> dict[str, tuple[status_pb2.State.ValueType, str]]:
    return {each.name: (each.state, each.reason) for each in (*status.frontends, *status.members)}


def conditions(status: v_service_pb2.VServiceStatus) -> dict[str, str]:
    """By type the reason, where it is not true."""
    for each in status.conditions:
        assert (each.status == status_pb2.CONDITION_STATUS_TRUE) == (each.reason == "OK")
    return {each.type: each.reason for each in status.conditions}


def two_frontends() -> model.VService:
    """A second frontend in tenant-b, and a second member in tenant-b."""
    vservice = sample.vservice()
    address = ipaddress.ip_address("203.0.113.10")
    other = model.Frontend("other", "routeTables/tenant-b", address, 80, "main", 80)
    member = model.Member("b1", "routeTables/tenant-b", address, 8080)
    pool = dataclasses.replace(vservice.pools[0], members=(*vservice.pools[0].members, member))
    return dataclasses.replace(vservice, frontends=(*vservice.frontends, other), pools=(pool,))


def test_what_is_served_is_ready_and_says_who_saw_it() -> None:
    wanted = desired(sample.vservice(generation=4))
    status = reported(wanted, served(wanted))
    assert (status.state, status.observed_generation) == (READY, 4)
    assert [(each.name, each.state, each.reason, each.service, each.observed_generation) for each in status.frontends] == [
        ("fe", READY, "OK", "proxy", 4)
    ]
    assert [(each.name, each.state, each.reason) for each in status.members] == [("main/a1", READY, "OK")]
    assert conditions(status) == {"Programmed": "OK", "Healthy": "OK"}
    assert {each.service for each in status.conditions} == {"proxy"}


def test_what_has_not_been_taken_yet_is_pending() -> None:
    status = reported(desired(sample.vservice()), Engine().observed)
    assert status.state == PENDING
    assert {(each.state, each.reason) for each in (*status.frontends, *status.members)} == {(PENDING, "IN_PROGRESS")}
    assert status.conditions[0].reason == "IN_PROGRESS"


def test_parts_of_a_table_that_is_not_there_wait_for_it() -> None:
    wanted = desired(two_frontends(), tables={"routeTables/dmz": "dmz.11", "routeTables/tenant-a": "tenant-a.21"})
    status = reported(wanted, served(wanted))
    assert [(each.name, each.state, each.reason) for each in (*status.frontends, *status.members)] == [
        ("fe", READY, "OK"),
        ("other", PENDING, "ROUTE_TABLE_ABSENT"),
        ("main/a1", READY, "OK"),
        ("main/b1", PENDING, "ROUTE_TABLE_ABSENT"),
    ]
    assert status.frontends[1].message == "routeTables/tenant-b has no namespace yet"
    assert status.state == PENDING
    assert status.conditions[0].message.startswith("other: routeTables/tenant-b")


def test_a_table_that_engines_cannot_enter_is_not_there() -> None:
    wanted = desired(sample.vservice())
    observed = dataclasses.replace(served(wanted), namespaces=frozenset({"tenant-a.21"}))
    assert reported(wanted, observed).frontends[0].reason == "ROUTE_TABLE_ABSENT"


def test_a_frontend_that_was_refused_says_why_and_the_rest_serves() -> None:
    wanted = desired(two_frontends())
    held = dataclasses.replace(sample.listener(namespace="tenant-b.22"), section="vs.web.fe.other")
    engine = Engine(held=frozenset({held}))
    engine.settle(wanted)
    status = reported(wanted, engine.observed)
    assert [(each.name, each.state, each.reason) for each in status.frontends] == [
        ("fe", READY, "OK"),
        ("other", ERROR, "ENGINE_REFUSED"),
    ]
    assert "Address already in use" in status.frontends[1].message
    assert status.state == DEGRADED
    assert status.conditions[0].reason == "ENGINE_REFUSED"


def test_a_vservice_without_a_way_through_is_an_error() -> None:
    wanted = desired(sample.vservice())
    engine = Engine(held=frozenset({sample.listener()}))
    engine.settle(wanted)
    assert reported(wanted, engine.observed).state == ERROR


def test_a_refused_member_is_named_by_its_pool() -> None:
    wanted = desired(sample.vservice())
    engine = Engine(faulty=frozenset({sample.server()}))
    engine.settle(wanted)
    status = reported(wanted, engine.observed)
    assert [(each.name, each.state, each.reason) for each in status.members] == [("main/a1", ERROR, "ENGINE_REFUSED")]
    assert status.state == ERROR


@pytest.mark.parametrize(("failure", "state"), [(REFUSED, ERROR), (SILENT, PENDING)])
def test_a_failure_is_told_of_what_it_keeps_away(failure: errors.CrossnsError, state: status_pb2.State.ValueType) -> None:
    status = reported(desired(sample.vservice()), Engine().observed, failure)
    assert {(each.state, each.reason, each.message) for each in (*status.frontends, *status.members)} == {
        (state, failure.reason, failure.message)
    }
    assert status.state == state


def test_a_failure_is_no_news_of_what_is_served() -> None:
    one = desired(sample.vservice("a"))
    observed = served(one)
    both = desired(sample.vservice("a"), sample.vservice("b", port=81))
    after = plan.report(both, observed, {model.UNIT: REFUSED}, before(one, observed))
    states = {name: status.state for name, status in after.items() if status is not None}
    assert states == {"vServices/a": READY, "vServices/b": ERROR}


def test_a_new_generation_is_not_ready_before_it_is_taken() -> None:
    one = desired(sample.vservice(generation=1))
    observed = served(one)
    changed = desired(sample.vservice(generation=2), sample.vservice("b", port=81))
    status = reported(changed, observed, REFUSED, before(one, observed))
    assert states(status) == {"fe": (ERROR, "ENGINE_REFUSED"), "main/a1": (ERROR, "ENGINE_REFUSED")}
    assert status.state == ERROR


def test_what_stopped_being_served_is_not_ready_because_it_once_was() -> None:
    wanted = desired(sample.vservice())
    assert reported(wanted, Engine().observed, SILENT, before(wanted, served(wanted))).state == PENDING


def test_a_deleted_vservice_has_left_when_the_engine_runs_without_it() -> None:
    both = desired(sample.vservice("a"), sample.vservice("b", port=81))
    one = desired(sample.vservice("a"), leaving=("vServices/b",))
    observed = served(both)
    assert "vServices/b" not in plan.report(one, observed, {}, {})
    assert plan.report(one, served(one), {}, {})["vServices/b"] is None


def test_the_last_deleted_vservice_has_left_when_the_engine_is_stopped() -> None:
    none = desired(leaving=("vServices/a",))
    assert plan.report(none, served(desired(sample.vservice("a"))), {}, {}) == {}
    assert plan.report(none, Engine().observed, {}, {}) == {"vServices/a": None}


def test_a_deleted_vservice_that_the_engine_does_not_let_go_says_so() -> None:
    both = desired(sample.vservice("a"), sample.vservice("b", port=81))
    observed = served(both)
    one = desired(sample.vservice("a"), leaving=("vServices/b",))
    status = plan.report(one, observed, {model.UNIT: SILENT}, before(both, observed))["vServices/b"]
    assert isinstance(status, v_service_pb2.VServiceStatus)
    assert [(each.type, each.reason) for each in status.conditions] == [("Removed", "ENGINE_UNAVAILABLE")]
    assert [each.name for each in status.frontends] == ["fe"]


def test_a_member_that_is_down_is_an_error_of_its_own_health_and_not_of_haproxy() -> None:
    wanted = desired(with_members(member("a1", 5), member("b1", 6)))
    engine = Engine()
    engine.observed = dataclasses.replace(engine.observed, down={target(5): "10.0.0.5:8080 in tenant-a: refused"})
    engine.settle(wanted)
    status = reported(wanted, engine.observed)
    assert states(status) == {"fe": (READY, "OK"), "main/a1": (ERROR, "MEMBER_DOWN"), "main/b1": (READY, "OK")}
    assert status.members[0].message == "10.0.0.5:8080 in tenant-a: refused"
    assert conditions(status) == {"Programmed": "OK", "Healthy": "MEMBER_DOWN"}
    assert status.conditions[1].message == "main/a1: 10.0.0.5:8080 in tenant-a: refused"
    assert status.state == DEGRADED


def test_where_all_members_are_down_no_way_leads_through() -> None:
    wanted = desired(with_members(member("a1", 5), member("b1", 6)))
    engine = Engine()
    engine.observed = dataclasses.replace(engine.observed, down={target(5): "no", target(6): "no"})
    engine.settle(wanted)
    status = reported(wanted, engine.observed)
    assert (status.state, conditions(status)) == (ERROR, {"Programmed": "OK", "Healthy": "MEMBER_DOWN"})
    assert status.frontends[0].state == READY


@pytest.mark.parametrize(("state", "reason"), [("enabled", "MEMBER_DOWN"), ("drain", "MEMBER_DOWN"), ("disabled", "OK")])
def test_of_a_disabled_member_nobody_wants_to_know_whether_it_is_down(state: str, reason: str) -> None:
    wanted = desired(with_members(member("a1", 5, state=state), member("b1", 6)))
    engine = Engine()
    engine.observed = dataclasses.replace(engine.observed, down={target(5): "no"})
    engine.settle(wanted)
    assert reported(wanted, engine.observed).members[0].reason == reason


@pytest.mark.parametrize("state", ["enabled", "drain", "disabled"])
def test_a_member_is_ready_when_it_is_as_it_was_asked_to_be(state: str) -> None:
    wanted = desired(with_members(member("a1", 5, state=state, weight=3), member("b1", 6)))
    observed = served(desired(with_members(member("a1", 7), member("b1", 6))))
    assert reported(wanted, observed).members[0].reason == "IN_PROGRESS"
    assert reported(wanted, observed).members[1].reason == "OK"
    assert reported(wanted, served(wanted)).state == READY


def test_a_member_on_a_spare_line_is_as_good_as_any() -> None:
    engine = Engine()
    engine.settle(desired(with_members(member("a1", 5))))
    wanted = desired(with_members(member("a1", 5), member("b1", 6)))
    assert reported(wanted, engine.observed).members[1].reason == "IN_PROGRESS"
    engine.settle(wanted)
    assert reported(wanted, engine.observed).state == READY


def test_a_part_that_is_not_there_yet_is_not_called_down() -> None:
    wanted = desired(with_members(member("a1", 5), member("b1", 6)))
    observed = dataclasses.replace(Engine().observed, down={target(5): "no"})
    status = reported(wanted, observed)
    assert status.members[0].reason == "IN_PROGRESS"
    assert conditions(status) == {"Programmed": "IN_PROGRESS", "Healthy": "OK"}


def test_what_a_process_before_said_of_a_member_holds_until_it_is_known_better() -> None:
    wanted = desired(with_members(member("a1", 5), member("b1", 6)))
    engine = Engine()
    engine.observed = dataclasses.replace(engine.observed, down={target(5): "no answer"})
    engine.settle(wanted)
    previous = before(wanted, engine.observed)
    engine.observed = dataclasses.replace(engine.observed, down={}, unknown=frozenset({target(5), target(6)}))
    engine.settle(wanted)
    status = reported(wanted, engine.observed, previous=previous)
    assert states(status) == {"fe": (READY, "OK"), "main/a1": (ERROR, "MEMBER_DOWN"), "main/b1": (READY, "OK")}
    assert status.members[0].message == "no answer"
    engine.observed = dataclasses.replace(engine.observed, unknown=frozenset({target(6)}))
    engine.settle(wanted)
    assert reported(wanted, engine.observed, previous=previous).state == READY


def test_a_frontend_of_which_a_port_is_closed_is_not_ready() -> None:
    (frontend,) = sample.vservice().frontends
    wanted = desired(dataclasses.replace(sample.vservice(), frontends=(dataclasses.replace(frontend, end_port=82),)))
    observed = served(wanted)
    assert reported(wanted, observed).frontends[0].state == READY
    closed = dataclasses.replace(observed, listeners=observed.listeners - {sample.listener(port=81)})
    assert states(reported(wanted, closed, previous=before(wanted, observed)))["fe"] == (PENDING, "IN_PROGRESS")


@pytest.mark.parametrize(("failure", "state"), [(REFUSED, ERROR), (SILENT, PENDING)])
def test_a_change_that_fails_is_told_of_that_vservice_and_member_alone(
    failure: errors.CrossnsError, state: status_pb2.State.ValueType
) -> None:
    engine = Engine()
    engine.settle(desired(with_members(member("a1", 5), member("b1", 6)), sample.vservice("other", port=81)))
    changed = desired(with_members(member("a1", 5, weight=9), member("b1", 6), generation=2), sample.vservice("other", port=81))
    status = reported(changed, engine.observed, failure, what="vServices/web")
    assert states(status) == {"fe": (READY, "OK"), "main/a1": (state, failure.reason), "main/b1": (READY, "OK")}
    assert status.members[0].message == failure.message
    others = plan.report(changed, engine.observed, {"vServices/web": failure}, {})["vServices/other"]
    assert isinstance(others, v_service_pb2.VServiceStatus)
    assert others.state == READY


def test_a_file_that_is_not_written_yet_takes_nothing_from_what_runs() -> None:
    wanted = desired(sample.vservice())
    observed = dataclasses.replace(served(wanted), digest="0" * 64)
    assert reported(wanted, observed).state == READY
    assert reported(wanted, observed, SILENT).state == READY


def test_what_was_ready_stays_so_while_another_vservice_waits_for_a_reload() -> None:
    """Its members too, on whichever lines they are; but not one that is not there any more."""
    engine = Engine()
    engine.settle(desired(with_members(member("a1", 5))))
    one = desired(with_members(member("a1", 5), member("b1", 6)))
    engine.settle(one)
    previous = before(one, engine.observed)
    both = desired(*one.services, sample.vservice("other", port=81))
    assert reported(both, engine.observed, REFUSED, previous).state == READY
    lost = {"vs.web.po.main": {"a1.tenant-a.21": engine.observed.servers["vs.web.po.main"]["a1.tenant-a.21"]}}
    status = reported(both, dataclasses.replace(engine.observed, servers=lost), REFUSED, previous)
    assert states(status) == {"fe": (READY, "OK"), "main/a1": (READY, "OK"), "main/b1": (ERROR, "ENGINE_REFUSED")}


def test_a_new_generation_is_not_told_what_was_said_of_the_one_before() -> None:
    engine = Engine(held=frozenset({sample.listener()}))
    engine.settle(desired(sample.vservice()))
    assert reported(desired(sample.vservice()), engine.observed).frontends[0].reason == "ENGINE_REFUSED"
    assert reported(desired(sample.vservice(generation=2)), engine.observed).frontends[0].reason == "IN_PROGRESS"


def test_errors_are_named_before_what_is_still_to_come() -> None:
    wanted = desired(two_frontends(), tables={"routeTables/dmz": "dmz.11", "routeTables/tenant-a": "tenant-a.21"})
    engine = Engine(faulty=frozenset({sample.server()}))
    engine.settle(wanted)
    status = reported(wanted, engine.observed)
    assert conditions(status) == {"Programmed": "ENGINE_REFUSED", "Healthy": "OK"}
    assert status.conditions[0].message.startswith("main/a1: left out")


def test_a_vservice_that_another_release_took_says_so_and_the_others_are_ready() -> None:
    invalid = model.Invalid("vServices/old", 7, "INVALID_FIELD", "spec.pools: is required")
    wanted = dataclasses.replace(desired(sample.vservice()), invalid=(invalid,))
    report = plan.report(wanted, served(wanted), {}, {})
    old, web = report["vServices/old"], report["vServices/web"]
    assert isinstance(old, v_service_pb2.VServiceStatus)
    assert isinstance(web, v_service_pb2.VServiceStatus)
    assert (old.state, old.observed_generation, conditions(old)) == (ERROR, 7, {"Programmed": "INVALID_FIELD"})
    assert web.state == READY


def test_what_is_said_again_is_what_would_be_said_anew() -> None:
    """Of the very same vService, whatever became of it meanwhile."""
    wanted = desired(with_members(member("a1", 5), member("b1", 6)))
    seen = served(wanted)
    silent = dataclasses.replace(seen, down={target(5): "does not answer"})
    elsewhere = dataclasses.replace(seen, listeners=frozenset())
    for first in (seen, silent, elsewhere, plan.Observed(sample.LIMITS)):
        for second in (seen, silent, elsewhere, plan.Observed(sample.LIMITS)):
            reported(wanted, first)
            fresh = desired(*map(dataclasses.replace, wanted.services))
            assert reported(wanted, second) == reported(fresh, second)
            assert reported(wanted, second, SILENT) == reported(fresh, second, SILENT)
