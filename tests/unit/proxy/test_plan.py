"""What is done to HAProxy, and that it comes to an end."""

import dataclasses
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.proxy import model, plan, render
from tests.unit.proxy import sample
from tests.unit.proxy.engine import Engine

# What is seen of a HAProxy that does not answer.
SILENT = {"structure": "", "listeners": frozenset(), "servers": {}}


def desired(*services: model.VService, tables: dict[str, str] | None = None, leaving: tuple[str, ...] = ()) -> model.Desired:
    return model.Desired(services, sample.TABLES if tables is None else tables, frozenset(leaving))


def with_members(*members: model.Member) -> model.Desired:
    vservice = sample.vservice()
    return desired(dataclasses.replace(vservice, pools=(dataclasses.replace(vservice.pools[0], members=members),)))


def member(name: str = "a1", host: int = 5, **fields: object) -> model.Member:
    address = ipaddress.ip_address(f"10.0.0.{host}")
    made = model.Member(name, "routeTables/tenant-a", address, 8080)
    return dataclasses.replace(made, **fields)  # type: ignore[arg-type]


def test_without_vservices_nothing_is_started() -> None:
    assert plan.plan(desired(), Engine().observed) == ()


def test_the_first_vservice_starts_the_engine() -> None:
    (op,) = plan.plan(desired(sample.vservice()), Engine().observed)
    assert isinstance(op, plan.StartEngine)
    assert "frontend vs.web.fe.fe from tcp\n" in op.config
    assert op.generations == {"vServices/web": 1}


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
    [
        {"running": False, "digest": "", **SILENT},
        {"digest": "", **SILENT},
        SILENT,
        {"structure": "0" * 32},
        {"listeners": frozenset()},
        {"servers": {}},
    ],
)
def test_an_engine_that_is_not_as_it_was_left_is_started_again(drift: dict[str, object]) -> None:
    engine = Engine()
    engine.settle(desired(sample.vservice()))
    drifted = dataclasses.replace(engine.observed, **drift)  # type: ignore[arg-type]
    (op,) = plan.plan(desired(sample.vservice()), drifted)
    assert isinstance(op, plan.StartEngine)
    assert plan.digest(op.config) == engine.observed.digest


@pytest.mark.parametrize("digest", ["", "0" * 64])
def test_a_file_that_is_not_what_runs_is_written_without_a_reload(digest: str) -> None:
    engine = Engine()
    engine.settle(desired(sample.vservice()))
    expected = engine.observed.digest
    engine.observed = dataclasses.replace(engine.observed, digest=digest)
    (op,) = plan.plan(desired(sample.vservice()), engine.observed)
    assert isinstance(op, plan.SaveEngine)
    assert plan.digest(op.config) == expected


@pytest.mark.parametrize(
    "changed",
    [
        member(weight=7),
        member(state="drain"),
        member(state="disabled"),
        member(host=6),
        member(port=81),
        member(max_connections=9),
        member(address=ipaddress.ip_address("fd00::6"), weight=256),
    ],
)
def test_a_member_changes_while_haproxy_runs_and_in_the_file(changed: model.Member) -> None:
    engine = Engine()
    engine.settle(with_members(member()))
    change, save = plan.plan(with_members(changed), engine.observed)
    assert isinstance(change, plan.SetServer)
    assert isinstance(save, plan.SaveEngine)
    assert (change.section, change.name, change.resource) == ("vs.web.po.main", "a1.tenant-a.21", "vServices/web")
    assert (change.before, change.wanted.socket) == (render.Server("10.0.0.5:8080", 1, enabled=True), changed.socket)
    engine.settle(with_members(changed))
    assert len(engine.starts) == 1
    before = engine.servers
    engine.crash()
    assert engine.servers == before
    assert plan.plan(with_members(changed), engine.observed) == ()


