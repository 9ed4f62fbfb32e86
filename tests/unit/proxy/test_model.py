"""What is refused in a vService, where, and in which words."""

from collections.abc import Callable

import pytest

from crossns import errors
from crossns.v1 import v_service_pb2
from services.proxy import model
from tests.unit.proxy import sample

Change = Callable[[v_service_pb2.VServiceSpec], object]


def refused(change: Change) -> errors.InvalidSpec:
    message = sample.message()
    change(message.spec)
    with pytest.raises(errors.InvalidSpec) as caught:
        model.v_service(message)
    return caught.value


def test_valid_vservice_is_taken_as_it_is() -> None:
    parsed = model.v_service(sample.message())
    assert (parsed.name, parsed.generation) == ("vServices/web", 3)
    assert [(each.name, each.table, str(each.address), each.port) for each in parsed.frontends] == [
        ("dmz", "routeTables/dmz", "203.0.113.10", 80)
    ]
    assert [(each.name, each.table, str(each.address), each.port) for each in parsed.pools[0].members] == [
        ("a1", "routeTables/tenant-a", "10.0.0.5", 8080),
        ("b1", "routeTables/tenant-b", "10.0.0.5", 8080),
    ]


@pytest.mark.parametrize(("seconds", "nanos"), [(0, -1), (-(2**63), 0)], ids=str)
def test_time_of_creation_that_a_client_makes_up_is_not_heard(seconds: int, nanos: int) -> None:
    message = sample.message()
    message.create_time.seconds, message.create_time.nanos = seconds, nanos
    assert model.v_service(message).name == "vServices/web"


def test_the_only_pool_serves_a_frontend_that_names_none() -> None:
    assert model.v_service(sample.message()).frontends[0].pool == "main"


@pytest.mark.parametrize("field", ["algorithm", "datapath"])
def test_what_may_be_left_open_is_taken_open(field: str) -> None:
    message = sample.message()
    (message.spec.pools[0] if field == "algorithm" else message.spec).ClearField(field)  # type: ignore[arg-type]
    assert model.v_service(message).pools


def test_members_of_both_families_stand_in_one_pool() -> None:
    message = sample.message()
    message.spec.pools[0].members[1].address = "fd00::5"
    assert [each.address.version for each in model.v_service(message).pools[0].members] == [4, 6]


def test_an_address_is_known_in_any_spelling() -> None:
    message = sample.message()
    message.spec.frontends[0].address = "FD00:0:0::0001"
    assert str(model.v_service(message).frontends[0].address) == "fd00::1"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda spec: spec.ClearField("protocol"), "spec.protocol"),
        (lambda spec: spec.ClearField("frontends"), "spec.frontends"),
        (lambda spec: spec.ClearField("pools"), "spec.pools"),
        (lambda spec: spec.frontends[0].ClearField("name"), "spec.frontends[0].name"),
        (lambda spec: spec.frontends[0].ClearField("route_table"), "spec.frontends[0].route_table"),
        (lambda spec: spec.frontends[0].ClearField("address"), "spec.frontends[0].address"),
        (lambda spec: spec.frontends[0].ClearField("port"), "spec.frontends[0].port"),
        (lambda spec: spec.pools[0].ClearField("name"), "spec.pools[0].name"),
        (lambda spec: spec.pools[0].ClearField("members"), "spec.pools[0].members"),
        (lambda spec: spec.pools[0].members[1].ClearField("name"), "spec.pools[0].members[1].name"),
        (lambda spec: spec.pools[0].members[1].ClearField("route_table"), "spec.pools[0].members[1].route_table"),
        (lambda spec: spec.pools[0].members[1].ClearField("address"), "spec.pools[0].members[1].address"),
    ],
)
def test_what_is_missing_is_asked_for_by_its_path(change: Change, field: str) -> None:
    error = refused(change)
    assert (error.reason, error.metadata["field"]) == ("REQUIRED_FIELD", field)
    assert error.message.startswith(f"{field}: is required: give ")


@pytest.mark.parametrize("name", ["A", "1a", "a-", "a.b", "a b", "a\n", 'a"', "a" * 64, "ä", "-"])
def test_what_is_no_id_is_refused_as_a_name_of_any_part(name: str) -> None:
    def of_frontend(spec: v_service_pb2.VServiceSpec) -> None:
        spec.frontends[0].name = name

    def of_pool(spec: v_service_pb2.VServiceSpec) -> None:
        spec.pools[0].name = name

    def of_member(spec: v_service_pb2.VServiceSpec) -> None:
        spec.pools[0].members[0].name = name

    fields = [refused(change).metadata["field"] for change in (of_frontend, of_pool, of_member)]
    assert fields == ["spec.frontends[0].name", "spec.pools[0].name", "spec.pools[0].members[0].name"]


