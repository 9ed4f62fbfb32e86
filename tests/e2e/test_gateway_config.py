"""Config on a real etcd and the real servicers: bundles are applied in order, compared, exported, waited for."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from crossns import errors, names, rpc
from crossns.registry import Options
from crossns.rpc import status
from crossns.v1 import config_pb2, interface_pb2, route_pb2, route_table_pb2, status_pb2, v_service_pb2
from gateway import kind
from tests.e2e import stage

pytestmark = pytest.mark.e2e

CREATE, UPDATE, NONE, DELETE = (
    config_pb2.ACTION_CREATE,
    config_pb2.ACTION_UPDATE,
    config_pb2.ACTION_NONE,
    config_pb2.ACTION_DELETE,
)
WITHIN_S = stage.WITHIN_S
LABELS = {"bundle": "test"}


@pytest.fixture
async def device(tmp_path: Path) -> AsyncIterator[stage.Stage]:
    async with stage.running(tmp_path) as running:
        yield running


def _table(name: str, description: str = "") -> config_pb2.Resource:
    spec = route_table_pb2.RouteTableSpec(description=description)
    return config_pb2.Resource(route_table=route_table_pb2.RouteTable(name=f"routeTables/{name}", spec=spec, labels=LABELS))


def _interface(name: str, table: str, **spec: object) -> config_pb2.Resource:
    wanted = interface_pb2.InterfaceSpec(route_table=f"routeTables/{table}", **(spec or {"dummy": {}}))  # type: ignore[arg-type]
    return config_pb2.Resource(interface=interface_pb2.Interface(name=f"interfaces/{name}", spec=wanted, labels=LABELS))


def _route(table: str, name: str, destination: str, via: str) -> config_pb2.Resource:
    spec = route_pb2.RouteSpec(destination=destination, gateways=[route_pb2.Gateway(address=via)])
    return config_pb2.Resource(route=route_pb2.Route(name=f"routeTables/{table}/routes/{name}", spec=spec, labels=LABELS))


def _v_service(name: str, table: str, address: str = "203.0.113.10") -> config_pb2.Resource:
    frontend = v_service_pb2.Frontend(name="f", route_table=f"routeTables/{table}", address=address, port=80)
    member = v_service_pb2.Member(name="m", route_table=f"routeTables/{table}", address="10.0.0.5", port=8080)
    spec = v_service_pb2.VServiceSpec(
        protocol=v_service_pb2.PROTOCOL_TCP, frontends=[frontend], pools=[v_service_pb2.Pool(name="p", members=[member])]
    )
    return config_pb2.Resource(v_service=v_service_pb2.VService(name=f"vServices/{name}", spec=spec, labels=LABELS))


# In no order that could be applied as it stands.
BUNDLE = (
    _v_service("web", "a"),
    _route("a", "default", "0.0.0.0/0", "10.0.0.254"),
    _interface("bridge", "a", bridge={"ports": ["interfaces/port"]}, addresses=["10.0.0.1/24"]),
    _interface("port", "a"),
    _table("b"),
    _table("a", "first"),
)
ORDER = [
    "routeTables/a",
    "routeTables/b",
    "interfaces/port",
    "interfaces/bridge",
    "routeTables/a/routes/default",
    "vServices/web",
]


def _actions(answers: list[config_pb2.ApplyResponse]) -> dict[str, int]:
    return {answer.name: answer.action for answer in answers}


async def _diff(device: stage.Stage, *resources: config_pb2.Resource, **options: object) -> list[config_pb2.ApplyResponse]:
    request = config_pb2.DiffRequest(resources=resources, **options)  # type: ignore[arg-type]
    with rpc.translated():
        return list((await device.config.Diff(request, timeout=WITHIN_S)).changes)


async def _export(device: stage.Stage, **options: object) -> list[config_pb2.Resource]:
    with rpc.translated():
        response = await device.config.Export(config_pb2.ExportRequest(**options), timeout=WITHIN_S)  # type: ignore[arg-type]
    return list(response.resources)


async def test_bundle_in_any_order_is_applied_in_order_of_dependency(device: stage.Stage) -> None:
    answers = await device.apply(*BUNDLE)
    assert [answer.error.message for answer in answers if answer.HasField("error")] == []
    assert _actions(answers) == dict.fromkeys(ORDER, CREATE)
    levels = [ORDER.index(answer.name) for answer in answers]
    # The two tables, and nothing else, are of one level.
    assert sorted(levels[:2]) + levels[2:] == list(range(6))
    assert [answer.generation for answer in answers] == [1] * 6


async def test_bundle_that_is_applied_again_changes_nothing(device: stage.Stage) -> None:
    await device.apply(*BUNDLE)
    before = {name: (await device.registries[names.collection(name)].get(name)).etag for name in ORDER}
    assert _actions(await device.apply(*BUNDLE)) == dict.fromkeys(ORDER, NONE)
    assert {name: (await device.registries[names.collection(name)].get(name)).etag for name in ORDER} == before


async def test_only_what_differs_is_updated_and_the_fields_are_named(device: stage.Stage) -> None:
    await device.apply(*BUNDLE)
    table, same = sorted(await device.apply(_table("a", "second"), _table("b")), key=lambda answer: answer.name)
    assert (table.action, list(table.changed_fields), table.generation) == (UPDATE, ["description"], 2)
    assert (same.action, list(same.changed_fields), same.generation) == (NONE, [], 1)


async def test_field_that_the_bundle_no_longer_sets_is_cleared(device: stage.Stage) -> None:
    await device.apply(_table("a", "first"))
    unset = _table("a")
    unset.route_table.labels.clear()
    await device.apply(unset)
    stored = await device.registries["routeTables"].get("routeTables/a")
    assert isinstance(stored, route_table_pb2.RouteTable)
    assert (stored.spec.description, dict(stored.labels)) == ("", {})


async def test_failure_stops_what_comes_later_and_repeating_goes_on(device: stage.Stage) -> None:
    bad = _route("a", "default", "0.0.0.0/0", "192.0.2.254")
    answers = await device.apply(
        _table("a"), _interface("i", "a", dummy={}, addresses=["10.0.0.1/24"]), bad, _v_service("web", "a")
    )
    assert [answer.name for answer in answers] == ["routeTables/a", "interfaces/i", "routeTables/a/routes/default"]
    error = status.read(answers[-1].error)
    assert (type(error), error.reason) == (errors.FailedPrecondition, "GATEWAY_UNREACHABLE")
    good = _route("a", "default", "0.0.0.0/0", "10.0.0.254")
    again = await device.apply(
        _table("a"), _interface("i", "a", dummy={}, addresses=["10.0.0.1/24"]), good, _v_service("web", "a")
    )
    assert list(_actions(again).values()) == [NONE, NONE, CREATE, CREATE]


async def test_service_that_is_down_is_the_error_of_its_resource(device: stage.Stage) -> None:
    await device.owners["proxy"].stop(0)
    *_, last = await device.apply(_table("a"), _v_service("web", "a"))
    error = status.read(last.error)
    assert (type(error), error.metadata["service"]) == (errors.ServiceUnavailable, "proxy")


async def test_resource_that_changed_since_the_plan_is_not_overwritten(
    device: stage.Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await device.apply(_table("a", "first"))
    read = device.backend.get_many

    async def overtaken(keys: list[str]) -> object:
        found = await read(keys)
        monkeypatch.undo()
        await device.apply(_table("a", "somebody else"))
        return found

    monkeypatch.setattr(device.backend, "get_many", overtaken)
    (answer,) = await device.apply(_table("a", "second"))
    assert isinstance(status.read(answer.error), errors.StaleEtag)
    assert [each.route_table.spec.description for each in await _export(device)] == ["somebody else"]


async def test_validation_only_tells_the_plan_and_changes_nothing(device: stage.Stage) -> None:
    answers = await device.apply(*BUNDLE, validate_only=True)
    assert _actions(answers) == dict.fromkeys(ORDER, CREATE)
    assert {answer.generation for answer in answers} == {0}
    assert await _export(device) == []


@pytest.mark.parametrize(
    ("resources", "options", "reason"),
    [
        ([_table("a"), _table("a")], {}, "DUPLICATE_RESOURCE"),
        ([_table("A")], {}, "INVALID_NAME"),
        ([config_pb2.Resource()], {}, "INVALID_FIELD"),
        ([_table("a")], {"request_id": "not-a-uuid"}, "INVALID_FIELD"),
    ],
)
async def test_bad_bundle_is_refused_as_a_whole(
    device: stage.Stage, resources: list[config_pb2.Resource], options: dict[str, str], reason: str
) -> None:
    with pytest.raises(errors.RequestError) as caught:
        await device.apply(_table("ok"), *resources, **options)
    assert caught.value.reason == reason
    assert await _export(device) == []


async def test_pieces_of_a_stream_are_one_bundle_with_the_options_of_the_first(device: stage.Stage) -> None:
    pieces = [
        config_pb2.ApplyRequest(resources=[_interface("i", "a")], validate_only=True),
        config_pb2.ApplyRequest(resources=[_table("a")]),
    ]
    with rpc.translated():
        answers = [answer async for answer in device.config.Apply(iter(pieces), timeout=WITHIN_S)]
    assert [answer.name for answer in answers] == ["routeTables/a", "interfaces/i"]
    assert await _export(device) == []


async def test_request_that_is_repeated_is_known_by_its_resource(device: stage.Stage) -> None:
    first = str(uuid.uuid4())
    await device.apply(_table("a"), _table("b"), request_id=first)
    requests = await device.backend.list("/crossns/local/nsmanager/requests/")
    expected = {str(uuid.uuid5(uuid.UUID(first), f"routeTables/{name}")) for name in "ab"}
    assert {entry.key.rsplit("/", 1)[1] for entry in requests.entries} == expected


async def test_what_the_labels_own_and_the_bundle_no_longer_names_is_deleted_in_reverse_order(device: stage.Stage) -> None:
    await device.apply(*BUNDLE)
    foreign = _table("foreign")
    foreign.route_table.labels.clear()
    await device.apply(foreign)
    applying = asyncio.create_task(device.apply(_table("b"), prune_labels=LABELS))
    for name in reversed(ORDER):
        if name != "routeTables/b":
            await _cleared_once_deleting(device, name)
    answers = await applying
    assert [answer.name for answer in answers] == [
        "routeTables/b",
        *reversed([name for name in ORDER if name != "routeTables/b"]),
    ]
    assert [answer.action for answer in answers] == [NONE, *[DELETE] * 5]
    assert [answer.error.message for answer in answers if answer.HasField("error")] == []
    left = await _export(device)
    assert [each.route_table.name for each in left] == ["routeTables/b", "routeTables/foreign"]


async def _cleared_once_deleting(device: stage.Stage, name: str) -> None:
    async with asyncio.timeout(WITHIN_S):
        key = names.Keys("local", names.owner(name)).claim("deleting", name)
        async for _ in device.backend.watch(key, 0):
            if await device.backend.get(key):
                break
    await device.clear(name)


async def test_nothing_is_pruned_without_labels_and_default_never(device: stage.Stage) -> None:
    await device.apply(_table("a"), _table("b"), _table("default"))
    assert _actions(await _diff(device, _table("a"))) == {"routeTables/a": NONE}
    assert _actions(await _diff(device, _table("a"), prune_labels=LABELS)) == {"routeTables/a": NONE, "routeTables/b": DELETE}


async def test_diff_tells_what_apply_would_do(device: stage.Stage) -> None:
    await device.apply(_table("a", "old"), _table("b"))
    changes = await _diff(device, _table("a", "new"), _interface("i", "a"), prune_labels=LABELS)
    assert [(change.name, change.action, list(change.changed_fields)) for change in changes] == [
        ("routeTables/a", UPDATE, ["description"]),
        ("interfaces/i", CREATE, []),
        ("routeTables/b", DELETE, []),
    ]


async def test_export_is_what_was_applied_in_order(device: stage.Stage) -> None:
    await device.apply(*BUNDLE)
    exported = await _export(device)
    by_name = {str(kind.unwrapped(each).name): each for each in BUNDLE}  # type: ignore[union-attr]
    assert exported == [by_name[name] for name in ORDER]
    assert {change.action for change in await _diff(device, *exported)} == {NONE}


async def test_export_can_be_limited_to_tables_and_labels(device: stage.Stage) -> None:
    other = _interface("other", "b")
    other.interface.labels.clear()
    await device.apply(*BUNDLE, other)

    async def exported(**options: object) -> list[str]:
        return [str(kind.unwrapped(each).name) for each in await _export(device, **options)]  # type: ignore[union-attr]

    assert await exported(route_tables=["routeTables/b"]) == ["routeTables/b", "interfaces/other"]
    assert await exported(route_tables=["routeTables/b"], labels=LABELS) == ["routeTables/b"]
    with pytest.raises(errors.InvalidSpec):
        await exported(route_tables=["b"])


async def test_more_than_a_page_of_resources_is_exported_whole(device: stage.Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.owner.PAGE_SIZE", 2)
    await device.apply(*(_table(f"t{index}") for index in range(5)))
    assert len(await _export(device)) == 5


def _target(name: str, generation: int = 0, *, deleted: bool = False) -> config_pb2.WaitTarget:
    return config_pb2.WaitTarget(name=name, generation=generation, deleted=deleted)


class _Waiting:
    """A call of Wait: its answers as they come."""

    def __init__(self, device: stage.Stage, *targets: config_pb2.WaitTarget) -> None:
        self._call = device.config.Wait(config_pb2.WaitRequest(targets=targets), timeout=WITHIN_S)

    async def next(self) -> tuple[str, bool, str]:
        with rpc.translated():
            answer = await self._call.read()
        if not isinstance(answer, config_pb2.WaitResponse):
            return "end", True, ""
        return answer.name, answer.done, status_pb2.State.Name(answer.state).removeprefix("STATE_")


async def test_wait_ends_when_all_are_ready_and_tells_each_change(device: stage.Stage) -> None:
    await device.apply(_table("a"), _table("b"))
    waiting = _Waiting(device, _target("routeTables/a", 1), _target("routeTables/b"))
    assert {await waiting.next(), await waiting.next()} == {
        ("routeTables/a", False, "PENDING"),
        ("routeTables/b", False, "PENDING"),
    }
    await device.observe("routeTables/b", 1, status_pb2.STATE_ERROR)
    assert await waiting.next() == ("routeTables/b", False, "ERROR")
    await device.observe("routeTables/a")
    assert await waiting.next() == ("routeTables/a", True, "READY")
    await device.observe("routeTables/b")
    assert await waiting.next() == ("routeTables/b", True, "READY")
    assert (await waiting.next())[0] == "end"


async def test_wait_needs_every_observer_and_the_generation(device: stage.Stage) -> None:
    await device.apply(_table("a"), _v_service("web", "a"))
    await device.observe("vServices/web", 1)
    await device.apply(_v_service("web", "a", "203.0.113.11"))
    waiting = _Waiting(device, _target("vServices/web", 2))
    assert await waiting.next() == ("vServices/web", False, "PENDING")
    await device.observe_by("proxy", "vServices/web", 2, status_pb2.STATE_READY)
    assert await waiting.next() == ("vServices/web", False, "PENDING")
    await device.observe_by("nsmanager", "vServices/web", 2, status_pb2.STATE_READY)
    assert await waiting.next() == ("vServices/web", True, "READY")


async def test_wait_for_what_is_ready_ends_at_once(device: stage.Stage) -> None:
    await device.apply(_table("a"))
    await device.observe("routeTables/a")
    async with asyncio.timeout(WITHIN_S):
        while await _Waiting(device, _target("routeTables/a")).next() != ("routeTables/a", True, "READY"):
            continue


async def test_wait_until_gone_ends_when_the_last_part_is_cleared(device: stage.Stage) -> None:
    await device.apply(_table("a"))
    await device.observe("routeTables/a")
    waiting = _Waiting(device, _target("routeTables/a", deleted=True))
    assert (await waiting.next())[:2] == ("routeTables/a", False)
    await device.registries["routeTables"].delete("routeTables/a", Options())
    assert await waiting.next() == ("routeTables/a", False, "DELETING")
    await device.clear("routeTables/a")
    told = await waiting.next()
    while not told[1]:
        told = await waiting.next()
    assert told == ("routeTables/a", True, "UNSPECIFIED")
    assert (await waiting.next())[0] == "end"


async def test_wait_for_what_never_was_is_not_found_or_gone(device: stage.Stage) -> None:
    with pytest.raises(errors.NotFound):
        await _Waiting(device, _target("routeTables/nope", 1)).next()
    assert await _Waiting(device, _target("routeTables/nope", deleted=True)).next() == ("routeTables/nope", True, "UNSPECIFIED")
    with pytest.raises(errors.InvalidSpec):
        await _Waiting(device, _target("nonsense")).next()


async def test_wait_for_what_is_deleted_meanwhile_is_not_found(device: stage.Stage) -> None:
    await device.apply(_table("a"))
    waiting = _Waiting(device, _target("routeTables/a", 1))
    await waiting.next()
    await device.registries["routeTables"].delete("routeTables/a", Options())
    assert await waiting.next() == ("routeTables/a", False, "DELETING")
    await device.clear("routeTables/a")
    with pytest.raises(errors.NotFound):
        await waiting.next()


async def test_wait_survives_a_restart_of_etcd(device: stage.Stage) -> None:
    await device.apply(_table("a"))
    waiting = _Waiting(device, _target("routeTables/a", 1))
    await waiting.next()
    await device.member.restart()
    await device.observe("routeTables/a")
    assert await waiting.next() == ("routeTables/a", True, "READY")