@pytest.mark.parametrize("port", [0, 8080])
def test_a_member_at_the_port_of_arrival_becomes_so_by_a_reload(port: int) -> None:
    """HAProxy cannot be led back from it."""
    engine = Engine()
    engine.settle(with_members(member(port=8080 - port)))
    engine.settle(with_members(member(port=port)))
    assert len(engine.starts) == 2
    assert engine.servers["vs.web.po.main", "a1.tenant-a.21"].socket == f"10.0.0.5:{port}"


def test_who_goes_rests_before_another_begins() -> None:
    engine = Engine()
    engine.settle(with_members(member("z1", 5), member("b1", 6, state="disabled"), member("c1", 7)))
    wanted = with_members(member("z1", 5, state="disabled"), member("b1", 6), member("c1", 7, weight=3))
    changes = [op for op in plan.plan(wanted, engine.observed) if isinstance(op, plan.SetServer)]
    assert [(op.name, op.wanted.enabled) for op in changes] == [
        ("z1.tenant-a.21", False),
        ("b1.tenant-a.21", True),
        ("c1.tenant-a.21", True),
    ]


def test_who_is_disabled_loses_his_connections_of_every_worker() -> None:
    engine = Engine()
    engine.settle(with_members(member("a1", 5), member("b1", 6)))
    for name in ("a1.tenant-a.21", "b1.tenant-a.21"):
        engine.carry("vs.web.po.main", name, 3)
    # Something else is structure: those three stay with the worker from before.
    other = sample.vservice("other", port=81)
    (both,) = with_members(member("a1", 5), member("b1", 6)).services
    engine.settle(desired(both, other))
    (disabled,) = with_members(member("a1", 5, state="disabled"), member("b1", 6)).services
    (change, _) = plan.plan(desired(disabled, other), engine.observed)
    assert isinstance(change, plan.SetServer)
    assert change.ended == {sample.server()}
    engine.settle(desired(disabled, other))
    assert [worker.to(sample.server()) for worker in engine.workers] == [0, 0]
    assert [worker.to(sample.server(host=6)) for worker in engine.workers] == [0, 3]


def test_who_is_disabled_and_moved_loses_what_he_had_where_he_was() -> None:
    engine = Engine()
    engine.settle(with_members(member(host=5)))
    (change, _) = plan.plan(with_members(member(host=6, state="disabled")), engine.observed)
    assert isinstance(change, plan.SetServer)
    assert change.ended == {sample.server(host=5), sample.server(host=6)}


def test_who_is_disabled_by_a_reload_loses_his_connections_too() -> None:
    engine = Engine()
    engine.settle(with_members(member("a1", 5)))
    # On a spare line, which is another one behind the reload.
    engine.settle(with_members(member("a1", 5), member("b1", 6)))
    (disabled,) = with_members(member("a1", 5), member("b1", 6, state="disabled")).services
    (op,) = plan.plan(desired(disabled, sample.vservice("other", port=81)), engine.observed)
    assert isinstance(op, plan.StartEngine)
    assert op.ended == {sample.server(host=6)}


@pytest.mark.parametrize("changed", [member(state="drain"), member(host=6), member(weight=9)])
def test_nobody_elses_connections_are_ended(changed: model.Member) -> None:
    engine = Engine()
    engine.settle(with_members(member()))
    engine.carry("vs.web.po.main", "a1.tenant-a.21", 3)
    (change, _) = plan.plan(with_members(changed), engine.observed)
    assert isinstance(change, plan.SetServer)
    assert change.ended == frozenset()


def test_connections_that_came_to_a_disabled_member_meanwhile_are_ended_too() -> None:
    engine = Engine()
    engine.settle(with_members(member(state="disabled")))
    assert plan.plan(with_members(member(state="disabled")), engine.observed) == ()
    engine.carry("vs.web.po.main", "a1.tenant-a.21", 1)
    (change,) = plan.plan(with_members(member(state="disabled")), engine.observed)
    assert isinstance(change, plan.SetServer)
    assert change.ended == {sample.server()}
    engine.settle(with_members(member(state="disabled")))


