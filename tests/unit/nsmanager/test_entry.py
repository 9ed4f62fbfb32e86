"""Every rule of a rule's, a neighbour's and a table's ARP spec refuses with the field's path; what is the same reads the same."""

import pytest
from google.protobuf import json_format

from crossns import errors
from crossns.resource import Draft
from crossns.v1 import neighbor_pb2, route_table_pb2, rule_pb2
from services.nsmanager import model
from services.nsmanager.servicer import kind

Spec = dict[str, object]
LOOKUP: Spec = {"priority": 100, "family": "IP_FAMILY_IPV4", "kernelTable": 100}
STATIC: Spec = {"address": "10.0.0.9", "interface": "interfaces/lan", "macAddress": "02:00:00:00:00:09"}


def rule(spec: Spec) -> rule_pb2.Rule:
    return json_format.ParseDict({"name": "routeTables/a/rules/r", "spec": spec}, rule_pb2.Rule())


def neighbor(spec: Spec) -> neighbor_pb2.Neighbor:
    return json_format.ParseDict({"name": "routeTables/a/neighbors/n", "spec": spec}, neighbor_pb2.Neighbor())


def table(spec: Spec) -> model.Table:
    return model.route_table(json_format.ParseDict({"name": "routeTables/a", "spec": spec}, route_table_pb2.RouteTable()))


@pytest.mark.parametrize(
    ("spec", "field", "reason"),
    [
        ({}, "spec.priority", "REQUIRED_FIELD"),
        ({**LOOKUP, "priority": 32766}, "spec.priority", "INVALID_FIELD"),
        ({"priority": 1, "kernelTable": 100}, "spec.family", "REQUIRED_FIELD"),
        ({**LOOKUP, "family": 7}, "spec.family", "INVALID_FIELD"),
        ({**LOOKUP, "source": "2001:db8::/32"}, "spec.family", "INVALID_FIELD"),
        ({**LOOKUP, "family": 0, "source": "10.0.0.0/8", "destination": "2001:db8::/32"}, "spec.family", "INVALID_FIELD"),
        ({**LOOKUP, "source": "10.0.0.1/24"}, "spec.source", "INVALID_FIELD"),
        ({**LOOKUP, "destination": "all"}, "spec.destination", "INVALID_FIELD"),
        ({**LOOKUP, "interface": "lan"}, "spec.interface", "INVALID_NAME"),
        ({**LOOKUP, "mark": 0x100, "markMask": 0xFF}, "spec.mark", "INVALID_FIELD"),
        ({**LOOKUP, "action": 9}, "spec.action", "INVALID_FIELD"),
        ({**LOOKUP, "kernelTable": 0}, "spec.kernel_table", "REQUIRED_FIELD"),
        ({**LOOKUP, "action": "RULE_ACTION_PROHIBIT"}, "spec.kernel_table", "INVALID_FIELD"),
    ],
)
def test_rule_that_breaks_a_rule_is_refused_with_its_field(spec: Spec, field: str, reason: str) -> None:
    with pytest.raises(errors.InvalidSpec) as caught:
        model.rule(rule(spec))
    assert (caught.value.metadata["field"], caught.value.reason) == (field, reason)


@pytest.mark.parametrize(
    ("spec", "field", "reason"),
    [
        ({}, "spec.address", "REQUIRED_FIELD"),
        ({**STATIC, "address": "10.0.0.9/24"}, "spec.address", "INVALID_FIELD"),
        ({**STATIC, "address": "224.0.0.1"}, "spec.address", "INVALID_FIELD"),
        ({**STATIC, "address": "::1"}, "spec.address", "INVALID_FIELD"),
        ({**STATIC, "address": "::"}, "spec.address", "INVALID_FIELD"),
        ({**STATIC, "interface": ""}, "spec.interface", "REQUIRED_FIELD"),
        ({**STATIC, "macAddress": ""}, "spec.mac_address", "REQUIRED_FIELD"),
        ({**STATIC, "macAddress": "02:00"}, "spec.mac_address", "INVALID_FIELD"),
        ({**STATIC, "macAddress": "00:00:00:00:00:00"}, "spec.mac_address", "INVALID_FIELD"),
        ({**STATIC, "proxy": True}, "spec.mac_address", "INVALID_FIELD"),
    ],
)
def test_neighbour_that_breaks_a_rule_is_refused_with_its_field(spec: Spec, field: str, reason: str) -> None:
    with pytest.raises(errors.InvalidSpec) as caught:
        model.neighbor(neighbor(spec))
    assert (caught.value.metadata["field"], caught.value.reason) == (field, reason)


def test_family_of_a_rule_is_that_of_its_prefixes_or_the_one_that_is_given() -> None:
    assert model.rule(rule({**LOOKUP, "family": 0, "source": "2001:db8::/32"})).version == 6
    assert model.rule(rule({**LOOKUP, "family": 0, "destination": "10.0.0.0/8"})).version == 4
    assert model.rule(rule({**LOOKUP, "family": "IP_FAMILY_IPV6"})).version == 6


