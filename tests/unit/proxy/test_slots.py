"""Who has which server line: lines are kept as long as they will do, and never given from one member to another."""

import dataclasses
import ipaddress
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from services.proxy import model, plan, render
from services.proxy.plan import slots
from tests.unit.proxy import sample
from tests.unit.proxy.changes import Changes
from tests.unit.proxy.engine import Engine

SECTION = "vs.web.po.main"


def member(name: str, host: int, **fields: object) -> model.Member:
    made = model.Member(name, "routeTables/tenant-a", ipaddress.ip_address(f"10.0.0.{host}"), 8080)
    return dataclasses.replace(made, **fields)  # type: ignore[arg-type]


def pool(*members: model.Member, algorithm: model.Algorithm = "round robin") -> model.Pool:
    return model.Pool("main", members, algorithm)


def desired(of: model.Pool, *others: model.VService) -> model.Desired:
    return model.Desired((dataclasses.replace(sample.vservice(), pools=(of,)), *others), sample.TABLES)


def lines(engine: Engine) -> Mapping[str, str]:
    """Where those point through which clients come."""
    return {name: server.socket for (section, name), server in engine.servers.items() if section == SECTION and server.enabled}


def ids(engine: Engine) -> Mapping[str, int]:
    return {name: number for (section, name), number in engine.ids.items() if section == SECTION}


def seen(socket: str = render.NOWHERE, number: int = 1, *, enabled: bool = True, total: int = 0) -> plan.Seen:
    return plan.Seen(render.Server(socket, enabled=enabled), number, was_used=total > 0)


def test_whatever_changes_everybody_has_a_line_of_his_own_in_the_end() -> None:
    most = min(settings().max_examples, 400)
    run_state_machine_as_test(Changes, settings=settings(max_examples=most, stateful_step_count=40))


def test_a_pool_has_a_line_for_each_member_and_spare_ones_for_each_namespace() -> None:
    engine = Engine()
    engine.settle(desired(pool(member("b1", 6), member("a1", 5), member("c1", 5, table="routeTables/tenant-b"))))
    assert ids(engine) == {
        "a1.tenant-a.21": 1,
        "b1.tenant-a.21": 2,
        "c1.tenant-b.22": 3,
        "_1.tenant-a.21": 4,
        "_2.tenant-a.21": 5,
        "_1.tenant-b.22": 6,
        "_2.tenant-b.22": 7,
    }
    assert engine.servers[SECTION, "_1.tenant-a.21"] == render.Server("255.255.255.255:1", 1, enabled=False)


def test_as_many_members_come_without_a_reload_as_there_are_spare_lines() -> None:
    engine = Engine()
    members = [member("z1", 1)]
    engine.settle(desired(pool(*members)))
    for host in (2, 3):
        members.append(member(f"a{host}", host, weight=host))
        engine.settle(desired(pool(*members)))
    assert len(engine.starts) == 1
    assert lines(engine) == {
        "z1.tenant-a.21": "10.0.0.1:8080",
        "_1.tenant-a.21": "10.0.0.2:8080",
        "_2.tenant-a.21": "10.0.0.3:8080",
    }
    engine.settle(desired(pool(*members, member("a4", 4))))
    assert len(engine.starts) == 2
    assert set(lines(engine)) == {f"{name}.tenant-a.21" for name in ("z1", "a2", "a3", "a4")}


@settings(max_examples=min(settings().max_examples, 400))
@given(data=st.data())
def test_no_change_within_a_table_reloads(data: st.DataObject) -> None:
    """Of weight, state, limit, address and port; nor do as many new members as there are spare lines, nor any that leaves."""
    sockets = st.tuples(st.integers(1, 9), st.sampled_from([80, 81]))
    changes = st.fixed_dictionaries(
        {
            "weight": st.integers(1, 256),
            "state": st.sampled_from(["enabled", "drain", "disabled"]),
            "max_connections": st.sampled_from([0, 1, 1_000_000]),
        }
    )

    def drawn(name: str) -> model.Member:
        (host, port), fields = data.draw(sockets), data.draw(changes)
        return member(name, host, port=port, **fields)

    engine = Engine()
    own = {f"m{index}": member(f"m{index}", index) for index in range(1, 4)}
    engine.settle(desired(pool(*own.values())))
    coming = {f"new{index}" for index in range(slots.SPARE)}
    for _ in range(data.draw(st.integers(1, 6))):
        wanted = dict(own)
        name = data.draw(st.sampled_from(sorted({"m1", "m2", "m3"} | (coming - own.keys()))))
        if name in own and data.draw(st.booleans()) and len(own) > 1:
            del wanted[name]
        else:
            wanted[name] = drawn(name)
        if len({each.socket for each in wanted.values()}) == len(wanted):
            # Who has come stays as he is: nothing is known of him but where his line points.
            coming -= wanted.keys() - {"m1", "m2", "m3"}
            own = wanted
            engine.settle(desired(pool(*own.values())))
    assert len(engine.starts) == 1
    assert sorted(lines(engine).values()) == sorted(each.socket for each in own.values() if each.state != "disabled")


