"""Every rule of an interface's, a route's and a route table's spec refuses with the field's path and what to do."""

from collections.abc import Mapping

import pytest
from google.protobuf import json_format

from crossns import errors
from crossns.v1 import interface_pb2, route_pb2, route_table_pb2
from services.nsmanager import model

BRIDGE = {"routeTable": "routeTables/a", "bridge": {}}


def interface(spec: Mapping[str, object], name: str = "interfaces/lan") -> interface_pb2.Interface:
    return json_format.ParseDict({"name": name, "spec": spec}, interface_pb2.Interface())


def route(spec: Mapping[str, object]) -> route_pb2.Route:
    return json_format.ParseDict({"name": "routeTables/a/routes/r", "spec": spec}, route_pb2.Route())


@pytest.mark.parametrize(
    ("spec", "field", "reason"),
    [
        ({}, "spec.route_table", "REQUIRED_FIELD"),
        ({"routeTable": "tables/a", "bridge": {}}, "spec.route_table", "INVALID_NAME"),
        ({"routeTable": "routeTables/a"}, "spec.kind", "REQUIRED_FIELD"),
        ({**BRIDGE, "linkName": "sixteen-letters-"}, "spec.link_name", "INVALID_FIELD"),
        ({**BRIDGE, "linkName": "new\nline"}, "spec.link_name", "INVALID_FIELD"),
        ({**BRIDGE, "linkName": 'quo"te'}, "spec.link_name", "INVALID_FIELD"),
        ({**BRIDGE, "linkName": "a/b"}, "spec.link_name", "INVALID_FIELD"),
        ({**BRIDGE, "linkName": "lo"}, "spec.link_name", "INVALID_FIELD"),
        ({**BRIDGE, "addresses": ["10.0.0.1"]}, "spec.addresses[0]", "INVALID_FIELD"),
        ({**BRIDGE, "addresses": ["10.0.0.1/24", "ten"]}, "spec.addresses[1]", "INVALID_FIELD"),
        ({**BRIDGE, "addresses": ["127.0.0.1/8"]}, "spec.addresses[0]", "INVALID_FIELD"),
        ({**BRIDGE, "addresses": ["fe80::1%eth0/64"]}, "spec.addresses[0]", "INVALID_FIELD"),
        ({**BRIDGE, "addresses": ["10.0.0.1/24", "10.0.0.1/16"]}, "spec.addresses", "INVALID_FIELD"),
        ({**BRIDGE, "mtu": 67}, "spec.mtu", "INVALID_FIELD"),
        ({**BRIDGE, "mtu": 65536}, "spec.mtu", "INVALID_FIELD"),
        ({"routeTable": "routeTables/a", "bridge": {"ports": ["eth0"]}}, "spec.bridge.ports[0]", "INVALID_NAME"),
        ({**BRIDGE, "mtu": 1279, "addresses": ["2001:db8::1/64"]}, "spec.mtu", "INVALID_FIELD"),
        ({"routeTable": "routeTables/a", "bridge": {"ports": ["interfaces/lan"]}}, "spec.bridge", "INVALID_FIELD"),
        ({"routeTable": "routeTables/a", "physical": {}}, "spec.physical", "REQUIRED_FIELD"),
        ({"routeTable": "routeTables/a", "physical": {"linkName": "e", "macAddress": "aa"}}, "spec.physical", "REQUIRED_FIELD"),
        ({"routeTable": "routeTables/a", "physical": {"macAddress": "aa"}}, "spec.physical.mac_address", "INVALID_FIELD"),
        (
            {"routeTable": "routeTables/a", "vlan": {"parent": "interfaces/p", "vlanId": 4095}},
            "spec.vlan.vlan_id",
            "INVALID_FIELD",
        ),
        ({"routeTable": "routeTables/a", "macvlan": {}}, "spec.macvlan.parent", "REQUIRED_FIELD"),
        ({"routeTable": "routeTables/a", "vxlan": {}}, "spec.vxlan.vni", "INVALID_FIELD"),
        (
            {"routeTable": "routeTables/a", "vxlan": {"vni": 1, "local": "10.0.0.1", "remote": "::2"}},
            "spec.vxlan.remote",
            "INVALID_FIELD",
        ),
        ({"routeTable": "routeTables/a", "tap": {"ownerUid": -1}}, "spec.tap.owner_uid", "INVALID_FIELD"),
    ],
)
def test_interface_that_breaks_a_rule_is_refused_with_its_field(spec: dict[str, object], field: str, reason: str) -> None:
    with pytest.raises(errors.InvalidSpec) as caught:
        model.interface(interface(spec))
    assert (caught.value.metadata["field"], caught.value.reason) == (field, reason)


