"""What a move writes, what it meets, and what it means: on plain values."""

from google.protobuf import json_format

from crossns import examination, names, operation, resource, store
from crossns.v1 import impact_pb2, interface_pb2, route_pb2
from services.nsmanager import model, plan
from tests.unit.nsmanager.test_plan import KEYS, Spec

LAN: Spec = {"routeTable": "routeTables/a", "linkName": "lan", "physical": {"linkName": "eth1"}, "addresses": ["10.0.0.1/24"]}
BRIDGE: Spec = {"routeTable": "routeTables/a", "linkName": "br0", "bridge": {}, "addresses": ["10.0.0.129/25"]}
MACVLAN: Spec = {"routeTable": "routeTables/b", "linkName": "mv", "macvlan": {"parent": "interfaces/lan"}}
VIP: Spec = {
    "protocol": "PROTOCOL_TCP",
    "frontends": [{"name": "f", "routeTable": "routeTables/a", "address": "10.0.0.80", "port": 80}],
}


class Town:
    def __init__(self, **given: Spec) -> None:
        self.world = model.World(KEYS)
        self.stored: dict[str, resource.Resource] = {}
        for table in ("a", "b"):
            self.put(f"routeTables/{table}", {})
        for path, spec in given.items():
            self.put(path.replace("__", "/"), spec)

    def put(self, name: str, spec: Spec) -> None:
        message = json_format.ParseDict({"name": name, "spec": spec}, resource.MESSAGES[names.collection(name)]())
        key = KEYS.of(names.owner(name)).desired(name)
        self.world.change(store.Change(key, 1, store.Entry(key, message.SerializeToString(), 1, 1)))
        self.stored[name] = message

    def desired(self, table: str) -> model.Desired:
        return self.world.desired(f"routeTables/{table}")

    def move(self, keep: plan.Keep) -> plan.Relocation:
        return plan.move(self.desired("a"), self.stored, "interfaces/lan", "routeTables/b", keep)


def snapshot(*links: operation.Link, addresses: tuple[operation.Address, ...] = ()) -> operation.Snapshot:
    return operation.Snapshot(cookie=1, links=links, addresses=addresses, routes=(), sysctls={})


def route(*gateways: str) -> Spec:
    return {"destination": "0.0.0.0/0", "gateways": [{"address": each} for each in gateways]}


def test_route_goes_with_the_interface_whose_longest_prefix_holds_its_gateway() -> None:
    routes = {"routeTables__a__routes__lan": route("10.0.0.9"), "routeTables__a__routes__br": route("10.0.0.200")}
    town = Town(interfaces__lan=LAN, interfaces__br=BRIDGE, **routes)
    relocation = town.move(plan.Keep())
    assert relocation.deleted == ("routeTables/a/routes/lan",)
    assert [each.name for each in relocation.created] == ["routeTables/b/routes/lan"]
    assert relocation.created[0].spec == town.stored["routeTables/a/routes/lan"].spec


def test_route_with_other_next_hops_stays_with_those() -> None:
    town = Town(interfaces__lan=LAN, interfaces__br=BRIDGE, routeTables__a__routes__r=route("10.0.0.9", "10.0.0.200"))
    relocation = town.move(plan.Keep())
    assert (relocation.created, relocation.deleted) == ((), ())
    left = relocation.changed[1]
    assert isinstance(left, route_pb2.Route)
    assert [gateway.address for gateway in left.spec.gateways] == ["10.0.0.200"]


def test_without_addresses_a_gateway_that_only_they_reach_takes_its_route_along() -> None:
    by_name: Spec = {"destination": "10.9.0.0/16", "gateways": [{"interface": "interfaces/lan"}]}
    town = Town(interfaces__lan=LAN, routeTables__a__routes__r=route("10.0.0.9"), routeTables__a__routes__s=by_name)
    relocation = town.move(plan.Keep(addresses=False))
    assert relocation.deleted == ("routeTables/a/routes/r", "routeTables/a/routes/s")
    assert [each.name for each in relocation.created] == ["routeTables/b/routes/s"]


