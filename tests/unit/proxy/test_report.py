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
) -> v_service_pb2.VServiceStatus:
    failures = {model.UNIT: failure} if failure is not None else {}
    status = plan.report(wanted, observed, failures, previous or {})[wanted.services[0].name]
    assert isinstance(status, v_service_pb2.VServiceStatus)
    return status


def served(wanted: model.Desired) -> plan.Observed:
    engine = Engine()
    engine.settle(wanted)
    return engine.observed


def two_frontends() -> model.VService:
    """A second frontend in tenant-b, and a second member in tenant-b."""
    vservice = sample.vservice()
    address = ipaddress.ip_address("203.0.113.10")
    other = model.Frontend("other", "routeTables/tenant-b", address, 80, "main")
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
    (condition,) = status.conditions
    assert (condition.type, condition.status, condition.service) == ("Programmed", status_pb2.CONDITION_STATUS_TRUE, "proxy")


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
    assert "cannot open a listener" in status.frontends[1].message
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
    before = desired(sample.vservice("a"))
    observed = served(before)
    previous = dict(plan.report(before, observed, {}, {}))
    after = plan.report(desired(sample.vservice("a"), sample.vservice("b", port=81)), observed, {model.UNIT: REFUSED}, previous)  # type: ignore[arg-type]
    states = {name: status.state for name, status in after.items() if status is not None}
    assert states == {"vServices/a": READY, "vServices/b": ERROR}


def test_a_new_generation_is_not_ready_before_it_is_taken() -> None:
    before = desired(sample.vservice(generation=1))
    observed = served(before)
    previous = plan.report(before, observed, {}, {})
    changed = desired(sample.vservice(generation=2), sample.vservice("b", port=81))
    assert reported(changed, observed, REFUSED, dict(previous)).state == ERROR  # type: ignore[arg-type]


def test_what_stopped_being_served_is_not_ready_because_it_once_was() -> None:
    wanted = desired(sample.vservice())
    previous = plan.report(wanted, served(wanted), {}, {})
    assert reported(wanted, Engine().observed, SILENT, dict(previous)).state == PENDING  # type: ignore[arg-type]


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
    previous = dict(plan.report(both, observed, {}, {}))
    one = desired(sample.vservice("a"), leaving=("vServices/b",))
    status = plan.report(one, observed, {model.UNIT: SILENT}, previous)["vServices/b"]  # type: ignore[arg-type]
    assert isinstance(status, v_service_pb2.VServiceStatus)
    assert [(each.type, each.reason) for each in status.conditions] == [("Removed", "ENGINE_UNAVAILABLE")]
    assert [each.name for each in status.frontends] == ["fe"]