def test_link_name_defaults_to_the_card_then_to_the_id() -> None:
    card = interface({"routeTable": "routeTables/a", "physical": {"linkName": "eth1"}})
    assert model.interface(card).name == "eth1"
    assert model.interface(interface(BRIDGE)).name == "lan"
    with pytest.raises(errors.InvalidSpec, match="link_name"):
        model.interface(interface(BRIDGE, name="interfaces/longer-than-fifteen"))


def test_interface_is_up_unless_it_is_said_otherwise() -> None:
    assert model.interface(interface(BRIDGE)).up
    assert not model.interface(interface({**BRIDGE, "enabled": False})).up


@pytest.mark.parametrize(
    ("spec", "field", "reason"),
    [
        ({}, "spec.destination", "REQUIRED_FIELD"),
        ({"destination": "10.0.0.1/24", "type": "ROUTE_TYPE_BLACKHOLE"}, "spec.destination", "INVALID_FIELD"),
        ({"destination": "10.0.0.0", "type": "ROUTE_TYPE_BLACKHOLE"}, "spec.destination", "INVALID_FIELD"),
        ({"destination": "10.0.0.0/24"}, "spec.gateways", "REQUIRED_FIELD"),
        ({"destination": "10.0.0.0/24", "gateways": [{}]}, "spec.gateways[0]", "REQUIRED_FIELD"),
        ({"destination": "10.0.0.0/24", "gateways": [{"address": "::1"}]}, "spec.gateways[0].address", "INVALID_FIELD"),
        ({"destination": "10.0.0.0/24", "gateways": [{"address": "x"}]}, "spec.gateways[0].address", "INVALID_FIELD"),
        ({"destination": "10.0.0.0/24", "gateways": [{"interface": "x"}]}, "spec.gateways[0].interface", "INVALID_NAME"),
        (
            {"destination": "10.0.0.0/24", "gateways": [{"address": "10.9.0.1", "weight": 257}]},
            "spec.gateways[0].weight",
            "INVALID_FIELD",
        ),
        (
            {"destination": "::/0", "type": "ROUTE_TYPE_PROHIBIT", "gateways": [{"address": "::1"}]},
            "spec.gateways",
            "INVALID_FIELD",
        ),
    ],
)
def test_route_that_breaks_a_rule_is_refused_with_its_field(spec: dict[str, object], field: str, reason: str) -> None:
    with pytest.raises(errors.InvalidSpec) as caught:
        model.route(route(spec))
    assert (caught.value.metadata["field"], caught.value.reason) == (field, reason)


def test_message_about_host_bits_says_what_to_write() -> None:
    with pytest.raises(errors.InvalidSpec, match=r"write 10\.0\.0\.0/24"):
        model.route(route({"destination": "10.0.0.7/24", "type": "ROUTE_TYPE_BLACKHOLE"}))


def test_ipv6_route_without_metric_gets_the_kernels() -> None:
    assert model.route(route({"destination": "::/0", "type": "ROUTE_TYPE_BLACKHOLE"})).metric == 1024
    assert model.route(route({"destination": "0.0.0.0/0", "type": "ROUTE_TYPE_BLACKHOLE"})).metric == 0


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"index": -1}, "spec.index"),
        ({"index": 65536}, "spec.index"),
        ({"displayName": "x" * 64}, "spec.display_name"),
        ({"description": "two\nlines"}, "spec.description"),
    ],
)
def test_route_table_that_breaks_a_rule_is_refused_with_its_field(spec: dict[str, object], field: str) -> None:
    message = json_format.ParseDict({"name": "routeTables/a", "spec": spec}, route_table_pb2.RouteTable())
    with pytest.raises(errors.InvalidSpec) as caught:
        model.route_table(message)
    assert caught.value.metadata["field"] == field
