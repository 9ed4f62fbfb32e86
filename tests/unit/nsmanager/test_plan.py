"""The plan room: what it does and does not do to a device in memory, and that it always comes to rest."""

import itertools

import msgspec
import pytest
from google.protobuf import json_format
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from crossns import errors, names, operation, resource, store
from crossns.v1 import route_table_pb2, status_pb2
from services.nsmanager import model, plan
from tests.unit.nsmanager.device import Device, Refused

KEYS = names.Keys("local", "nsmanager")
Spec = dict[str, object]


class Bench:
    """A world, a device in memory, and rounds as the loop does them."""

    def __init__(self) -> None:
        self.world = model.World(KEYS)
        self.device = Device()
        self.parts: dict[str, resource.Status] = {}
        self.revision = itertools.count(1)

    def put(self, name: str, spec: Spec | None, *, deleting: bool = False, generation: int = 1) -> None:
        """Spec None removes the resource for good."""
        key = KEYS.of(names.owner(name)).desired(name)
        revision = next(self.revision)
        if spec is None:
            self.world.change(store.Change(key, revision, None))
            return
        message = json_format.ParseDict({"name": name, "spec": spec}, resource.MESSAGES[names.collection(name)]())
        message.generation = generation
        if isinstance(message, route_table_pb2.RouteTable):
            message.status.index = 1
        if deleting:
            message.delete_time.GetCurrentTime()
        self.world.change(store.Change(key, revision, store.Entry(key, message.SerializeToString(), revision, revision)))

    def ops(self, table: str) -> tuple[plan.At | plan.Privileged, ...]:
        return plan.plan(self.world.desired(f"routeTables/{table}"), self.device.observe(table))

    def round(self, table: str, *, stop_after: int | None = None) -> int:
        failed: dict[str, errors.CrossnsError] = {}
        ops = self.ops(table)
        for op in ops[:stop_after]:
            if op.resource in failed:
                continue
            try:
                self.device.apply(op)
            except Refused as error:
                failed[op.resource] = errors.PermanentError("KERNEL_REFUSED", str(error))
        if stop_after is None:
            self.report(table, failed)
        return len(ops)

    def report(self, table: str, failed: dict[str, errors.CrossnsError] | None = None) -> dict[str, resource.Status | None]:
        result = plan.report(self.world.desired(f"routeTables/{table}"), self.device.observe(table), failed or {}, self.parts)
        for name, status in result.items():
            if status is None:
                self.parts.pop(name, None)
            else:
                self.parts[name] = status
        return dict(result)

    def settle(self, *tables: str, rounds: int = 12) -> None:
        for _ in range(rounds):
            if sum(self.round(table) for table in tables) == 0:
                return
        raise AssertionError(f"not at rest: {[self.ops(table) for table in tables]}")

    def state(self, name: str) -> tuple[str, str]:
        status = self.parts[name]
        return status_pb2.State.Name(status.state), status.conditions[0].reason


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.device.card("eth1", "02:00:00:00:00:01")
    made.put("routeTables/default", {})
    made.put("routeTables/a", {})
    return made


LAN: Spec = {"routeTable": "routeTables/a", "linkName": "lan", "physical": {"linkName": "eth1"}, "addresses": ["10.0.0.1/24"]}
WEB: Spec = {
    "protocol": "PROTOCOL_TCP",
    "frontends": [{"name": "f", "routeTable": "routeTables/a", "address": "10.0.0.80", "port": 80}],
}


def test_card_is_taken_out_of_default_named_and_addressed(bench: Bench) -> None:
    bench.put("interfaces/lan", LAN)
    bench.settle("a", "default")
    link = bench.device.spaces["a"].links["lan"]
    assert (link.mark, link.was, link.up) == ("interfaces.lan", "eth1", True)
    assert [each.prefix for each in bench.device.spaces["a"].addresses] == ["10.0.0.1/24"]
    assert bench.state("interfaces/lan") == ("STATE_READY", "OK")


def test_card_of_a_deleted_interface_goes_back_under_its_name(bench: Bench) -> None:
    bench.put("interfaces/lan", LAN)
    bench.settle("a", "default")
    bench.put("interfaces/lan", LAN, deleting=True)
    bench.report("a")
    assert bench.state("interfaces/lan") == ("STATE_PENDING", "IN_PROGRESS")
    bench.settle("a", "default")
    assert bench.report("a")["interfaces/lan"] is None
    assert bench.device.spaces["default"].links["eth1"].mark == ""


def test_table_that_goes_gives_its_cards_back_before_its_namespace_is_dropped(bench: Bench) -> None:
    bench.put("interfaces/lan", LAN)
    bench.settle("a", "default")
    bench.put("interfaces/lan", LAN, deleting=True)
    bench.put("routeTables/a", {}, deleting=True)
    kinds = [type(op.operation).__name__ for op in bench.ops("a")]
    assert kinds == ["MoveLink", "DestroyNamespace"]
    bench.settle("a", "default")
    assert "a" not in bench.device.spaces
    assert bench.report("a") == {"routeTables/a": None, "interfaces/lan": None}