def test_while_no_table_is_there_the_engine_runs_without_listeners() -> None:
    engine = Engine()
    engine.settle(desired(sample.vservice(), tables={}))
    assert engine.observed.running
    assert engine.observed.listeners == frozenset()
    assert engine.servers == {}


def test_a_table_that_engines_cannot_enter_is_left_out_before_it_stops_the_others() -> None:
    engine = Engine()
    engine.enter(frozenset({"dmz.11"}))
    engine.settle(desired(sample.vservice()))
    assert engine.observed.listeners == {sample.listener()}
    assert "tenant-a" not in engine.starts[-1]
    assert (len(engine.starts), engine.observed.refused) == (1, {})


def test_a_table_that_was_made_anew_is_served_from_the_new_namespace() -> None:
    engine = Engine()
    engine.settle(desired(sample.vservice()))
    engine.enter(engine.observed.namespaces | {"dmz.12"})
    engine.settle(desired(sample.vservice(), tables={**sample.TABLES, "routeTables/dmz": "dmz.12"}))
    assert engine.observed.listeners == {sample.listener(namespace="dmz.12")}


def test_the_file_that_is_kept_starts_when_a_table_has_gone() -> None:
    """A line that nobody has names its namespace as well."""
    engine = Engine()
    elsewhere = member("b1", 5, table="routeTables/tenant-b")
    engine.settle(with_members(member(), elsewhere))
    engine.settle(with_members(member()))
    assert len(engine.starts) == 1
    engine.enter(frozenset({"dmz.11", "tenant-a.21"}))
    engine.settle(with_members(member()))
    assert "tenant-b" not in engine.kept
    engine.crash()
    assert engine.observed.listeners == {sample.listener()}


def test_a_part_that_the_check_names_is_left_out_at_once() -> None:
    services = [sample.vservice(f"v{index}", port=index + 1) for index in range(20)]
    faulty = sample.server("v7")
    engine = Engine(faulty=frozenset({faulty}))
    engine.settle(desired(*services))
    assert len(engine.starts) == 2
    assert set(engine.observed.refused) == {faulty}
    assert len(engine.observed.listeners) == 20
    assert len([line for line in engine.servers if line[1].startswith("a1.")]) == 19


def test_a_member_on_a_spare_line_that_the_check_names_is_left_out_alone() -> None:
    engine = Engine()
    engine.settle(with_members(member()))
    both = with_members(member(), member("b1", 6))
    engine.settle(both)
    assert len(engine.starts) == 1
    engine.faulty = frozenset({sample.server(host=6)})
    # A listener that has closed is opened by a reload with the same lines.
    engine.observed = dataclasses.replace(engine.observed, listeners=frozenset())
    engine.settle(both)
    assert set(engine.observed.refused) == engine.faulty
    assert engine.observed.listeners == {sample.listener()}
    assert {server.socket for server in engine.servers.values() if server.enabled} == {"10.0.0.5:8080"}


def test_a_lone_listener_that_cannot_be_opened_does_not_stop_what_runs() -> None:
    engine = Engine(held=frozenset({sample.listener("b", port=81)}))
    engine.settle(desired(sample.vservice("a")))
    engine.settle(desired(sample.vservice("a"), sample.vservice("b", port=81)))
    assert set(engine.observed.refused) == {sample.listener("b", port=81)}
    assert engine.observed.listeners == {sample.listener("a")}
    assert {section for section, _ in engine.servers} == {"vs.a.po.main", "vs.b.po.main"}
    assert len(engine.starts) == 3


def test_a_range_is_left_out_whole_where_one_of_its_ports_cannot_be_opened() -> None:
    ranged = dataclasses.replace(sample.vservice().frontends[0], end_port=82)
    services = [dataclasses.replace(sample.vservice(), frontends=(ranged,)), sample.vservice("other", port=90)]
    engine = Engine(held=frozenset({sample.listener(port=81)}))
    engine.settle(desired(*services))
    assert set(engine.observed.refused) == {render.Part("vs.web.fe.fe", "dmz.11", "203.0.113.10:80-82")}
    assert engine.observed.listeners == {sample.listener("other", port=90)}