def test_prefix_that_holds_everything_selects_nothing_but_tells_the_family() -> None:
    read = model.rule(rule({**LOOKUP, "family": 0, "source": "::/0"}))
    assert (read.version, read.source) == (6, "")


@pytest.mark.parametrize(
    ("mark", "mask", "read"), [(0, 0, (0, 0)), (5, 0, (5, 0xFFFFFFFF)), (5, 0xF, (5, 0xF)), (0, 0xF0, (0, 0xF0))]
)
def test_mark_without_a_mask_counts_in_all_bits_and_no_bits_may_be_asked_for(mark: int, mask: int, read: tuple[int, int]) -> None:
    found = model.rule(rule({**LOOKUP, "mark": mark, "markMask": mask}))
    assert (found.mark, found.mark_mask) == read


def _claimed(draft: Draft) -> list[tuple[str, str]]:
    return [(claim.kind, claim.key) for claim in draft.claims]


def test_rules_collide_by_table_family_priority_and_selector_whatever_they_do() -> None:
    written = kind.RULE.draft(rule({**LOOKUP, "source": "10.0.0.0/8", "interface": "interfaces/lan", "mark": 1}))
    same = kind.RULE.draft(
        rule(
            {
                "priority": 100,
                "source": "10.0.0.0/8",
                "interface": "interfaces/lan",
                "mark": 1,
                "markMask": 0xFFFFFFFF,
                "action": "RULE_ACTION_BLACKHOLE",
            }
        )
    )
    assert _claimed(written) == _claimed(same)
    others: list[Spec] = [
        {**LOOKUP},
        {**LOOKUP, "priority": 101},
        {**LOOKUP, "family": "IP_FAMILY_IPV6"},
        {**LOOKUP, "destination": "10.0.0.0/8"},
        {**LOOKUP, "source": "10.0.0.0/8"},
        {**LOOKUP, "interface": "interfaces/lan"},
        {**LOOKUP, "mark": 1},
        {**LOOKUP, "mark": 1, "markMask": 1},
    ]
    keys = [_claimed(kind.RULE.draft(rule(spec)))[0] for spec in others]
    assert len(set(keys)) == len(others)
    assert [reference.target for reference in written.references] == ["routeTables/a", "interfaces/lan"]


def test_neighbours_collide_by_link_and_address_static_or_answered_for() -> None:
    static, proxy = (kind.NEIGHBOR.draft(neighbor(spec)) for spec in (STATIC, {**STATIC, "macAddress": "", "proxy": True}))
    assert _claimed(static) == _claimed(proxy)
    assert _claimed(static) != _claimed(kind.NEIGHBOR.draft(neighbor({**STATIC, "interface": "interfaces/wan"})))
    assert [reference.target for reference in static.references] == ["routeTables/a", "interfaces/lan"]


@pytest.mark.parametrize(
    ("spec", "conf"),
    [
        ({}, {}),
        ({"arp": {}}, {}),
        ({"arp": {"filter": False}}, {"arp_filter": 0}),
        ({"arp": {"filter": True, "ignore": "ARP_IGNORE_NEVER"}}, {"arp_filter": 1, "arp_ignore": 0}),
        ({"arp": {"ignore": "ARP_IGNORE_OTHER_LINK", "announce": "ARP_ANNOUNCE_ANY"}}, {"arp_ignore": 1, "arp_announce": 0}),
        ({"arp": {"ignore": "ARP_IGNORE_OTHER_SUBNET", "announce": "ARP_ANNOUNCE_BEST"}}, {"arp_ignore": 2, "arp_announce": 2}),
        ({"arp": {"ignore": "ARP_IGNORE_HOST_SCOPE"}}, {"arp_ignore": 3}),
        ({"arp": {"ignore": "ARP_IGNORE_ALWAYS", "announce": "ARP_ANNOUNCE_SAME_SUBNET"}}, {"arp_ignore": 8, "arp_announce": 1}),
        ({"reversePathFilter": "REVERSE_PATH_FILTER_OFF"}, {"rp_filter": 0}),
        ({"reversePathFilter": "REVERSE_PATH_FILTER_STRICT"}, {"rp_filter": 1}),
        ({"reversePathFilter": "REVERSE_PATH_FILTER_LOOSE"}, {"rp_filter": 2}),
    ],
)
def test_arp_behaviour_and_reverse_path_filter_are_the_kernels_numbers(spec: Spec, conf: dict[str, int]) -> None:
    assert table(spec).conf == conf


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"arp": {"ignore": 99}}, "spec.arp.ignore"),
        ({"arp": {"announce": 99}}, "spec.arp.announce"),
        ({"reversePathFilter": 99}, "spec.reverse_path_filter"),
    ],
)
def test_value_that_is_not_known_is_refused_with_its_field(spec: Spec, field: str) -> None:
    with pytest.raises(errors.InvalidSpec) as caught:
        table(spec)
    assert caught.value.metadata["field"] == field
