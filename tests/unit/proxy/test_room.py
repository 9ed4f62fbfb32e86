"""Who gets the listeners that there are, where not all can have theirs."""

import dataclasses
import ipaddress
from collections.abc import Mapping

from crossns import errors
from services.proxy import model, plan, render
from services.proxy.plan import room
from tests.unit.proxy import sample

MOST = render.max_listeners(sample.LIMITS.open_files)
REASON = "LISTENERS_EXHAUSTED"


def service(name: str, ports: int, created_ns: int) -> model.VService:
    (entry,) = sample.vservice().frontends
    address = ipaddress.ip_address("203.0.113.0") + created_ns
    return dataclasses.replace(
        sample.vservice(name),
        frontends=(dataclasses.replace(entry, address=address, port=1, end_port=ports),),
        created_ns=created_ns,
    )


def observed(*listening: model.VService) -> plan.Observed:
    listeners = [
        part
        for vservice in listening
        for frontend in vservice.frontends
        for part in render.listeners(vservice.name, frontend, sample.TABLES)
    ]
    return plan.Observed(sample.LIMITS, listeners=frozenset(listeners), namespaces=frozenset(sample.TABLES.values()))


def out(seen: plan.Observed, *services: model.VService) -> set[str]:
    """The ids of those that are left out."""
    found = room.crowded_out(model.Desired(services, sample.TABLES), seen, sample.TABLES)
    assert {refusal.reason for refusal in found.values()} <= {REASON}
    return {part.section.split(".")[1] for part in found}


def test_as_many_as_there_is_room_for_are_let_in() -> None:
    assert out(observed(), service("a", MOST - 1, 1), service("b", 1, 2)) == set()
    assert out(observed(), service("a", MOST, 1), service("b", 1, 2)) == {"b"}


def test_the_oldest_comes_first_whatever_it_is_called() -> None:
    services = service("a", MOST, 3), service("b", MOST, 1), service("c", MOST, 2)
    assert out(observed(), *services) == {"a", "c"}


def test_who_is_there_stays_though_an_older_one_wants_more() -> None:
    young, old = service("young", 10, 2), service("old", MOST, 1)
    assert out(observed(young), young, old) == {"old"}


def test_who_does_not_fit_in_keeps_out_nobody_who_does() -> None:
    assert out(observed(), service("a", MOST + 1, 1), service("b", MOST, 2)) == {"a"}


def test_a_table_that_is_gone_takes_no_room() -> None:
    gone = service("gone", MOST, 1)
    gone = dataclasses.replace(gone, frontends=(dataclasses.replace(gone.frontends[0], table="routeTables/gone"),))
    assert out(observed(), gone, service("b", MOST, 2)) == set()


def test_who_is_left_out_is_in_error_and_in_no_file_and_the_others_are_served() -> None:
    services = service("a", MOST, 1), service("b", 1, 2)
    desired = model.Desired(services, sample.TABLES)
    (op,) = plan.plan(desired, observed())
    assert isinstance(op, plan.StartEngine)
    assert ("vs.a.fe.fe" in op.config, "vs.b.fe.fe" in op.config) == (True, False)
    failures: Mapping[str, errors.CrossnsError] = {}
    said = plan.report(desired, observed(), failures, {})["vServices/b"]
    assert said is not None
    assert [part.reason for part in said.frontends] == [REASON]  # type: ignore[union-attr]
    assert f"on {MOST} ports" in said.frontends[0].message  # type: ignore[union-attr]