@pytest.mark.parametrize(
    "name", ["dmz", "routeTables/", "routeTables/Dmz", "routeTables/a/routes/b", "interfaces/dmz", "routeTables/a\n"]
)
def test_what_is_no_route_table_is_refused(name: str) -> None:
    def of_frontend(spec: v_service_pb2.VServiceSpec) -> None:
        spec.frontends[0].route_table = name

    def of_member(spec: v_service_pb2.VServiceSpec) -> None:
        spec.pools[0].members[0].route_table = name

    assert refused(of_frontend).reason == refused(of_member).reason == "INVALID_NAME"


def test_a_name_of_another_collection_is_refused() -> None:
    message = sample.message()
    message.name = "routeTables/web"
    with pytest.raises(errors.InvalidSpec, match=r"name: .*vServices/\{id\}"):
        model.v_service(message)


def test_what_is_left_out_has_its_default() -> None:
    parsed = model.v_service(sample.message())
    frontend, member = parsed.frontends[0], parsed.pools[0].members[0]
    assert (parsed.protocol, parsed.timeouts, parsed.access_log) == ("tcp", model.Timeouts(), False)
    assert (frontend.end_port, frontend.accept_proxy, frontend.limits) == (80, False, model.Limits())
    assert (member.weight, member.state, member.max_connections) == (1, "enabled", 0)


def test_what_is_given_is_taken_as_it_is() -> None:
    message = sample.message()
    message.spec.protocol, message.spec.access_log = v_service_pb2.PROTOCOL_HTTP, True
    for number, field in enumerate(message.spec.timeouts.DESCRIPTOR.fields, start=1):
        getattr(message.spec.timeouts, field.name).FromMilliseconds(number)
    frontend, member = message.spec.frontends[0], message.spec.pools[0].members[0]
    frontend.end_port, frontend.accept_proxy_protocol = 90, True
    for number, field in enumerate(frontend.limits.DESCRIPTOR.fields, start=1):
        setattr(frontend.limits, field.name, number)
    member.port, member.weight, member.max_connections = 0, 256, 1_000_000
    parsed = model.v_service(message)
    assert (parsed.protocol, parsed.access_log) == ("http", True)
    assert parsed.timeouts == model.Timeouts(
        connect_ms=1, client_idle_ms=2, member_idle_ms=3, queue_ms=4, http_request_ms=5, http_keep_alive_ms=6
    )
    assert (parsed.frontends[0].end_port, parsed.frontends[0].accept_proxy) == (90, True)
    assert parsed.frontends[0].limits == model.Limits(connections=1, connections_per_client=2, connection_rate=3)
    parsed_member = parsed.pools[0].members[0]
    assert (parsed_member.port, parsed_member.weight, parsed_member.max_connections) == (0, 256, 1_000_000)


def test_two_members_of_a_pool_cannot_be_the_same_backend() -> None:
    def change(spec: v_service_pb2.VServiceSpec) -> None:
        spec.pools[0].members.add(name="again", route_table="routeTables/tenant-a", address="10.0.0.5", port=8080, weight=9)

    error = refused(change)
    assert error.metadata["field"] == "spec.pools[0].members[2]"
    assert error.message == (
        "spec.pools[0].members[2]: a1 is 10.0.0.5:8080 in routeTables/tenant-a already: give another one, or that one more weight"
    )


@pytest.mark.parametrize(
    ("table", "port"), [("routeTables/dmz", 8080), ("routeTables/tenant-a", 8081), ("routeTables/tenant-a", 0)]
)
def test_one_address_may_be_in_two_tables_or_at_two_ports(table: str, port: int) -> None:
    message = sample.message()
    message.spec.pools[0].members.add(name="again", route_table=table, address="10.0.0.5", port=port)
    assert len(model.v_service(message).pools[0].members) == 3


def test_names_are_unique_among_frontends_pools_and_members() -> None:
    def frontends(spec: v_service_pb2.VServiceSpec) -> None:
        spec.frontends.add(name="dmz", route_table="routeTables/dmz", address="203.0.113.10", port=81)

    def pools(spec: v_service_pb2.VServiceSpec) -> None:
        spec.pools.add().CopyFrom(spec.pools[0])

    def members(spec: v_service_pb2.VServiceSpec) -> None:
        spec.pools[0].members[1].name = "a1"

    fields = [refused(change).metadata["field"] for change in (frontends, pools, members)]
    assert fields == ["spec.frontends[1].name", "spec.pools[1].name", "spec.pools[0].members[1].name"]


def test_members_of_two_pools_may_have_one_name() -> None:
    message = sample.message()
    message.spec.frontends[0].pool = "main"
    message.spec.pools.add(name="other").members.add().CopyFrom(message.spec.pools[0].members[0])
    assert len(model.v_service(message).pools) == 2


def test_with_several_pools_a_frontend_must_choose() -> None:
    def change(spec: v_service_pb2.VServiceSpec) -> None:
        spec.pools.add(name="other").members.add().CopyFrom(spec.pools[0].members[0])

    error = refused(change)
    assert (error.reason, error.metadata["field"]) == ("REQUIRED_FIELD", "spec.frontends[0].pool")
    assert "main, other" in error.message


