"""What clients want, kept in a real etcd: races, claims, references, the deletion protocol, repeated requests."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable

import pytest
from google.protobuf import field_mask_pb2, json_format

from crossns import errors, names, resource, store
from crossns.etcd.client import EtcdStore
from crossns.registry import Options, Registry
from crossns.v1 import interface_pb2, route_pb2, route_table_pb2, status_pb2
from services.nsmanager import servicer
from tests import absent

KEYS = names.Keys("local", "nsmanager")
Count = Callable[[int, int], int]

pytestmark = pytest.mark.fault


@pytest.fixture
def registries(backend: EtcdStore) -> dict[str, Registry]:
    return servicer.registries(backend, KEYS)


def table(name: str, **spec: object) -> route_table_pb2.RouteTable:
    return json_format.ParseDict({"name": f"routeTables/{name}", "spec": spec}, route_table_pb2.RouteTable())


def bridge(name: str, in_table: str, **spec: object) -> interface_pb2.Interface:
    wanted = {"routeTable": f"routeTables/{in_table}", "bridge": {}, **spec}
    return json_format.ParseDict({"name": f"interfaces/{name}", "spec": wanted}, interface_pb2.Interface())


def route(in_table: str, name: str, **spec: object) -> route_pb2.Route:
    return json_format.ParseDict({"name": f"routeTables/{in_table}/routes/{name}", "spec": spec}, route_pb2.Route())


async def outcome(call: Awaitable[object]) -> str:
    """ "won", or the reason of the refusal."""
    try:
        await call
    except errors.CrossnsError as error:
        return error.reason
    return "won"


async def everything(backend: store.Store) -> dict[str, bytes]:
    return {entry.key: entry.value for entry in (await backend.list(KEYS.device_prefix)).entries}


async def lead(backend: store.Store) -> store.CreatedAt:
    return store.CreatedAt(KEYS.leader, await backend.commit([], [store.Put(KEYS.leader, b"test")]))


async def race(pairs: int, contest: Callable[[int], tuple[Awaitable[object], Awaitable[object]]]) -> list[set[str]]:
    async def one(number: int) -> set[str]:
        first, second = contest(number)
        results = await asyncio.gather(outcome(first), outcome(second))
        assert results.count("won") == 1, results
        return set(results) - {"won"}

    results: list[set[str]] = []
    for begin in range(0, pairs, 10):
        results += await asyncio.gather(*(one(number) for number in range(begin, min(begin + 10, pairs))))
    return results


async def test_of_two_creators_of_one_name_exactly_one_wins(registries: dict[str, Registry], count: Count) -> None:
    tables = registries["routeTables"]
    lost = await race(
        count(40, 200), lambda n: (tables.create(table(f"t{n}"), Options()), tables.create(table(f"t{n}"), Options()))
    )
    assert set().union(*lost) == {"ALREADY_EXISTS"}


async def test_of_two_creators_of_one_index_exactly_one_wins(registries: dict[str, Registry], count: Count) -> None:
    tables = registries["routeTables"]
    lost = await race(
        count(40, 200),
        lambda n: (tables.create(table(f"a{n}", index=n + 1), Options()), tables.create(table(f"b{n}", index=n + 1), Options())),
    )
    assert set().union(*lost) == {"INDEX_TAKEN"}


async def test_of_two_creators_of_one_link_name_in_a_table_exactly_one_wins(
    registries: dict[str, Registry], count: Count
) -> None:
    await registries["routeTables"].create(table("a"), Options())
    interfaces = registries["interfaces"]
    lost = await race(
        count(40, 200),
        lambda n: (
            interfaces.create(bridge(f"x{n}", "a", linkName=f"br{n}"), Options()),
            interfaces.create(bridge(f"y{n}", "a", linkName=f"br{n}"), Options()),
        ),
    )
    assert set().union(*lost) == {"LINK_NAME_TAKEN"}


async def test_table_and_an_interface_in_it_are_never_deleted_and_created_at_once(
    registries: dict[str, Registry], backend: EtcdStore, count: Count
) -> None:
    tables, interfaces = registries["routeTables"], registries["interfaces"]
    pairs = count(40, 200)
    for number in range(pairs):
        await tables.create(table(f"t{number}"), Options())
    lost = await race(
        pairs,
        lambda n: (tables.delete(f"routeTables/t{n}", Options()), interfaces.create(bridge(f"i{n}", f"t{n}"), Options())),
    )
    assert set().union(*lost) <= {"ROUTE_TABLE_NOT_EMPTY", "TARGET_BEING_DELETED"}
    for number in range(pairs):
        found = await tables.get(f"routeTables/t{number}")
        refs = await backend.list(KEYS.refs_to(found.name))
        assert found.HasField("delete_time") != bool(refs.entries)


async def test_tables_created_at_once_get_the_lowest_indices_each_its_own(registries: dict[str, Registry]) -> None:
    tables = registries["routeTables"]
    made = await asyncio.gather(*(tables.create(table(f"t{number}"), Options()) for number in range(20)))
    assert sorted(each.status.index for each in made) == list(range(1, 21))  # type: ignore[union-attr]


async def test_stale_etag_changes_nothing(registries: dict[str, Registry], backend: EtcdStore) -> None:
    tables = registries["routeTables"]
    made = await tables.create(table("a"), Options())
    changed = table("a", description="first")
    changed.etag = made.etag
    await tables.update(changed, field_mask_pb2.FieldMask(), Options())
    before = await everything(backend)
    changed.spec.description = "second"
    with pytest.raises(errors.StaleEtag) as caught:
        await tables.update(changed, field_mask_pb2.FieldMask(), Options())
    assert caught.value.code == "ABORTED"
    with pytest.raises(errors.StaleEtag):
        await tables.delete("routeTables/a", Options(etag=made.etag))
    assert await everything(backend) == before


async def test_validate_only_says_what_would_be_and_writes_nothing(registries: dict[str, Registry], backend: EtcdStore) -> None:
    tables = registries["routeTables"]
    before = await everything(backend)
    made = await tables.create(table("a"), Options(validate_only=True))
    assert made.generation == 1
    assert await everything(backend) == before


async def test_equal_update_writes_nothing_and_another_counts_the_generation(
    registries: dict[str, Registry], backend: EtcdStore
) -> None:
    tables = registries["routeTables"]
    await tables.create(table("a", description="same"), Options())
    before = await everything(backend)
    same = await tables.update(table("a", description="same"), field_mask_pb2.FieldMask(paths=["spec"]), Options())
    assert same.generation == 1
    assert await everything(backend) == before
    other = await tables.update(table("a", description="other"), field_mask_pb2.FieldMask(), Options())
    assert other.generation == 2


async def test_moved_interface_gives_its_link_name_and_its_reference_back(registries: dict[str, Registry]) -> None:
    for name in ("a", "b"):
        await registries["routeTables"].create(table(name), Options())
    interfaces = registries["interfaces"]
    await interfaces.create(bridge("x", "a", linkName="br"), Options())
    await interfaces.update(bridge("x", "b", linkName="br"), field_mask_pb2.FieldMask(paths=["spec"]), Options())
    await interfaces.create(bridge("y", "a", linkName="br"), Options())
    assert await outcome(interfaces.create(bridge("z", "b", linkName="br"), Options())) == "LINK_NAME_TAKEN"
    await interfaces.delete("interfaces/y", Options())
    assert await outcome(registries["routeTables"].delete("routeTables/a", Options())) == "won"
    assert await outcome(registries["routeTables"].delete("routeTables/b", Options())) == "ROUTE_TABLE_NOT_EMPTY"


async def test_kind_of_an_interface_cannot_be_changed(registries: dict[str, Registry]) -> None:
    await registries["routeTables"].create(table("a"), Options())
    await registries["interfaces"].create(bridge("x", "a"), Options())
    other = json_format.ParseDict(
        {"name": "interfaces/x", "spec": {"routeTable": "routeTables/a", "dummy": {}}}, interface_pb2.Interface()
    )
    with pytest.raises(errors.InvalidSpec) as caught:
        await registries["interfaces"].update(other, field_mask_pb2.FieldMask(paths=["*"]), Options())
    assert (caught.value.reason, caught.value.metadata["field"]) == ("IMMUTABLE_FIELD", "spec.kind")


@pytest.mark.parametrize(
    ("before", "after", "field"),
    [
        ({"physical": {"linkName": "eth1"}}, {"physical": {"linkName": "eth2"}}, "spec.physical.link_name"),
        ({"macvlan": {"parent": "interfaces/p"}}, {"macvlan": {"parent": "interfaces/q"}}, "spec.macvlan.parent"),
        (
            {"vlan": {"parent": "interfaces/p", "vlanId": 1}},
            {"vlan": {"parent": "interfaces/q", "vlanId": 1}},
            "spec.vlan.parent",
        ),
    ],
)
async def test_what_makes_another_link_of_an_interface_cannot_be_changed(
    registries: dict[str, Registry], before: dict[str, object], after: dict[str, object], field: str
) -> None:
    await registries["routeTables"].create(table("a"), Options())
    for name in ("p", "q"):
        await registries["interfaces"].create(bridge(name, "a"), Options())

    def wanted(kind: dict[str, object]) -> interface_pb2.Interface:
        document = {"name": "interfaces/x", "spec": {"routeTable": "routeTables/a", **kind}}
        return json_format.ParseDict(document, interface_pb2.Interface())

    await registries["interfaces"].create(wanted(before), Options())
    with pytest.raises(errors.InvalidSpec) as caught:
        await registries["interfaces"].update(wanted(after), field_mask_pb2.FieldMask(paths=["spec"]), Options())
    assert (caught.value.reason, caught.value.metadata["field"]) == ("IMMUTABLE_FIELD", field)


async def test_port_of_one_bridge_is_none_of_another_and_lies_in_its_table(registries: dict[str, Registry]) -> None:
    for name in ("a", "b"):
        await registries["routeTables"].create(table(name), Options())
    interfaces = registries["interfaces"]
    await interfaces.create(bridge("p", "a"), Options())
    await interfaces.create(bridge("br1", "a", bridge={"ports": ["interfaces/p"]}), Options())
    assert await outcome(interfaces.create(bridge("br2", "a", bridge={"ports": ["interfaces/p"]}), Options())) == "PORT_TAKEN"
    assert await outcome(interfaces.create(bridge("br3", "b", bridge={"ports": ["interfaces/p"]}), Options())) == "INVALID_FIELD"


async def test_refused_evacuation_changes_nothing_and_a_good_one_goes_from_the_top_down(
    registries: dict[str, Registry], backend: EtcdStore
) -> None:
    tables, interfaces = registries["routeTables"], registries["interfaces"]
    await tables.create(table("a"), Options())
    await tables.create(table("default"), Options())
    await interfaces.create(bridge("a-br", "a", addresses=["10.0.0.1/24"]), Options())
    nested = {"name": "interfaces/z-mv", "spec": {"routeTable": "routeTables/a", "macvlan": {"parent": "interfaces/a-br"}}}
    await interfaces.create(json_format.ParseDict(nested, interface_pb2.Interface()), Options())
    wanted = route("a", "r", destination="192.0.2.0/24", gateways=[{"address": "10.0.0.9"}])
    await registries["routes"].create(wanted, Options())
    impacts = servicer.Impacts(registries, absent.ask, absent.add_parts)
    methods = servicer.RouteTables(registries, absent.statistics(), impacts, absent.Examiner())
    held = KEYS.of("proxy").ref("routeTables/a", "vServices/web")
    await backend.commit([], [store.Put(held, b"")])
    before = await everything(backend)
    request = route_table_pb2.DeleteRouteTableRequest(name="routeTables/a", evacuate=True)
    assert await outcome(methods.DeleteRouteTable(request, None)) == "STILL_REFERENCED"
    await backend.commit([], [store.Delete(held)])
    stale = route_table_pb2.DeleteRouteTableRequest(name="routeTables/a", evacuate=True, etag="1")
    assert await outcome(methods.DeleteRouteTable(stale, None)) == "STALE_ETAG"
    assert await everything(backend) == {key: value for key, value in before.items() if key != held}
    assert await outcome(methods.DeleteRouteTable(request, None)) == "won"
    for name in ("interfaces/a-br", "interfaces/z-mv"):
        assert (await interfaces.get(name)).HasField("delete_time")


async def test_same_request_id_gives_the_first_result_and_another_request_is_refused(registries: dict[str, Registry]) -> None:
    tables = registries["routeTables"]
    options = Options(request_id=str(uuid.uuid4()), fingerprint="one")
    first = await tables.create(table("a"), options)
    again = await tables.create(table("a"), options)
    assert (again.name, again.etag) == (first.name, first.etag)
    other = Options(request_id=options.request_id, fingerprint="two")
    assert await outcome(tables.create(table("b"), other)) == "REQUEST_ID_REUSED"


async def test_same_request_sent_several_times_at_once_is_carried_out_once(registries: dict[str, Registry]) -> None:
    tables = registries["routeTables"]
    for number in range(10):
        options = Options(request_id=str(uuid.uuid4()), fingerprint="one")
        answers = await asyncio.gather(*(tables.create(table(f"t{number}"), options) for _ in range(4)))
        assert len({answer.etag for answer in answers}) == 1


async def test_request_id_is_taken_again_after_its_lease_was_lost(registries: dict[str, Registry], backend: EtcdStore) -> None:
    tables = registries["routeTables"]
    await tables.create(table("a"), Options(request_id=str(uuid.uuid4()), fingerprint="one"))
    (request,) = (await backend.list(KEYS.request(""))).entries
    await backend.revoke(request.lease)
    await tables.create(table("b"), Options(request_id=str(uuid.uuid4()), fingerprint="two"))
    await tables.delete("routeTables/b", Options(request_id=str(uuid.uuid4()), fingerprint="three"))


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (route("a", "r", destination="192.0.2.0/24", gateways=[{"address": "10.9.9.9"}]), "GATEWAY_UNREACHABLE"),
        (route("a", "r", destination="192.0.2.0/24", gateways=[{"interface": "interfaces/none"}]), "TARGET_NOT_FOUND"),
        (route("none", "r", destination="192.0.2.0/24", type="ROUTE_TYPE_BLACKHOLE"), "TARGET_NOT_FOUND"),
        (route("gone", "r", destination="192.0.2.0/24", type="ROUTE_TYPE_BLACKHOLE"), "TARGET_BEING_DELETED"),
    ],
)
async def test_route_that_leads_nowhere_is_refused_and_nothing_is_written(
    registries: dict[str, Registry], backend: EtcdStore, wanted: route_pb2.Route, reason: str
) -> None:
    for name in ("a", "gone"):
        await registries["routeTables"].create(table(name), Options())
    await registries["routeTables"].delete("routeTables/gone", Options())
    await registries["interfaces"].create(bridge("x", "a", addresses=["10.0.0.1/24"]), Options())
    before = await everything(backend)
    assert await outcome(registries["routes"].create(wanted, Options())) == reason
    assert await everything(backend) == before


async def test_pages_hold_every_table_once_whatever_lies_between(registries: dict[str, Registry]) -> None:
    for number in range(7):
        await registries["routeTables"].create(table(f"t{number}"), Options())
        wanted = route(f"t{number}", "r", destination="192.0.2.0/24", type="ROUTE_TYPE_BLACKHOLE")
        await registries["routes"].create(wanted, Options())
    found: list[str] = []
    token = ""
    while True:
        page, token = await registries["routeTables"].page("routeTables/", 3, token)
        found += [each.name for each in page]
        if not token:
            break
    assert found == [f"routeTables/t{number}" for number in range(7)]
    routes, _ = await registries["routes"].page("routeTables/", 100, "")
    assert len(routes) == 7


async def test_deleted_resource_stays_visible_and_keeps_its_claims_until_every_part_is_cleared(
    registries: dict[str, Registry], backend: EtcdStore
) -> None:
    tables = registries["routeTables"]
    fence = await lead(backend)
    await tables.create(table("a", index=7), Options())
    foreign_part = KEYS.of("proxy").status("routeTables/a")
    await backend.commit([], [store.Put(foreign_part, b"")])
    deleting = await tables.delete("routeTables/a", Options())
    assert deleting is not None
    assert deleting.status.state == status_pb2.STATE_DELETING
    assert await outcome(tables.create(table("a"), Options())) == "BEING_DELETED"
    assert await outcome(tables.create(table("b", index=7), Options())) == "INDEX_TAKEN"
    assert not await tables.remove("routeTables/a", fence)
    await backend.commit([], [store.Delete(foreign_part)])
    assert await tables.remove("routeTables/a", fence)
    assert await outcome(tables.get("routeTables/a")) == "NOT_FOUND"
    # A freed index rests: neighbours must forget the identity that came from it.
    assert await outcome(tables.create(table("b", index=7), Options())) == "INDEX_TAKEN"
    left = await everything(backend)
    assert set(left) == {KEYS.leader, KEYS.claim("index", "7")}


async def test_remover_that_no_longer_leads_removes_nothing(registries: dict[str, Registry], backend: EtcdStore) -> None:
    tables = registries["routeTables"]
    old = await lead(backend)
    await tables.create(table("a"), Options())
    await tables.delete("routeTables/a", Options())
    await backend.commit([], [store.Delete(KEYS.leader)])
    await lead(backend)
    before = await everything(backend)
    with pytest.raises(store.Conflict):
        await tables.remove("routeTables/a", old)
    assert await everything(backend) == before


async def test_refused_deletion_names_who_is_in_the_way(registries: dict[str, Registry]) -> None:
    await registries["routeTables"].create(table("a"), Options())
    await registries["interfaces"].create(bridge("x", "a"), Options())
    with pytest.raises(errors.FailedPrecondition) as caught:
        await registries["routeTables"].delete("routeTables/a", Options())
    assert caught.value.reason == "ROUTE_TABLE_NOT_EMPTY"
    assert caught.value.metadata["referrers"] == "interfaces/x"


async def test_unknown_fields_of_a_newer_release_survive_an_update(registries: dict[str, Registry], backend: EtcdStore) -> None:
    tables = registries["routeTables"]
    await tables.create(table("a"), Options())
    key = KEYS.desired("routeTables/a")
    entry = await backend.get(key)
    assert entry is not None
    record = resource.load("routeTables", entry.value)
    unknown = b"\xfa\x3e\x05newer"  # field 1007, length-delimited
    record.spec.MergeFromString(unknown)
    await backend.commit([], [store.Put(key, record.SerializeToString())])
    await tables.update(table("a", description="changed"), field_mask_pb2.FieldMask(paths=["spec.description"]), Options())
    stored = await backend.get(key)
    assert stored is not None
    assert unknown in stored.value