def test_a_line_that_somebody_had_is_given_to_nobody_else() -> None:
    engine = Engine()
    engine.settle(desired(pool(member("a1", 1))))
    engine.settle(desired(pool(member("a1", 1), member("b1", 2))))
    engine.carry(SECTION, "_1.tenant-a.21", 5)
    engine.end(frozenset({sample.server(host=2)}))
    engine.settle(desired(pool(member("a1", 1))))
    engine.settle(desired(pool(member("a1", 1), member("c1", 3))))
    assert lines(engine) == {"a1.tenant-a.21": "10.0.0.1:8080", "_2.tenant-a.21": "10.0.0.3:8080"}
    engine.settle(desired(pool(member("a1", 1), member("c1", 3), member("d1", 4))))
    assert len(engine.starts) == 2


def test_a_line_that_nobody_used_is_given_again() -> None:
    engine = Engine()
    engine.settle(desired(pool(member("a1", 1))))
    for host in range(2, 9):
        engine.settle(desired(pool(member("a1", 1), member(f"b{host}", host))))
    assert len(engine.starts) == 1
    assert sorted(lines(engine).values()) == ["10.0.0.1:8080", "10.0.0.8:8080"]


def test_who_leaves_and_comes_back_has_his_own_line_again() -> None:
    engine = Engine()
    engine.settle(desired(pool(member("a1", 1), member("b1", 2))))
    engine.settle(desired(pool(member("a1", 1))))
    assert lines(engine) == {"a1.tenant-a.21": "10.0.0.1:8080"}
    engine.settle(desired(pool(member("a1", 1), member("b1", 3))))
    assert lines(engine) == {"a1.tenant-a.21": "10.0.0.1:8080", "b1.tenant-a.21": "10.0.0.3:8080"}
    assert len(engine.starts) == 1


def test_who_has_a_spare_line_is_found_by_where_it_points() -> None:
    """Nothing is remembered: another process of the proxy sees the same."""
    engine = Engine()
    engine.settle(desired(pool(member("z1", 1))))
    engine.settle(desired(pool(member("z1", 1), member("b1", 2), member("a1", 3))))
    assert lines(engine)["_1.tenant-a.21"] == "10.0.0.3:8080"
    assert plan.plan(desired(pool(member("a1", 3), member("b1", 2), member("z1", 1))), engine.observed) == ()
    changes = plan.plan(desired(pool(member("z1", 1), member("b1", 2, weight=7), member("a1", 3))), engine.observed)
    assert [op.name for op in changes if isinstance(op, plan.SetServer)] == ["_2.tenant-a.21"]


def test_of_two_lines_that_point_to_a_member_he_has_the_one_in_use() -> None:
    part = render.Part(SECTION, "tenant-a.21", "10.0.0.1:80")
    known = {"_1.tenant-a.21": seen("10.0.0.1:80"), "_2.tenant-a.21": seen("10.0.0.1:80", 2, enabled=False)}
    assert dict(slots.held({"a1": part}, known)) == {"a1": "_1.tenant-a.21"}
    swapped = {"_1.tenant-a.21": known["_2.tenant-a.21"], "_2.tenant-a.21": known["_1.tenant-a.21"]}
    assert dict(slots.held({"a1": part}, swapped)) == {"a1": "_2.tenant-a.21"}


def test_a_line_of_another_namespace_is_nobodys() -> None:
    part = render.Part(SECTION, "tenant-b.22", "10.0.0.1:80")
    known = {
        "_1.tenant-a.21": seen("10.0.0.1:80"),
        "_2.tenant-a.21": seen(number=2, enabled=False),
        "a1.tenant-a.21": seen("10.0.0.1:80", 3),
    }
    assert dict(slots.held({"a1": part}, known)) == {}
    assert slots.kept(pool(), {"a1": part}, known) is None


@pytest.mark.parametrize("used", [seen(enabled=False, total=1), seen(enabled=True)])
def test_a_spare_line_that_is_or_was_used_is_not_free(used: plan.Seen) -> None:
    part = render.Part(SECTION, "tenant-a.21", "10.0.0.1:80")
    assert slots.kept(pool(), {"a1": part}, {"_1.tenant-a.21": used}) is None
    free = seen(enabled=False)
    assert slots.kept(pool(), {"a1": part}, {"_1.tenant-a.21": free}) == [render.Slot("_1.tenant-a.21", 1, "a1")]


def test_a_spare_line_is_not_free_while_a_disabled_member_has_it() -> None:
    engine = Engine()
    engine.settle(desired(pool(member("z1", 1))))
    engine.settle(desired(pool(member("z1", 1), member("a1", 2, state="disabled"))))
    engine.settle(desired(pool(member("z1", 1), member("a1", 2, state="disabled"), member("b1", 3))))
    assert lines(engine) == {"z1.tenant-a.21": "10.0.0.1:8080", "_2.tenant-a.21": "10.0.0.3:8080"}
    engine.settle(desired(pool(member("z1", 1), member("a1", 2), member("b1", 3))))
    assert lines(engine)["_1.tenant-a.21"] == "10.0.0.2:8080"
    assert len(engine.starts) == 1


