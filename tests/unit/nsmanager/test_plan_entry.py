"""The plan room's rules, neighbours and sysctls: what it does and does not do to a device in memory, until it comes to rest."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossns import entry, operation, sysctl
from services.nsmanager import plan
from services.nsmanager.plan import At
from tests.unit.nsmanager.test_plan import LAN, Bench, Spec, bench

__all__ = ["bench"]

RULE, NEIGHBOR = "routeTables/a/rules/r", "routeTables/a/neighbors/n"
BRIDGE: Spec = {"routeTable": "routeTables/a", "linkName": "br0", "bridge": {}}
FROM_TEN: Spec = {"priority": 100, "source": "10.0.0.0/8", "kernelTable": 100}
STATIC: Spec = {"address": "10.0.0.9", "interface": "interfaces/br", "macAddress": "02:00:00:00:00:09"}
PROXY6: Spec = {"address": "2001:db8::9", "interface": "interfaces/br", "proxy": True}
MARKED = entry.Rule(family="inet", priority=100, source="10.0.0.0/8", kernel_table=100)


def operations(bench: Bench, table: str = "a") -> list[object]:
    return [op.operation for op in bench.ops(table)]


def test_rule_is_made_kept_changed_and_removed(bench: Bench) -> None:
    bench.put(RULE, FROM_TEN)
    bench.settle("a")
    assert bench.device.spaces["a"].rules == [MARKED]
    assert bench.state(RULE) == ("STATE_READY", "OK")
    bench.put(RULE, {**FROM_TEN, "kernelTable": 0, "action": "RULE_ACTION_PROHIBIT"}, generation=2)
    # No packet falls between the two.
    assert [type(each) for each in operations(bench)] == [entry.PutRule, entry.RemoveRule]
    bench.settle("a")
    assert [each.action for each in bench.device.spaces["a"].rules] == ["prohibit"]
    bench.put(RULE, FROM_TEN, deleting=True)
    assert bench.report("a")[RULE] is not None
    bench.settle("a")
    assert bench.device.spaces["a"].rules == []
    assert bench.report("a")[RULE] is None


def test_rule_comes_after_the_routes_that_it_sends_packets_to(bench: Bench) -> None:
    bench.put("routeTables/a/routes/r", {"destination": "0.0.0.0/0", "kernelTable": 100, "type": "ROUTE_TYPE_BLACKHOLE"})
    bench.put(RULE, FROM_TEN)
    kinds = [type(each) for each in operations(bench)]
    assert kinds.index(operation.PutRoute) < kinds.index(entry.PutRule)


def test_rule_names_the_link_of_its_interface_and_is_gone_while_that_is_in_another_table(bench: Bench) -> None:
    bench.put("interfaces/br", BRIDGE)
    bench.put(RULE, {**FROM_TEN, "interface": "interfaces/br"})
    bench.settle("a")
    assert bench.device.spaces["a"].rules == [msgspec.structs.replace(MARKED, link="br0")]
    bench.put("routeTables/b", {})
    bench.put("interfaces/br", {**BRIDGE, "routeTable": "routeTables/b"}, generation=2)
    # Another link has its name now: the rule is not for that one.
    bench.put("interfaces/other", BRIDGE)
    bench.settle("a", "b")
    assert bench.device.spaces["a"].rules == []
    assert bench.state(RULE) == ("STATE_ERROR", "LINK_MISSING")
    assert "routeTables/b" in bench.parts[RULE].conditions[0].message


def test_change_of_an_interface_concerns_the_rules_and_neighbours_that_name_it(bench: Bench) -> None:
    bench.put("interfaces/br", BRIDGE)
    bench.put(RULE, {**FROM_TEN, "interface": "interfaces/br"})
    bench.put(NEIGHBOR, STATIC)
    bench.settle("a")
    bench.put("interfaces/br", {**BRIDGE, "linkName": "br9"}, generation=2)
    bench.settle("a")
    assert [each.link for each in bench.device.spaces["a"].rules] == ["br9"]
    assert [each.link for each in bench.device.spaces["a"].neighbors] == ["br9"]


def test_neighbour_is_put_changed_in_place_and_removed(bench: Bench) -> None:
    bench.put("interfaces/br", BRIDGE)
    bench.put(NEIGHBOR, STATIC)
    bench.settle("a")
    bench.put(NEIGHBOR, {**STATIC, "macAddress": "02:00:00:00:00:0A"}, generation=2)
    assert [type(each) for each in operations(bench)] == [entry.PutNeighbor]
    bench.settle("a")
    assert [each.mac for each in bench.device.spaces["a"].neighbors] == ["02:00:00:00:00:0a"]
    assert bench.state(NEIGHBOR) == ("STATE_READY", "OK")
    bench.put(NEIGHBOR, STATIC, deleting=True)
    assert bench.report("a")[NEIGHBOR] is not None
    bench.settle("a")
    assert bench.device.spaces["a"].neighbors == []
    assert bench.report("a")[NEIGHBOR] is None


def test_neighbour_of_ours_that_somebody_made_forgettable_is_put_again(bench: Bench) -> None:
    bench.put("interfaces/br", BRIDGE)
    bench.put(NEIGHBOR, STATIC)
    bench.settle("a")
    space = bench.device.spaces["a"]
    space.neighbors = [msgspec.structs.replace(each, permanent=False) for each in space.neighbors]
    assert [type(each) for each in operations(bench)] == [entry.PutNeighbor]


def test_neighbour_on_a_card_that_is_missing_waits_and_says_so(bench: Bench) -> None:
    bench.put("interfaces/lan", {**LAN, "physical": {"linkName": "eth9"}})
    bench.put(NEIGHBOR, {**STATIC, "interface": "interfaces/lan"})
    bench.settle("a")
    assert bench.state(NEIGHBOR) == ("STATE_ERROR", "LINK_MISSING")
    bench.device.card("eth9")
    bench.settle("a", "default")
    assert bench.state(NEIGHBOR) == ("STATE_READY", "OK")


def test_ipv6_link_is_told_to_answer_for_others_and_the_table_must_forward(bench: Bench) -> None:
    bench.put("interfaces/br", BRIDGE)
    bench.put(NEIGHBOR, PROXY6)
    bench.settle("a")
    assert bench.device.spaces["a"].links["br0"].sysctls == {"proxy_ndp": "1"}
    assert bench.state(NEIGHBOR) == ("STATE_DEGRADED", "FORWARDING_OFF")
    assert "spec.forwarding" in bench.parts[NEIGHBOR].conditions[0].message
    bench.put("routeTables/a", {"forwarding": True}, generation=2)
    bench.settle("a")
    assert bench.state(NEIGHBOR) == ("STATE_READY", "OK")


STRICT: Spec = {"reversePathFilter": "REVERSE_PATH_FILTER_STRICT"}


def test_no_link_is_left_with_a_higher_value_than_the_one_asked_for(bench: Bench) -> None:
    """The kernel takes the higher one of `all` and the link's: a loose link would make a strict table loose."""
    bench.put("interfaces/br", BRIDGE)
    bench.settle("a")
    space = bench.device.spaces["a"]
    for name, link in list(space.links.items()):
        space.links[name] = msgspec.structs.replace(link, sysctls={"rp_filter": "2"})
    space.links["tun0"] = operation.Link(index=99, name="tun0", sysctls={"rp_filter": "2"})
    bench.put("routeTables/a", STRICT, generation=2)
    bench.settle("a")
    assert space.sysctls["net.ipv4.conf.all.rp_filter"] == space.sysctls["net.ipv4.conf.default.rp_filter"] == "1"
    assert {link.sysctls.get("rp_filter") for link in space.links.values()} == {"1"}


