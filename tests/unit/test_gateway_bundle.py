"""Bundles: what they may hold, in which order they are applied, what counts as a difference."""

from collections.abc import Iterable

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as some

from crossns import errors, names
from crossns.resource import MESSAGES, Resource
from crossns.v1 import config_pb2, interface_pb2, neighbor_pb2, route_pb2, route_table_pb2, rule_pb2, v_service_pb2
from gateway import bundle, kind, reference

CREATE, UPDATE, NONE, DELETE = (
    config_pb2.ACTION_CREATE,
    config_pb2.ACTION_UPDATE,
    config_pb2.ACTION_NONE,
    config_pb2.ACTION_DELETE,
)


def _table(name: str, **spec: object) -> route_table_pb2.RouteTable:
    return route_table_pb2.RouteTable(name=f"routeTables/{name}", spec=route_table_pb2.RouteTableSpec(**spec))  # type: ignore[arg-type]


def _interface(name: str, spec: str = "dummy {}", table: str = "a") -> interface_pb2.Interface:
    parsed = text_format.Parse(spec, interface_pb2.InterfaceSpec(route_table=f"routeTables/{table}"))
    return interface_pb2.Interface(name=f"interfaces/{name}", spec=parsed)


def _route(name: str, spec: str = "") -> route_pb2.Route:
    return route_pb2.Route(name=f"routeTables/a/routes/{name}", spec=text_format.Parse(spec, route_pb2.RouteSpec()))


def _v_service(name: str, spec: str = "") -> v_service_pb2.VService:
    return v_service_pb2.VService(name=f"vServices/{name}", spec=text_format.Parse(spec, v_service_pb2.VServiceSpec()))


def _names(levels: Iterable[Iterable[Resource]]) -> list[list[str]]:
    return [[resource.name for resource in level] for level in levels]


def test_every_kind_of_the_contract_is_known_ordered_and_has_its_methods() -> None:
    assert set(bundle.ORDER) == set(kind.KINDS) == set(MESSAGES) == set(names.OWNERS)
    assert {each.field for each in kind.KINDS.values()} == {field.name for field in config_pb2.Resource.DESCRIPTOR.fields}
    for each in kind.KINDS.values():
        for verb in ("Get", "List", "Create", "Update", "Delete"):
            assert each.method(verb).containing_service.full_name == f"crossns.v1.{each.plural}"


def test_request_takes_the_fields_that_its_kind_has() -> None:
    fields = {"name": "x", "parent": "routeTables/a", "page_size": 3}
    assert kind.request(kind.KINDS["routes"].method("List"), **fields).parent == "routeTables/a"
    assert not hasattr(kind.request(kind.KINDS["interfaces"].method("List"), **fields), "parent")


def test_what_only_the_device_says_is_dropped() -> None:
    given_ = _table("a", description="x")
    given_.status.index, given_.etag, given_.generation, given_.reconciling = 7, "1", 3, True
    given_.labels["team"] = "net"
    (parsed,) = bundle.parse([kind.wrapped(given_)])
    expected = _table("a", description="x")
    expected.labels["team"] = "net"
    assert parsed == expected


def test_resource_that_stands_twice_is_refused_by_name() -> None:
    with pytest.raises(errors.RequestError) as caught:
        bundle.parse([kind.wrapped(_table("a")), kind.wrapped(_interface("i")), kind.wrapped(_table("a", forwarding=True))])
    assert (caught.value.reason, caught.value.metadata["resource"]) == ("DUPLICATE_RESOURCE", "routeTables/a")


@pytest.mark.parametrize(
    ("resource", "field"),
    [
        (config_pb2.Resource(), "resources[1]"),
        (config_pb2.Resource(interface=_interface("BAD")), "resources[1].interface.name"),
        (config_pb2.Resource(route=route_pb2.Route(name="routeTables/a")), "resources[1].route.name"),
        (config_pb2.Resource(v_service=v_service_pb2.VService()), "resources[1].v_service.name"),
    ],
    ids=["empty", "malformed name", "name of another kind", "no name"],
)
def test_what_is_no_resource_is_refused_with_its_place(resource: config_pb2.Resource, field: str) -> None:
    with pytest.raises(errors.InvalidSpec) as caught:
        bundle.parse([kind.wrapped(_table("a")), resource])
    assert caught.value.metadata["field"] == field


def test_what_others_stand_on_comes_first() -> None:
    resources: list[Resource] = [
        _v_service("web"),
        neighbor_pb2.Neighbor(name="routeTables/a/neighbors/n"),
        rule_pb2.Rule(name="routeTables/a/rules/r"),
        _route("default"),
        _interface("bridge", 'bridge { ports: "interfaces/port" ports: "interfaces/vlan" }'),
        _interface("vlan", 'vlan { parent: "interfaces/bond" vlan_id: 5 }'),
        _interface("bond", 'bond { members: "interfaces/card" }'),
        _interface("port", 'macvlan { parent: "interfaces/elsewhere" }'),
        _interface("card", "physical {}"),
        _table("a"),
    ]
    assert _names(bundle.ordered(resources)) == [
        ["routeTables/a"],
        ["interfaces/card", "interfaces/port"],
        ["interfaces/bond"],
        ["interfaces/vlan"],
        ["interfaces/bridge"],
        ["routeTables/a/routes/default"],
        ["routeTables/a/rules/r"],
        ["routeTables/a/neighbors/n"],
        ["vServices/web"],
    ]


def test_interfaces_that_stand_on_each_other_are_left_to_their_owner_to_refuse() -> None:
    resources = [
        _interface("a", 'vlan { parent: "interfaces/b" vlan_id: 1 }'),
        _interface("b", 'vlan { parent: "interfaces/a" vlan_id: 1 }'),
        _interface("c"),
    ]
    assert _names(bundle.ordered(resources)) == [["interfaces/c"], ["interfaces/a", "interfaces/b"]]