def test_links_that_sit_on_it_are_told_wherever_they_are() -> None:
    above: Spec = {"routeTable": "routeTables/b", "linkName": "top", "vlan": {"parent": "interfaces/mv", "vlanId": 5}}
    town = Town(interfaces__lan=LAN, interfaces__mv=MACVLAN, interfaces__top=above)
    told = plan.riders(town.move(plan.Keep()), town.desired("a"))
    assert [(item.resource, item.change) for item in told] == [
        ("interfaces/mv", impact_pb2.IMPACT_CHANGE_INTERRUPTED),
        ("interfaces/top", impact_pb2.IMPACT_CHANGE_INTERRUPTED),
    ]
    town.put("interfaces/lan", {**BRIDGE, "linkName": "lan"})
    told = plan.riders(town.move(plan.Keep()), town.desired("a"))
    assert {item.change for item in told} == {impact_pb2.IMPACT_CHANGE_RECREATED}


def test_vip_that_no_link_holds_any_more_is_critical() -> None:
    town = Town(interfaces__lan=LAN, vServices__web=VIP)
    seen = snapshot(
        operation.Link(index=1, name="lo", up=True),
        operation.Link(index=2, name="lan", mark="interfaces.lan", was="eth1", up=True),
        addresses=(operation.Address(link="lan", prefix="10.0.0.80/32", protocol=operation.VIP_PROTOCOL),),
    )
    before = plan.before(town.desired("a"), seen, examination.Examination(), ("lan",))
    town.put("interfaces/lan", {**LAN, "routeTable": "routeTables/b"})
    after = plan.after(town.desired("a"), seen, (), {}, ())
    vips = [item for item in plan.items(before, after) if item.kind == impact_pb2.IMPACT_KIND_VIP]
    assert [(item.link, item.change, item.severity, item.resource) for item in vips] == [
        ("lan", impact_pb2.IMPACT_CHANGE_REMOVED, impact_pb2.IMPACT_SEVERITY_WARNING, "vServices/web"),
        ("lo", impact_pb2.IMPACT_CHANGE_ADDED, impact_pb2.IMPACT_SEVERITY_CRITICAL, "vServices/web"),
    ]


def test_route_with_the_same_key_in_the_target_blocks_whatever_it_is_called() -> None:
    routes = {"routeTables__a__routes__r": route("10.0.0.9"), "routeTables__b__routes__other": route("192.0.2.1")}
    town = Town(interfaces__lan=LAN, **routes)
    relocation = town.move(plan.Keep())
    for each in (*relocation.changed, *relocation.created):
        town.put(each.name, json_format.MessageToDict(each)["spec"])
    there = town.desired("b")
    link = there.all_links["interfaces/lan"]
    found = plan.conflicts(link, there, snapshot(), relocation, {}, examination.Obstacles())
    assert [(each.reason, each.blocking) for each in found] == [("ALREADY_EXISTS", True)]


def test_route_that_names_an_interface_of_another_table_is_not_put_on_a_link_of_its_name() -> None:
    by_name: Spec = {"destination": "10.9.0.0/16", "gateways": [{"interface": "interfaces/lan"}]}
    town = Town(interfaces__lan={**LAN, "routeTable": "routeTables/b"}, routeTables__a__routes__s=by_name)
    seen = plan.Observed(operation.Namespace(table="a", cookie=1, attached=True), snapshot(operation.Link(index=2, name="lan")))
    assert not [op for op in plan.plan(town.desired("a"), seen) if isinstance(op.operation, operation.PutRoute)]
    said = plan.report(town.desired("a"), seen, {}, {})["routeTables/a/routes/s"]
    assert said is not None
    assert said.conditions[0].reason == "LINK_MISSING"


def test_card_that_was_not_there_does_not_go_back() -> None:
    lost = interface_pb2.Interface(name="interfaces/a-lan")
    lost.spec.physical.link_name = "eth1"
    assert plan.evacuated(plan.evacuation("routeTables/a", [lost]), impact_pb2.Impact()) == []