def test_card_that_moves_to_another_table_is_pulled_by_it(bench: Bench) -> None:
    bench.put("interfaces/lan", LAN)
    bench.settle("a", "default")
    bench.put("routeTables/b", {})
    bench.put("interfaces/lan", {**LAN, "routeTable": "routeTables/b"}, generation=2)
    assert [type(op.operation) for op in bench.ops("a")] == [operation.RemoveAddress]
    bench.settle("a", "b", "default")
    assert "lan" in bench.device.spaces["b"].links
    assert bench.device.spaces["b"].links["lan"].was == "eth1"


def test_bridge_that_moves_to_another_table_is_made_anew(bench: Bench) -> None:
    spec: Spec = {"routeTable": "routeTables/a", "bridge": {}}
    bench.put("interfaces/br", spec)
    bench.settle("a")
    bench.put("routeTables/b", {})
    bench.put("interfaces/br", {**spec, "routeTable": "routeTables/b"})
    bench.settle("a", "b")
    assert "br" not in bench.device.spaces["a"].links
    assert bench.device.spaces["b"].links["br"].kind == "bridge"


def test_foreign_links_addresses_and_routes_are_never_touched(bench: Bench) -> None:
    bench.put("interfaces/lan", LAN)
    bench.settle("a", "default")
    space = bench.device.spaces["a"]
    space.links["tun0"] = operation.Link(index=99, name="tun0", kind="tun")
    space.addresses.append(operation.Address(link="lan", prefix="172.16.0.1/24", protocol=4))
    assert bench.ops("a") == ()
    bench.put("interfaces/lan", LAN, deleting=True)
    bench.settle("a", "default")
    assert "tun0" in space.links
    assert bench.report("a")["routeTables/a"].undeclared_links == ["tun0"]  # type: ignore[union-attr]


def test_table_with_a_foreign_link_is_not_dropped_until_that_is_gone(bench: Bench) -> None:
    bench.put("interfaces/lan", LAN)
    bench.settle("a", "default")
    bench.device.spaces["a"].links["tun0"] = operation.Link(index=99, name="tun0", kind="tun")
    bench.put("interfaces/lan", LAN, deleting=True)
    bench.put("routeTables/a", {}, deleting=True)
    bench.settle("a", "default")
    assert "eth1" in bench.device.spaces["default"].links
    assert bench.state("routeTables/a") == ("STATE_ERROR", "ROUTE_TABLE_NOT_EMPTY")
    assert "tun0" in bench.parts["routeTables/a"].conditions[0].message
    del bench.device.spaces["a"].links["tun0"]
    bench.settle("a")
    assert "a" not in bench.device.spaces


def test_virtual_link_whose_optional_attribute_was_taken_back_is_made_anew(bench: Bench) -> None:
    bench.put("interfaces/vx", {"routeTable": "routeTables/a", "vxlan": {"vni": 7, "remote": "10.0.0.9"}})
    bench.settle("a")
    bench.put("interfaces/vx", {"routeTable": "routeTables/a", "vxlan": {"vni": 7}}, generation=2)
    bench.settle("a")
    assert "remote" not in bench.device.spaces["a"].links["vx"].attributes


def test_bridge_whose_port_is_not_there_is_degraded_and_says_which(bench: Bench) -> None:
    bench.put("interfaces/lan", {**LAN, "physical": {"linkName": "eth9"}})
    bench.put("interfaces/br", {"routeTable": "routeTables/a", "bridge": {"ports": ["interfaces/lan"]}})
    bench.round("a")
    assert bench.state("interfaces/br") == ("STATE_DEGRADED", "PORT_MISSING")
    assert "interfaces/lan" in bench.parts["interfaces/br"].conditions[0].message


def test_missing_card_is_reported_with_what_to_do(bench: Bench) -> None:
    bench.put("interfaces/lan", {**LAN, "physical": {"linkName": "eth9"}})
    bench.settle("a")
    assert bench.state("interfaces/lan") == ("STATE_ERROR", "LINK_MISSING")
    assert "eth9" in bench.parts["interfaces/lan"].conditions[0].message


def test_vip_goes_on_the_link_whose_prefix_holds_it_and_else_on_lo(bench: Bench) -> None:
    bench.put("interfaces/lan", LAN)
    bench.put("vServices/web", WEB)
    far = {"name": "g", "routeTable": "routeTables/a", "address": "203.0.113.9", "port": 80}
    bench.put("vServices/far", {**WEB, "frontends": [far]})
    bench.settle("a", "default")
    vips = {(each.link, each.prefix) for each in bench.device.spaces["a"].addresses if each.protocol == operation.VIP_PROTOCOL}
    assert vips == {("lan", "10.0.0.80/32"), ("lo", "203.0.113.9/32")}