@given(some.lists(some.tuples(some.integers(0, 9), some.integers(0, 9)), max_size=20))
def test_order_is_complete_and_no_parent_comes_after_its_child(edges: list[tuple[int, int]]) -> None:
    parents = {child: parent for child, parent in edges if parent < child}
    resources = [
        _interface(f"i{each}", f'vlan {{ parent: "interfaces/i{parents[each]}" vlan_id: 1 }}' if each in parents else "dummy {}")
        for each in range(10)
    ]
    levels = _names(bundle.ordered(resources))
    place = {name: index for index, level in enumerate(levels) for name in level}
    assert len(place) == 10
    assert all(place[f"interfaces/i{parent}"] < place[f"interfaces/i{child}"] for child, parent in parents.items())


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        ("mtu: 1500", "mtu: 1500", ()),
        ("mtu: 1500", "mtu: 9000", ("mtu",)),
        ("mtu: 1500", "", ("mtu",)),
        ("", "enabled: false", ("enabled",)),
        ("enabled: true", "", ("enabled",)),
        ('addresses: "a" addresses: "b"', 'addresses: "b" addresses: "a"', ("addresses",)),
        ("vlan { vlan_id: 1 }", "vlan { vlan_id: 2 }", ("vlan.vlan_id",)),
        ("vlan { vlan_id: 1 }", "dummy {}", ("vlan", "dummy")),
        ("", "dummy {}", ("dummy",)),
        ('mtu: 1 link_name: "x"', 'mtu: 2 link_name: "y"', ("link_name", "mtu")),
    ],
)
def test_fields_that_differ_are_named_as_in_a_field_mask(before: str, after: str, changed: tuple[str, ...]) -> None:
    old, new = (text_format.Parse(text, interface_pb2.InterfaceSpec()) for text in (before, after))
    assert bundle.changed_fields(old, new) == changed


def _stored(resource: Resource, etag: str = "e", generation: int = 4) -> Resource:
    resource.etag, resource.generation = etag, generation
    return resource


def test_plan_creates_updates_leaves_and_deletes() -> None:
    stored = {each.name: each for each in (_stored(_table("same")), _stored(_table("other", description="old")))}
    wanted = [_table("new"), _table("same"), _table("other", description="new")]
    plan = bundle.plan(wanted, stored, [_stored(_table("gone"), "g"), _stored(_interface("gone"), "i")])
    assert [(step.name, step.action, step.etag, step.generation, step.changed_fields) for step in plan.steps] == [
        ("routeTables/new", CREATE, "", 0, ()),
        ("routeTables/other", UPDATE, "e", 4, ("description",)),
        ("routeTables/same", NONE, "e", 4, ()),
        ("interfaces/gone", DELETE, "i", 0, ()),
        ("routeTables/gone", DELETE, "g", 0, ()),
    ]


def test_labels_are_a_difference_too() -> None:
    wanted = _table("a")
    wanted.labels["team"] = "net"
    (step,) = bundle.plan([wanted], {"routeTables/a": _stored(_table("a"))}).steps
    assert (step.action, step.changed_fields) == (UPDATE, ("labels",))


def test_what_is_being_deleted_is_no_base_for_an_update() -> None:
    going = _stored(_table("a"))
    going.delete_time.GetCurrentTime()
    (step,) = bundle.plan([_table("a")], {"routeTables/a": going}).steps
    assert step.action == CREATE


def test_applied_bundle_plans_nothing() -> None:
    wanted: list[Resource] = [
        _table("a", forwarding=True),
        _interface("i"),
        _route("r", 'destination: "0.0.0.0/0"'),
        _v_service("v", "protocol: PROTOCOL_TCP"),
    ]
    stored = {each.name: _stored(bundle.stripped(each)) for each in wanted}
    assert {step.action for step in bundle.plan(wanted, stored).steps} == {NONE}


def test_default_is_exported_only_when_somebody_changed_it_and_never_deleted() -> None:
    default = _stored(_table("default", description="x"), generation=1)
    assert not bundle.is_wanted(default)
    assert not bundle.is_deletable(default)
    assert bundle.is_wanted(_stored(_table("default"), generation=2))
    default.labels["team"] = "net"
    assert bundle.is_wanted(default)


def test_what_is_being_deleted_is_neither_wanted_nor_deleted_again() -> None:
    going = _table("a")
    going.delete_time.GetCurrentTime()
    assert not bundle.is_wanted(going)
    assert not bundle.is_deletable(going)


def test_all_labels_must_be_carried() -> None:
    labelled = _table("a")
    labelled.labels.update({"team": "net", "env": "lab"})
    assert bundle.carries(labelled, {"team": "net"})
    assert not bundle.carries(labelled, {"team": "net", "env": "prod"})
    assert not bundle.carries(labelled, {"owner": ""})


@pytest.mark.parametrize(
    ("resource", "tables"),
    [
        (_table("a"), ("routeTables/a",)),
        (_interface("i", table="b"), ("routeTables/b",)),
        (_route("r"), ("routeTables/a",)),
        (
            _v_service(
                "v",
                'frontends { route_table: "routeTables/f" } frontends { route_table: "routeTables/b" }'
                'pools { members { route_table: "routeTables/b" } members { route_table: "routeTables/a" } }',
            ),
            ("routeTables/a", "routeTables/b", "routeTables/f"),
        ),
    ],
    ids=["itself", "where its link is", "its parent", "of frontends and members, each once"],
)
def test_resource_concerns_tables(resource: Resource, tables: tuple[str, ...]) -> None:
    assert reference.tables(resource) == tables