def test_a_reload_gives_everybody_a_line_of_his_own_name() -> None:
    """And with it spare ones for those who come next."""
    engine = Engine()
    engine.settle(desired(pool(member("z1", 1))))
    engine.settle(desired(pool(member("z1", 1), member("a1", 2))))
    (vservice,) = desired(pool(member("z1", 1), member("a1", 2))).services
    engine.settle(model.Desired((dataclasses.replace(vservice, access_log=True),), sample.TABLES))
    assert set(lines(engine)) == {"z1.tenant-a.21", "a1.tenant-a.21"}
    assert len(ids(engine)) == 2 + slots.SPARE


def test_a_line_that_was_anothers_own_is_not_free() -> None:
    part = render.Part(SECTION, "tenant-a.21", "10.0.0.1:80")
    assert slots.kept(pool(), {"a1": part}, {"b1.tenant-a.21": seen(enabled=False)}) is None


def test_ids_go_along_from_reload_to_reload() -> None:
    """Where clients are led by the hash of their address, nobody is led elsewhere because of a reload."""
    engine = Engine()
    engine.settle(desired(pool(member("m1", 1), member("n1", 2), member("o1", 3), algorithm="source hash")))
    # `a1` comes first in the order of names, on a spare line.
    with_new = pool(member("m1", 1), member("o1", 3), member("a1", 4), algorithm="source hash")
    engine.settle(desired(with_new))
    before = {lines(engine)[name]: number for name, number in ids(engine).items() if name in lines(engine)}
    engine.settle(desired(with_new, sample.vservice("other", port=81)))
    assert len(engine.starts) == 2
    assert {lines(engine)[name]: number for name, number in ids(engine).items() if name in lines(engine)} == before
    assert {"m1.tenant-a.21", "o1.tenant-a.21", "a1.tenant-a.21"} == set(lines(engine))
    assert len(set(ids(engine).values())) == len(ids(engine))


def test_in_the_pool_that_is_filled_in_order_ids_are_the_order() -> None:
    engine = Engine()
    engine.settle(desired(pool(member("m1", 1), member("a1", 2), member("z1", 3), algorithm="first")))
    assert ids(engine) == {"m1.tenant-a.21": 1, "a1.tenant-a.21": 2, "z1.tenant-a.21": 3}
    engine.settle(desired(pool(member("m1", 1, weight=3), member("a1", 2), member("z1", 3), algorithm="first")))
    assert len(engine.starts) == 1
    engine.settle(desired(pool(member("z1", 3), member("m1", 1), algorithm="first")))
    assert ids(engine) == {"z1.tenant-a.21": 1, "m1.tenant-a.21": 2}
    swapped = pool(member("m1", 1), member("z1", 3), algorithm="first")
    parts = {each.name: render.Part(SECTION, "tenant-a.21", each.socket) for each in swapped.members}
    assert slots.kept(swapped, parts, engine.observed.servers[SECTION]) is None
    engine.settle(desired(swapped))
    assert ids(engine) == {"m1.tenant-a.21": 1, "z1.tenant-a.21": 2}
    assert len(engine.starts) == 3


def test_who_is_reached_at_the_port_of_arrival_has_no_use_for_spare_lines() -> None:
    engine = Engine()
    engine.settle(desired(pool(member("a1", 1, port=0))))
    assert set(ids(engine)) == {"a1.tenant-a.21"}
    engine.settle(desired(pool(member("a1", 1, port=0), member("b1", 2))))
    assert set(ids(engine)) == {"a1.tenant-a.21", "b1.tenant-a.21", "_1.tenant-a.21", "_2.tenant-a.21"}
    engine.settle(desired(pool(member("a1", 1, port=0), member("b1", 2), member("c1", 3, port=0))))
    assert len(engine.starts) == 3
    part = render.Part(SECTION, "tenant-a.21", "10.0.0.4:0")
    assert slots.kept(pool(), {"d1": part}, {"_1.tenant-a.21": seen(enabled=False)}) is None


def test_lines_kept_and_lines_made_anew_are_in_one_order() -> None:
    """Else the same lines would be another structure."""
    engine = Engine()
    wanted = pool(member("b1", 1), member("a1", 2))
    engine.settle(desired(wanted))
    known = engine.observed.servers[SECTION]
    parts = {each.name: render.Part(SECTION, "tenant-a.21", each.socket) for each in wanted.members}
    assert slots.kept(wanted, parts, known) == slots.fresh(wanted, parts, known) == slots.fresh(wanted, parts, {})
    upside_down = {name: dataclasses.replace(each, id=9 - each.id) for name, each in reversed(list(known.items()))}
    kept = slots.kept(wanted, parts, upside_down)
    assert kept is not None
    assert [slot.id for slot in kept] == [5, 6, 7, 8]
    assert [slot.id for slot in slots.fresh(wanted, parts, upside_down)] == [1, 2, 7, 8]