def test_vip_that_two_vservices_use_goes_with_the_last(bench: Bench) -> None:
    bench.put("interfaces/lan", LAN)
    bench.put("vServices/web", WEB)
    bench.put(
        "vServices/other",
        {**WEB, "frontends": [{"name": "g", "routeTable": "routeTables/a", "address": "10.0.0.80", "port": 81}]},
    )
    bench.settle("a", "default")
    bench.put("vServices/web", WEB, deleting=True)
    bench.settle("a")
    assert any(each.prefix == "10.0.0.80/32" for each in bench.device.spaces["a"].addresses)
    bench.put("vServices/other", None)
    bench.settle("a")
    assert not any(each.prefix == "10.0.0.80/32" for each in bench.device.spaces["a"].addresses)


def test_vips_part_goes_only_when_the_address_is_gone(bench: Bench) -> None:
    bench.put("interfaces/lan", LAN)
    bench.put("vServices/web", WEB)
    bench.settle("a", "default")
    bench.put("vServices/web", WEB, deleting=True)
    assert bench.report("a")["vServices/web"] is not None
    bench.settle("a")
    assert bench.report("a")["vServices/web"] is None


def test_vservice_is_ready_when_every_table_has_spoken_of_its_generation(bench: Bench) -> None:
    bench.put("routeTables/b", {})
    two = [*WEB["frontends"], {"name": "g", "routeTable": "routeTables/b", "address": "10.0.0.80", "port": 80}]  # type: ignore[misc]
    bench.put("vServices/web", {**WEB, "frontends": two}, generation=3)
    bench.settle("a")
    assert bench.parts["vServices/web"].observed_generation == 0
    bench.settle("b")
    assert bench.parts["vServices/web"].observed_generation == 3
    assert bench.state("vServices/web") == ("STATE_READY", "OK")


def test_frontend_that_a_vservice_has_no_more_is_not_spoken_of(bench: Bench) -> None:
    two = [*WEB["frontends"], {"name": "g", "routeTable": "routeTables/a", "address": "10.0.0.81", "port": 80}]  # type: ignore[misc]
    bench.put("vServices/web", {**WEB, "frontends": two})
    bench.settle("a")
    bench.put("vServices/web", WEB, generation=2)
    bench.settle("a")
    part = bench.parts["vServices/web"]
    assert ([each.name for each in part.frontends], part.observed_generation) == (["f"], 2)  # type: ignore[union-attr]


def test_route_waits_for_its_gateway_and_others_go_on(bench: Bench) -> None:
    bench.put("interfaces/lan", LAN)
    bench.put("routeTables/a/routes/bad", {"destination": "192.0.2.0/24", "gateways": [{"address": "10.9.9.9"}]})
    bench.put("routeTables/a/routes/good", {"destination": "0.0.0.0/0", "gateways": [{"address": "10.0.0.254"}]})
    bench.round("a")
    assert bench.state("routeTables/a/routes/bad") == ("STATE_ERROR", "KERNEL_REFUSED")
    assert bench.state("routeTables/a/routes/good") == ("STATE_READY", "OK")


def test_macvlan_is_made_where_its_parent_is(bench: Bench) -> None:
    bench.put("interfaces/trunk", {"routeTable": "routeTables/default", "physical": {"linkName": "eth1"}})
    bench.put("interfaces/mv", {"routeTable": "routeTables/a", "macvlan": {"parent": "interfaces/trunk"}})
    create = next(op for op in bench.ops("a") if isinstance(op.operation, operation.CreateLink))
    assert isinstance(create, plan.At)
    assert (create.table, create.operation.table, create.operation.parent) == ("default", "a", "eth1")  # type: ignore[union-attr]
    bench.settle("default", "a")
    assert bench.state("interfaces/mv") == ("STATE_READY", "OK")


def test_ports_join_their_bridge_and_leave_it_when_no_longer_named(bench: Bench) -> None:
    bench.put("interfaces/lan", {**LAN, "addresses": []})
    bridge: Spec = {"routeTable": "routeTables/a", "bridge": {"ports": ["interfaces/lan"]}}
    bench.put("interfaces/br", bridge)
    bench.settle("a", "default")
    assert bench.device.spaces["a"].links["lan"].master == "br"
    bench.put("interfaces/br", {**bridge, "bridge": {}}, generation=2)
    bench.settle("a")
    assert bench.device.spaces["a"].links["lan"].master == ""


