"""When waiting is over, and what is said as long as it is not."""

import pytest

from crossns import store
from crossns.resource import Status
from crossns.v1 import config_pb2, route_table_pb2, status_pb2, v_service_pb2
from gateway.config.progress import Goal, progress

READY, PENDING, ERROR = status_pb2.STATE_READY, status_pb2.STATE_PENDING, status_pb2.STATE_ERROR
DEGRADED = status_pb2.STATE_DEGRADED
FALSE, UNKNOWN = status_pb2.CONDITION_STATUS_FALSE, status_pb2.CONDITION_STATUS_UNKNOWN


def _entry(generation: int, *, deleted: bool = False, created: int = 5) -> store.Entry:
    desired = v_service_pb2.VService(name="vServices/v", generation=generation)
    if deleted:
        desired.delete_time.FromSeconds(1)
    return store.Entry("key", desired.SerializeToString(), created, 9)


def _part(generation: int, state: status_pb2.State.ValueType = READY) -> v_service_pb2.VServiceStatus:
    condition = status_pb2.Condition(type="Programmed", status=status_pb2.CONDITION_STATUS_FALSE, reason="ENGINE_REFUSED")
    good = status_pb2.Condition(type="Fine", status=status_pb2.CONDITION_STATUS_TRUE, reason="OK")
    conditions = [good] if state == READY else [good, condition]
    return v_service_pb2.VServiceStatus(observed_generation=generation, state=state, conditions=conditions)


def _told(response: config_pb2.WaitResponse | None) -> config_pb2.WaitResponse:
    assert response is not None
    return response


def _wait(entry: store.Entry, parts: dict[str, Status], generation: int = 2) -> config_pb2.WaitResponse:
    return _told(progress(Goal("vServices/v", generation, deleted=False, incarnation=5), entry, parts))


def _reasons(response: config_pb2.WaitResponse) -> list[tuple[str, str]]:
    return [(each.service, each.reason) for each in response.conditions]


def test_done_when_every_observer_is_ready_with_the_generation() -> None:
    response = _wait(_entry(2), {"proxy": _part(2), "nsmanager": _part(2)})
    assert (response.done, response.state, list(response.conditions)) == (True, READY, [])


@pytest.mark.parametrize(
    ("parts", "missing"),
    [
        ({}, ["proxy", "nsmanager"]),
        ({"proxy": _part(2)}, ["nsmanager"]),
        ({"proxy": _part(2), "nsmanager": _part(1)}, ["nsmanager"]),
        ({"proxy": _part(1), "nsmanager": _part(1)}, ["proxy", "nsmanager"]),
    ],
)
def test_not_done_until_the_last_observer_has_seen_it_and_that_one_is_named(parts: dict[str, Status], missing: list[str]) -> None:
    response = _wait(_entry(2), parts)
    assert (response.done, response.state) == (False, PENDING)
    assert _reasons(response) == [(service, "IN_PROGRESS") for service in missing]


def test_error_is_told_with_its_conditions_and_waited_on() -> None:
    response = _wait(_entry(2), {"proxy": _part(2, ERROR), "nsmanager": _part(2)})
    assert (response.done, response.state) == (False, ERROR)
    assert [each.reason for each in response.conditions] == ["ENGINE_REFUSED"]


def _ill(state: status_pb2.State.ValueType, generation: int = 2, *more: status_pb2.Condition) -> v_service_pb2.VServiceStatus:
    """What the proxy says while members are down."""
    healthy = status_pb2.Condition(
        type="Healthy", status=FALSE, reason="MEMBER_DOWN", message="main/a does not accept connections"
    )
    programmed = status_pb2.Condition(type="Programmed", status=status_pb2.CONDITION_STATUS_TRUE, reason="OK")
    return v_service_pb2.VServiceStatus(observed_generation=generation, state=state, conditions=[programmed, healthy, *more])