def test_a_pool_that_is_not_there_is_refused_with_those_that_are() -> None:
    def change(spec: v_service_pb2.VServiceSpec) -> None:
        spec.frontends[0].pool = "mian"

    error = refused(change)
    assert error.metadata["field"] == "spec.frontends[0].pool"
    assert error.message.endswith("'mian' is not one of spec.pools: give one of main")


def test_two_frontends_cannot_share_a_port_of_a_vip_in_a_table() -> None:
    def change(spec: v_service_pb2.VServiceSpec) -> None:
        spec.frontends.add(name="other", route_table="routeTables/dmz", address="203.0.113.10", port=80)

    error = refused(change)
    assert error.metadata["field"] == "spec.frontends[1]"
    assert "dmz listens on 203.0.113.10:80 in routeTables/dmz already" in error.message


@pytest.mark.parametrize(("port", "last", "where"), [(79, 80, 80), (70, 90, 80), (80, 81, 80), (82, 90, 82)])
def test_ranges_of_two_frontends_do_not_overlap(port: int, last: int, where: int) -> None:
    def change(spec: v_service_pb2.VServiceSpec) -> None:
        spec.frontends[0].end_port = 82
        spec.frontends.add(name="other", route_table="routeTables/dmz", address="203.0.113.10", port=port, end_port=last)

    error = refused(change)
    assert error.metadata["field"] == "spec.frontends[1]"
    assert f"dmz listens on 203.0.113.10:{where} in routeTables/dmz already" in error.message


def test_a_vservice_has_only_so_many_ports_in_all() -> None:
    def change(spec: v_service_pb2.VServiceSpec, more: int = 1) -> None:
        spec.frontends[0].port, spec.frontends[0].end_port = 1, 1000
        spec.frontends.add(name="other", route_table="routeTables/dmz", address="203.0.113.10", port=2001, end_port=2024 + more)

    error = refused(change)
    assert error.metadata["field"] == "spec.frontends"
    assert "1025 ports" in error.message
    message = sample.message()
    change(message.spec, more=0)
    assert sum(frontend.ports for frontend in model.v_service(message).frontends) == 1024


def test_an_address_in_another_spelling_is_the_same_vip() -> None:
    def change(spec: v_service_pb2.VServiceSpec) -> None:
        spec.frontends.add(name="six", route_table="routeTables/dmz", address="fd00::1", port=80)
        spec.frontends.add(name="other", route_table="routeTables/dmz", address="FD00:0::1", port=80)

    assert refused(change).metadata["field"] == "spec.frontends[2]"


@pytest.mark.parametrize(("table", "port"), [("routeTables/tenant-a", 80), ("routeTables/dmz", 443)])
def test_one_vip_may_be_in_two_tables_or_on_two_ports(table: str, port: int) -> None:
    message = sample.message()
    message.spec.frontends.add(name="other", route_table=table, address="203.0.113.10", port=port)
    assert len(model.v_service(message).frontends) == 2


def test_more_parts_than_the_bounds_are_refused() -> None:
    def frontends(spec: v_service_pb2.VServiceSpec) -> None:
        for index in range(64):
            spec.frontends.add(name=f"f{index}", route_table="routeTables/dmz", address="203.0.113.11", port=index + 1)

    def pools(spec: v_service_pb2.VServiceSpec) -> None:
        for index in range(64):
            spec.pools.add().CopyFrom(spec.pools[0])
            spec.pools[-1].name = f"p{index}"

    def members(spec: v_service_pb2.VServiceSpec) -> None:
        for index in range(255):
            spec.pools[0].members.add(name=f"m{index}", route_table="routeTables/dmz", address="10.0.0.5", port=index + 1)

    bounds = [(error.metadata["field"], error.metadata["max"]) for error in map(refused, (frontends, pools, members))]
    assert bounds == [("spec.frontends", "64"), ("spec.pools", "64"), ("spec.pools[0].members", "256")]


def test_as_many_parts_as_the_bounds_are_taken() -> None:
    message = sample.message()
    for index in range(63):
        message.spec.frontends.add(name=f"f{index}", route_table="routeTables/dmz", address="203.0.113.11", port=index + 1)
    for index in range(254):
        message.spec.pools[0].members.add(name=f"m{index}", route_table="routeTables/dmz", address="10.0.0.5", port=index + 1)
    parsed = model.v_service(message)
    assert (len(parsed.frontends), len(parsed.pools[0].members)) == (64, 256)


def test_a_refusal_shows_no_more_than_a_line_of_what_was_sent() -> None:
    def change(spec: v_service_pb2.VServiceSpec) -> None:
        spec.frontends[0].address = "x" * 100_000 + "\nbind :1"

    error = refused(change)
    assert "\n" not in error.message
    assert len(error.message) < 400