def test_a_range_of_which_a_port_is_closed_is_opened_again() -> None:
    ranged = dataclasses.replace(sample.vservice().frontends[0], end_port=82)
    wanted = desired(dataclasses.replace(sample.vservice(), frontends=(ranged,)))
    engine = Engine()
    engine.settle(wanted)
    assert engine.observed.listeners == {sample.listener(port=port) for port in (80, 81, 82)}
    engine.observed = dataclasses.replace(engine.observed, listeners=engine.observed.listeners - {sample.listener(port=82)})
    (op,) = plan.plan(wanted, engine.observed)
    assert isinstance(op, plan.StartEngine)
    engine.settle(wanted)
    assert sample.listener(port=82) in engine.observed.listeners


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
    assert engine.observed.listeners == listeners(wanted - held)
    if wanted:
        assert listeners(wanted & held) <= engine.observed.refused.keys()
        always = listeners((before & wanted) - held)
        assert all(always <= served for served in engine.served)


def test_all_culprits_among_many_are_found_in_one_try() -> None:
    services = [sample.vservice(f"v{index}", port=index + 1) for index in range(64)]
    engine = Engine(held=frozenset(sample.listener(f"v{index}", port=index + 1) for index in (7, 33, 63)))
    engine.settle(desired(*services))
    assert len(engine.starts) == 2
    assert len(engine.observed.listeners) == 61


def test_what_was_refused_is_tried_again_when_its_vservice_is_another_one() -> None:
    engine = Engine(held=frozenset({sample.listener("b", port=81)}))
    engine.settle(desired(sample.vservice("a"), sample.vservice("b", port=81)))
    tried = len(engine.starts)
    # Another's change is no reason.
    engine.settle(desired(sample.vservice("a", generation=2), sample.vservice("b", port=81)))
    assert len(engine.starts) == tried
    engine.held = frozenset()
    engine.settle(desired(sample.vservice("a"), sample.vservice("b", port=81, generation=2)))
    assert engine.observed.listeners == {sample.listener("a"), sample.listener("b", port=81)}


def test_what_was_refused_is_tried_again_when_it_is_time() -> None:
    engine = Engine(held=frozenset({sample.listener("b", port=81)}))
    wanted = desired(sample.vservice("a"), sample.vservice("b", port=81))
    engine.settle(wanted)
    engine.forget()
    engine.settle(wanted)
    assert engine.observed.listeners == {sample.listener("a")}
    engine.held = frozenset()
    engine.forget()
    engine.settle(wanted)
    assert engine.observed.listeners == {sample.listener("a"), sample.listener("b", port=81)}


def test_a_fault_that_is_in_no_line_is_put_on_nobody() -> None:
    engine = Engine(is_broken=True)
    (op,) = plan.plan(desired(sample.vservice()), engine.observed)
    assert not engine.apply(op)
    assert engine.observed.refused == {}
    assert plan.plan(desired(sample.vservice()), engine.observed) == (op,)


def test_members_go_on_changing_while_another_vservice_cannot_be_applied() -> None:
    """What is wrong with one is left out of the text, so that the others' changes need no reload."""
    engine = Engine(held=frozenset({sample.listener("b", port=81)}))
    blocked = sample.vservice("b", port=81)
    engine.settle(desired(*with_members(member()).services, blocked))
    tried = len(engine.starts)
    engine.settle(desired(*with_members(member(weight=9), member("b1", 6)).services, blocked))
    assert len(engine.starts) == tried
    assert engine.servers["vs.web.po.main", "a1.tenant-a.21"].weight == 9


def test_operations_do_not_show_the_whole_text() -> None:
    (op,) = plan.plan(desired(sample.vservice()), Engine().observed)
    assert repr(op) == "StartEngine(ended=frozenset(), resource='engines/haproxy')"
    assert repr(plan.SaveEngine("x" * 100)) == "SaveEngine(resource='engines/haproxy')"