@pytest.mark.parametrize("state", [DEGRADED, ERROR])
def test_members_that_are_down_are_told_and_hold_nobody_up(state: status_pb2.State.ValueType) -> None:
    response = _wait(_entry(2), {"proxy": _ill(state), "nsmanager": _part(2)})
    assert (response.done, response.state) == (True, state)
    assert [(each.type, each.reason) for each in response.conditions] == [("Healthy", "MEMBER_DOWN")]


def test_members_that_are_down_excuse_nothing_else() -> None:
    refused = status_pb2.Condition(type="Listening", status=FALSE, reason="ENGINE_REFUSED")
    untold = status_pb2.Condition(type="Listening", status=UNKNOWN, reason="ENGINE_UNAVAILABLE")
    for more in (refused, untold):
        assert not _wait(_entry(2), {"proxy": _ill(ERROR, 2, more), "nsmanager": _part(2)}).done
    assert not _wait(_entry(2), {"proxy": _ill(ERROR), "nsmanager": _part(2, ERROR)}).done


def test_members_that_are_down_do_not_stand_in_for_who_has_not_looked_yet() -> None:
    for proxy, nsmanager in ((_ill(ERROR, 2), _part(1)), (_ill(ERROR, 1), _part(2)), (_ill(ERROR, 2), _pending(2))):
        assert not _wait(_entry(2), {"proxy": proxy, "nsmanager": nsmanager}).done


def _pending(generation: int) -> v_service_pb2.VServiceStatus:
    """Being worked on, and no condition says so yet."""
    return v_service_pb2.VServiceStatus(observed_generation=generation, state=PENDING)


def test_an_error_that_nothing_explains_is_waited_on() -> None:
    unexplained = v_service_pb2.VServiceStatus(observed_generation=2, state=ERROR)
    assert not _wait(_entry(2), {"proxy": unexplained, "nsmanager": _part(2)}).done


def test_health_of_what_is_being_deleted_ends_no_waiting() -> None:
    assert not _wait_gone(_entry(2, deleted=True), {"proxy": _ill(DEGRADED), "nsmanager": _part(2)}).done
    assert not _wait(_entry(2, deleted=True), {"proxy": _ill(DEGRADED), "nsmanager": _part(2)}).done


def test_later_generation_must_be_ready_itself() -> None:
    parts: dict[str, Status] = {"proxy": _part(2), "nsmanager": _part(2)}
    assert not _wait(_entry(3), parts).done
    assert _wait(_entry(3), {"proxy": _part(3), "nsmanager": _part(3)}).done


def test_what_is_not_there_cannot_become_ready() -> None:
    assert progress(Goal("vServices/v", 2, deleted=False, incarnation=5), None, {}) is None


def _wait_gone(entry: store.Entry | None, parts: dict[str, Status]) -> config_pb2.WaitResponse:
    return _told(progress(Goal("vServices/v", 0, deleted=True, incarnation=5), entry, parts))


def test_gone_is_done() -> None:
    assert _wait_gone(None, {}).done


def test_going_is_not_gone_and_names_who_has_to_clear_his_part() -> None:
    response = _wait_gone(_entry(2, deleted=True), {"nsmanager": _part(2)})
    assert (response.done, response.state) == (False, status_pb2.STATE_DELETING)
    assert _reasons(response) == [("nsmanager", "IN_PROGRESS")]


def test_another_one_of_the_same_name_proves_that_the_first_is_gone() -> None:
    assert _wait_gone(_entry(1, created=7), {}).done


def test_ready_is_not_gone() -> None:
    assert not _wait_gone(_entry(2), {"proxy": _part(2), "nsmanager": _part(2)}).done


def test_kind_with_one_observer_needs_no_other() -> None:
    desired = route_table_pb2.RouteTable(name="routeTables/a", generation=1)
    entry = store.Entry("key", desired.SerializeToString(), 5, 9)
    part = route_table_pb2.RouteTableStatus(observed_generation=1, state=READY)
    assert _told(progress(Goal("routeTables/a", 1, deleted=False, incarnation=5), entry, {"nsmanager": part})).done


def test_generation_that_is_not_stored_yet_is_waited_for() -> None:
    assert not _wait(_entry(1), {"proxy": _part(1), "nsmanager": _part(1)}, generation=2).done
