"""What is done to HAProxy, and that it comes to an end."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.proxy import model, plan, render
from tests.unit.proxy import sample
from tests.unit.proxy.engine import Engine


def desired(*services: model.VService, tables: dict[str, str] | None = None, leaving: tuple[str, ...] = ()) -> model.Desired:
    return model.Desired(services, sample.TABLES if tables is None else tables, frozenset(leaving))


def test_without_vservices_nothing_is_started() -> None:
    assert plan.plan(desired(), Engine().observed) == ()


def test_the_first_vservice_starts_the_engine() -> None:
    (op,) = plan.plan(desired(sample.vservice()), Engine().observed)
    assert isinstance(op, plan.StartEngine)
    assert "frontend vs.web.fe.fe\n" in op.config
    assert op.new == {sample.listener()}


def test_what_runs_as_wanted_is_left_alone() -> None:
    engine = Engine()
    assert engine.settle(desired(sample.vservice())) == 1
    assert plan.plan(desired(sample.vservice()), engine.observed) == ()
    # The same in another order, of another generation.
    engine.settle(desired(sample.vservice("a"), sample.vservice("b", port=81)))
    again = desired(sample.vservice("b", port=81, generation=9), sample.vservice("a"))
    assert plan.plan(again, engine.observed) == ()


def test_the_last_vservice_stops_the_engine() -> None:
    engine = Engine()
    engine.settle(desired(sample.vservice()))
    assert plan.plan(desired(leaving=("vServices/web",)), engine.observed) == (plan.StopEngine(),)
    engine.settle(desired(leaving=("vServices/web",)))
    assert not engine.observed.running


@pytest.mark.parametrize(
    "drift",
    [{"running": False, "digest": "", "serving": frozenset()}, {"digest": ""}, {"digest": "0" * 64}, {"serving": frozenset()}],
)
def test_an_engine_that_is_not_as_it_was_left_is_started_again(drift: dict[str, object]) -> None:
    engine = Engine()
    engine.settle(desired(sample.vservice()))
    drifted = dataclasses.replace(engine.observed, **drift)  # type: ignore[arg-type]
    (op,) = plan.plan(desired(sample.vservice()), drifted)
    assert isinstance(op, plan.StartEngine)
    assert plan.digest(op.config) == engine.observed.digest


def test_while_no_table_is_there_the_engine_runs_without_listeners() -> None:
    engine = Engine()
    engine.settle(desired(sample.vservice(), tables={}))
    assert engine.observed.running
    assert engine.observed.serving == frozenset()


def test_a_table_that_engines_cannot_enter_is_left_out_before_it_stops_the_others() -> None:
    engine = Engine()
    engine.observed = dataclasses.replace(engine.observed, namespaces=frozenset({"dmz.11"}))
    engine.settle(desired(sample.vservice()))
    assert engine.observed.serving == {sample.listener()}
    assert "tenant-a" not in engine.starts[-1]


def test_a_table_that_was_made_anew_is_served_from_the_new_namespace() -> None:
    engine = Engine()
    engine.settle(desired(sample.vservice()))
    engine.observed = dataclasses.replace(engine.observed, namespaces=engine.observed.namespaces | {"dmz.12"})
    engine.settle(desired(sample.vservice(), tables={**sample.TABLES, "routeTables/dmz": "dmz.12"}))
    assert engine.observed.serving == {sample.listener(namespace="dmz.12"), sample.server()}


def test_a_part_that_the_check_names_is_left_out_at_once() -> None:
    services = [sample.vservice(f"v{index}", port=index + 1) for index in range(20)]
    faulty = sample.server("v7")
    engine = Engine(faulty=frozenset({faulty}))
    engine.settle(desired(*services))
    assert len(engine.starts) == 2
    assert set(engine.observed.trial.refused) == {faulty}
    assert len(engine.observed.serving) == 39


def test_a_lone_listener_that_cannot_be_opened_does_not_stop_what_runs() -> None:
    engine = Engine(held=frozenset({sample.listener("b", port=81)}))
    engine.settle(desired(sample.vservice("a")))
    engine.settle(desired(sample.vservice("a"), sample.vservice("b", port=81)))
    assert set(engine.observed.trial.refused) == {sample.listener("b", port=81)}
    assert engine.observed.serving == {sample.listener("a"), sample.server("a"), sample.server("b")}
    assert len(engine.starts) == 3


@given(
    before=st.sets(st.integers(1, 40), max_size=20),
    added=st.sets(st.integers(1, 40), max_size=30),
    removed=st.sets(st.integers(1, 40), max_size=5),
    held=st.sets(st.integers(1, 40), max_size=4),
)
def test_exactly_what_cannot_be_opened_is_left_out_and_the_rest_served_throughout(
    before: set[int], added: set[int], removed: set[int], held: set[int]
) -> None:
    def services(ports: set[int]) -> list[model.VService]:
        return [sample.vservice(f"v{port}", port=port) for port in sorted(ports)]

    def listeners(ports: set[int]) -> frozenset[render.Part]:
        return frozenset(sample.listener(f"v{port}", port=port) for port in ports)

    engine = Engine(held=listeners(held))
    engine.settle(desired(*services(before)))
    engine.served.clear()
    wanted = (before | added) - removed
    engine.settle(desired(*services(wanted)))
    assert engine.observed.serving & listeners(set(range(41))) == listeners(wanted - held)
    if wanted:
        assert listeners(wanted & held) <= engine.observed.trial.refused.keys()
        always = listeners((before & wanted) - held)
        assert all(always <= served for served in engine.served)


def test_a_culprit_among_many_is_found_in_few_tries() -> None:
    services = [sample.vservice(f"v{index}", port=index + 1) for index in range(64)]
    engine = Engine(held=frozenset({sample.listener("v33", port=34)}))
    engine.settle(desired(*services))
    assert len(engine.starts) <= 10
    assert len(engine.observed.serving) == 127


def test_a_fault_that_is_in_no_listener_is_not_put_on_them_for_good() -> None:
    engine = Engine(held=frozenset({sample.server()}))
    seen = []
    for _ in range(4):
        (op,) = plan.plan(desired(sample.vservice()), engine.observed)
        assert not engine.apply(op)
        seen.append(len(engine.observed.trial.refused))
    assert seen == [1, 0, 1, 0]


def test_operations_do_not_show_the_whole_text() -> None:
    (op,) = plan.plan(desired(sample.vservice()), Engine().observed)
    assert repr(op) == "StartEngine(resource='engines/haproxy')"