def test_default_is_not_made_to_forward_nor_stopped_from_it_unasked(bench: Bench) -> None:
    bench.device.spaces["default"].sysctls["net.ipv4.ip_forward"] = "1"
    bench.settle("default")
    assert bench.device.spaces["default"].sysctls["net.ipv4.ip_forward"] == "1"
    bench.settle("a")
    assert bench.device.spaces["a"].sysctls["net.ipv4.ip_forward"] == "0"


def test_occupied_name_is_an_error_with_what_to_do(bench: Bench) -> None:
    bench.settle("a")
    seen = bench.device.observe("a")
    assert seen.namespace is not None
    occupied = plan.Observed(msgspec.structs.replace(seen.namespace, attached=False, occupied=True), seen.snapshot)
    desired = bench.world.desired("routeTables/a")
    assert plan.plan(desired, occupied) == ()
    status = plan.report(desired, occupied, {}, {})["routeTables/a"]
    assert isinstance(status, route_table_pb2.RouteTableStatus)
    assert status.conditions[0].reason == "FOREIGN_OBJECT"
    assert "ip netns delete a" in status.conditions[0].message


TABLES = ("a", "b", "default")
tables = st.sampled_from(TABLES)
addresses = st.lists(st.sampled_from(["10.0.0.1/24", "10.0.1.1/24", "2001:db8::1/64"]), unique=True, max_size=2)


# Few, so that one wants what another has.
link_names = st.sampled_from(["x0", "y0", "z0"])


def _interface(kind: Spec) -> st.SearchStrategy[Spec]:
    return st.builds(
        lambda table, name, given: {"routeTable": f"routeTables/{table}", "linkName": name, "addresses": given, **kind},
        tables,
        link_names,
        addresses,
    )


interfaces = st.fixed_dictionaries(
    {
        "interfaces/lan": _interface({"physical": {"linkName": "eth1"}}),
        "interfaces/wan": _interface({"physical": {"macAddress": "02:00:00:00:00:02"}}),
        "interfaces/br": _interface({"bridge": {}}),
        "interfaces/vx": _interface({"vxlan": {"vni": 7}}),
        "interfaces/mv": _interface({"macvlan": {"parent": "interfaces/lan"}}),
    }
)
wishes = st.builds(
    lambda found, kept: {name: found[name] for name in found if name in kept},
    interfaces,
    st.sets(st.sampled_from(["interfaces/lan", "interfaces/wan", "interfaces/br", "interfaces/vx", "interfaces/mv"])),
)


def _admitted(drawn: dict[str, Spec]) -> dict[str, Spec]:
    """What the API takes of it: a link name once in a table, and nothing on a parent that is not there."""
    first: dict[object, str] = {}
    for name, spec in drawn.items():
        first.setdefault((spec["routeTable"], spec["linkName"]), name)
    wish = {name: drawn[name] for name in first.values()}
    return {name: spec for name, spec in wish.items() if name != "interfaces/mv" or "interfaces/lan" in wish}


@settings(max_examples=100, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink])
@given(st.lists(st.tuples(wishes, st.integers(0, 8), tables), min_size=1, max_size=5))
def test_any_sequence_of_wishes_cut_anywhere_comes_to_rest_with_no_card_lost(
    steps: list[tuple[dict[str, Spec], int, str]],
) -> None:
    bench = Bench()
    bench.device.card("eth1", "02:00:00:00:00:01")
    bench.device.card("eth2", "02:00:00:00:00:02")
    for table in TABLES:
        bench.put(f"routeTables/{table}", {})
    known: set[str] = set()
    for drawn, crash_after, table in steps:
        wish = _admitted(drawn)
        for name in known - wish.keys():
            bench.put(name, None)
        for name, spec in wish.items():
            bench.put(name, spec)
        known = set(wish)
        bench.round(table, stop_after=crash_after)
    bench.settle(*TABLES)
    macs = [link.mac for space in bench.device.spaces.values() for link in space.links.values() if link.mac]
    assert sorted(macs) == ["02:00:00:00:00:01", "02:00:00:00:00:02"]
    for name in known:
        assert bench.state(name)[0] == "STATE_READY", (name, bench.parts[name])


@settings(max_examples=50, deadline=None)
@given(wishes)
def test_applying_a_plan_twice_is_harmless(wish: dict[str, Spec]) -> None:
    bench = Bench()
    bench.device.card("eth1", "02:00:00:00:00:01")
    bench.device.card("eth2", "02:00:00:00:00:02")
    for table in TABLES:
        bench.put(f"routeTables/{table}", {})
    for name, spec in _admitted(wish).items():
        bench.put(name, spec)
    bench.settle(*TABLES)
    before = {name: (dict(space.links), list(space.addresses)) for name, space in bench.device.spaces.items()}
    bench.settle(*TABLES)
    assert {name: (dict(space.links), list(space.addresses)) for name, space in bench.device.spaces.items()} == before