def test_what_is_asked_is_in_force_before_a_link_comes_in(bench: Bench) -> None:
    bench.put("routeTables/a", STRICT)
    bench.put("interfaces/br", BRIDGE)
    kinds = [type(each) for each in operations(bench)]
    assert kinds[:3] == [operation.CreateNamespace, sysctl.SetSysctl, sysctl.SetSysctl]
    assert kinds.index(operation.CreateLink) == 3


def test_what_is_asked_no_more_is_taken_back_from_ours_and_left_to_others(bench: Bench) -> None:
    bench.put("routeTables/a", {**STRICT, "arp": {"ignore": "ARP_IGNORE_ALWAYS"}})
    bench.put("interfaces/br", BRIDGE)
    bench.settle("a")
    space = bench.device.spaces["a"]
    space.links["tun0"] = operation.Link(index=99, name="tun0", sysctls={"rp_filter": "1"})
    # It began with them.
    assert space.links["br0"].sysctls == {"rp_filter": "1", "arp_ignore": "8"}
    bench.put("routeTables/a", {}, generation=2)
    bench.settle("a")
    assert space.sysctls["net.ipv4.conf.all.rp_filter"] == space.sysctls["net.ipv4.conf.all.arp_ignore"] == "0"
    assert space.links["br0"].sysctls == {}
    assert space.links["tun0"].sysctls == {"rp_filter": "1"}


def test_default_is_left_as_it_is_but_for_what_is_asked(bench: Bench) -> None:
    space = bench.device.spaces["default"]
    space.sysctls |= {"net.ipv4.conf.all.rp_filter": "2", "net.ipv4.conf.all.arp_ignore": "1"}
    space.links["eth1"] = msgspec.structs.replace(space.links["eth1"], sysctls={"rp_filter": "2", "arp_ignore": "1"})
    before = dict(space.sysctls)
    bench.settle("default")
    assert space.sysctls == before
    bench.put("routeTables/default", STRICT, generation=2)
    bench.settle("default")
    assert space.sysctls == before | {"net.ipv4.conf.all.rp_filter": "1", "net.ipv4.conf.default.rp_filter": "1"}
    assert space.links["eth1"].sysctls == {"rp_filter": "1", "arp_ignore": "1"}


specs = {
    "interfaces/br": st.sampled_from([BRIDGE, {**BRIDGE, "enabled": False}, {**BRIDGE, "linkName": "br9"}]),
    "routeTables/a/rules/r": st.builds(
        lambda priority, interface: {**FROM_TEN, "priority": priority, **interface},
        st.integers(1, 3),
        st.sampled_from([{}, {"interface": "interfaces/br"}]),
    ),
    "routeTables/a/rules/s": st.sampled_from([{**FROM_TEN, "mark": 1}, {**FROM_TEN, "mark": 1, "kernelTable": 7}]),
    "routeTables/a/neighbors/n": st.sampled_from([STATIC, {**STATIC, "macAddress": "02:00:00:00:00:0b"}, PROXY6]),
    "routeTables/a": st.sampled_from(
        [{}, STRICT, {"forwarding": True, "arp": {"filter": True, "announce": "ARP_ANNOUNCE_BEST"}}]
    ),
}
wishes = st.fixed_dictionaries(specs)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(wishes, st.integers(0, 12)), min_size=1, max_size=4))
def test_any_sequence_of_wishes_cut_anywhere_leaves_nothing_to_do_and_nothing_over(
    steps: list[tuple[dict[str, Spec], int]],
) -> None:
    bench = Bench()
    bench.put("routeTables/default", {})
    for wish, crash_after in steps:
        for name, spec in wish.items():
            bench.put(name, spec)
        bench.round("a", stop_after=crash_after)
    bench.settle("a")
    last = steps[-1][0]
    space = bench.device.spaces["a"]
    assert len(space.rules) == 2
    assert len(space.neighbors) == 1
    idle = last["routeTables/a/neighbors/n"] is PROXY6 and "forwarding" not in last["routeTables/a"]
    for name in last:
        assert bench.state(name)[0] == ("STATE_DEGRADED" if idle and "neighbors" in name else "STATE_READY"), name
    before = [type(op) for op in plan.plan(bench.world.desired("routeTables/a"), bench.device.observe("a")) if isinstance(op, At)]
    assert before == []


def test_nothing_of_a_table_that_is_gone_is_planned(bench: Bench) -> None:
    bench.put("interfaces/br", BRIDGE)
    bench.put(RULE, FROM_TEN)
    bench.put(NEIGHBOR, STATIC)
    bench.settle("a")
    for name, spec in (("routeTables/a", {}), ("interfaces/br", BRIDGE), (RULE, FROM_TEN), (NEIGHBOR, STATIC)):
        bench.put(name, spec, deleting=True)
    assert [type(each) for each in operations(bench)] == [operation.DestroyNamespace]
    bench.settle("a")
    assert set(bench.report("a").values()) == {None}


@pytest.mark.parametrize("spec", [{**FROM_TEN, "mark": 3}, {**FROM_TEN, "destination": "10.0.0.0/8"}])
def test_rules_of_one_priority_do_not_touch_each_other(bench: Bench, spec: Spec) -> None:
    bench.put(RULE, FROM_TEN)
    bench.put("routeTables/a/rules/s", spec)
    bench.settle("a")
    bench.put(RULE, None)
    bench.settle("a")
    assert len(bench.device.spaces["a"].rules) == 1
