"""Events on a real etcd: in order, without gaps, resumable anywhere, and no memory for who does not read."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from crossns import chronicle, errors, names, rpc, store
from crossns.registry import Options
from crossns.v1 import config_pb2, events_pb2, events_pb2_grpc, interface_pb2, route_table_pb2, status_pb2
from gateway.events import Events
from gateway.events.cursor import Cursor
from tests.e2e import stage

pytestmark = pytest.mark.e2e

WITHIN_S = stage.WITHIN_S
# One event of the flood; all of it would be far more than any buffer on the way.
FLOOD_BYTES = 16 * 1024
FLOOD = 5000


@pytest.fixture
async def device(tmp_path: Path) -> AsyncIterator[stage.Stage]:
    async with stage.running(tmp_path) as running:
        yield running


def _table(name: str, description: str = "") -> config_pb2.Resource:
    spec = route_table_pb2.RouteTableSpec(description=description)
    return config_pb2.Resource(route_table=route_table_pb2.RouteTable(name=f"routeTables/{name}", spec=spec))


def _interface(name: str, table: str) -> config_pb2.Resource:
    spec = interface_pb2.InterfaceSpec(route_table=f"routeTables/{table}", dummy=interface_pb2.DummyLink())
    return config_pb2.Resource(interface=interface_pb2.Interface(name=f"interfaces/{name}", spec=spec))


class _Watching:
    """A call of Watch that stands."""

    def __init__(self, call: "grpc.aio.UnaryStreamCall[events_pb2.WatchRequest, events_pb2.Event]") -> None:
        self._call = call

    async def next(self) -> events_pb2.Event:
        with rpc.translated():
            event = await self._call.read()
        assert isinstance(event, events_pb2.Event)
        return event

    async def told(self, count: int) -> list[str]:
        events = [await self.next() for _ in range(count)]
        return [f"{events_pb2.EventType.Name(event.type).removeprefix('EVENT_TYPE_')} {event.name}" for event in events]

    def cancel(self) -> None:
        self._call.cancel()


async def _watching(device: stage.Stage, **request: object) -> _Watching:
    call = device.events.Watch(events_pb2.WatchRequest(**request), timeout=WITHIN_S)  # type: ignore[arg-type]
    await call.initial_metadata()
    return _Watching(call)


async def test_whole_life_of_a_resource_is_told_in_order(device: stage.Stage) -> None:
    watching = await _watching(device)
    await device.apply(_table("a"))
    await device.observe("routeTables/a")
    await device.apply(_table("a", "changed"))
    await device.registries["routeTables"].delete("routeTables/a", Options())
    await device.clear("routeTables/a")
    assert await watching.told(6) == [
        "CREATED routeTables/a",
        "STATUS routeTables/a",
        "UPDATED routeTables/a",
        "DELETING routeTables/a",
        "STATUS routeTables/a",
        "DELETED routeTables/a",
    ]


async def test_event_says_who_what_and_when(device: stage.Stage) -> None:
    watching = await _watching(device)
    await device.apply(_table("a"), _interface("i", "a"))
    await watching.next()
    created = await watching.next()
    assert (created.name, created.service, created.generation, list(created.route_tables)) == (
        "interfaces/i",
        "nsmanager",
        1,
        ["routeTables/a"],
    )
    assert created.time.seconds > 0
    await device.observe("interfaces/i", 1, status_pb2.STATE_ERROR)
    status = await watching.next()
    assert (status.name, status.service, status.state, list(status.route_tables)) == (
        "interfaces/i",
        "nsmanager",
        status_pb2.STATE_ERROR,
        ["routeTables/a"],
    )


async def test_reader_sees_only_the_tables_and_collections_that_he_asked_for(device: stage.Stage) -> None:
    await device.apply(_table("a"), _table("b"))
    await device.apply(_interface("old", "b"))
    of_table = await _watching(device, route_tables=["routeTables/b"])
    of_interfaces = await _watching(device, collections=["interfaces"])
    await device.apply(_interface("i", "a"))
    await device.observe("interfaces/old")
    await device.apply(_table("b", "changed"), _interface("j", "b"))
    assert await of_table.told(3) == ["STATUS interfaces/old", "UPDATED routeTables/b", "CREATED interfaces/j"]
    assert await of_interfaces.told(3) == ["CREATED interfaces/i", "STATUS interfaces/old", "CREATED interfaces/j"]


@pytest.mark.parametrize("request_", [{"route_tables": ["a"]}, {"collections": ["tables"]}, {"resume_token": "x"}])
async def test_what_cannot_be_watched_is_refused(device: stage.Stage, request_: dict[str, object]) -> None:
    with pytest.raises(errors.InvalidSpec):
        await (await _watching(device, **request_)).next()


async def test_reader_who_comes_back_misses_nothing(device: stage.Stage) -> None:
    watching = await _watching(device)
    await device.apply(*(_table(f"t{index}") for index in range(4)))
    heard = await watching.next()
    watching.cancel()
    await device.apply(_table("late"))
    # Two keys in one revision: one may be told, the other not yet.
    both = [store.Put(names.Keys("local", service).status("vServices/v"), b"") for service in names.SERVICES]
    await device.backend.commit([], both)
    rest: list[tuple[str, str]] = []
    while len(rest) < 6:
        watching = await _watching(device, resume_token=heard.resume_token)
        heard = await watching.next()
        rest.append((heard.name, heard.service))
        watching.cancel()
    assert rest[3:] == [("routeTables/late", "nsmanager"), ("vServices/v", "nsmanager"), ("vServices/v", "proxy")]
    assert len(set(rest)) == 6


async def test_stream_goes_on_over_a_restart_of_etcd(device: stage.Stage) -> None:
    watching = await _watching(device)
    await device.apply(_table("a"))
    assert await watching.told(1) == ["CREATED routeTables/a"]
    await device.member.restart()
    await device.observe("routeTables/a")
    await device.apply(_table("b"))
    assert await watching.told(2) == ["STATUS routeTables/a", "CREATED routeTables/b"]


async def test_token_of_what_was_compacted_is_out_of_range(device: stage.Stage) -> None:
    watching = await _watching(device)
    await device.apply(_table("a"))
    token = (await watching.next()).resume_token
    for index in range(3):
        await device.apply(_table("a", str(index)))
    revision = (await device.backend.list("/")).revision
    await device.member.compact(revision)
    with pytest.raises(errors.OutOfRange) as caught:
        await (await _watching(device, resume_token=token)).next()
    assert caught.value.reason == "RESUME_TOKEN_EXPIRED"


async def test_token_of_another_cluster_or_of_the_future_is_out_of_range(device: stage.Stage) -> None:
    listing = await device.backend.list("/")
    for token in (Cursor(listing.cluster_id + 1, listing.revision), Cursor(listing.cluster_id, listing.revision + 1000)):
        with pytest.raises(errors.OutOfRange):
            await (await _watching(device, resume_token=token.token)).next()


def _link(name: str, table: str = "a") -> events_pb2.Event:
    change = events_pb2.LinkChange(link=name)
    return events_pb2.Event(
        type=events_pb2.EVENT_TYPE_UPDATED,
        kind=events_pb2.EVENT_KIND_LINK,
        route_tables=[f"routeTables/{table}"],
        link=change,
    )


async def test_what_services_tell_by_themselves_is_in_the_stream_and_resumed_with_it(device: stage.Stage) -> None:
    watching = await _watching(device)
    only_links = await _watching(device, kinds=[events_pb2.EVENT_KIND_LINK], route_tables=["routeTables/b"])
    device.chronicle.publish([_link("l0"), _link("l1", "b")])
    first = await watching.next()
    assert first.link.link == "l0"
    watching.cancel()
    await device.apply(_table("a"))
    device.chronicle.publish([_link("l2")])
    watching = await _watching(device, resume_token=first.resume_token)
    rest = [await watching.next() for _ in range(3)]
    assert sorted(event.name or event.link.link for event in rest) == ["l1", "l2", "routeTables/a"]
    # Each says where the whole stream is: the last one's token misses nothing of either.
    again = await _watching(device, resume_token=rest[-1].resume_token)
    device.chronicle.publish([_link("l3", "b")])
    assert (await again.next()).link.link == "l3"
    assert [(await only_links.next()).link.link for _ in range(2)] == ["l1", "l3"]


async def test_stream_goes_on_while_a_service_is_away_and_tells_what_may_be_missing(device: stage.Stage, tmp_path: Path) -> None:
    watching = await _watching(device)
    device.chronicle.publish([_link("l0")])
    before = await watching.next()
    await device.owners["nsmanager"].stop(0)
    await device.observe("routeTables/a")
    assert await watching.told(1) == ["STATUS routeTables/a"]
    # It comes back as another process, which knows nothing of the places of the one before.
    successor = chronicle.Chronicle()
    successor.publish([_link("l1")])
    services: dict[str, rpc.Service] = {
        "crossns.v1.Events": (events_pb2_grpc.add_EventsServicer_to_server, chronicle.Events(successor))
    }
    server = rpc.Server(f"unix:{tmp_path}/nsmanager", services, rpc.by_role, lambda: True)
    await server.start()
    gap, link = await watching.next(), await watching.next()
    assert (gap.type, gap.missed.count, bool(gap.missed.message)) == (events_pb2.EVENT_TYPE_MISSED, 0, True)
    assert gap.missed.after_token != before.resume_token
    assert link.link.link == "l1"
    watching.cancel()
    await server.stop(0)


async def test_reader_that_is_too_slow_is_told_how_much_it_missed_and_is_not_cut_off(device: stage.Stage) -> None:
    """More than is kept anywhere on the way happens while it does not read; another reader gets all of it meanwhile."""
    slow, quick = await _watching(device), await _watching(device)
    happened = 0
    while happened < stage.KEPT * 6:
        device.chronicle.publish(_link("x" * 4 * FLOOD_BYTES) for _ in range(stage.KEPT // 2))
        happened += stage.KEPT // 2
        for _ in range(stage.KEPT // 2):
            assert (await quick.next()).type == events_pb2.EVENT_TYPE_UPDATED
    device.chronicle.publish([_link("last")])
    told, missed = 0, 0
    event, before = await slow.next(), ""
    while event.link.link != "last":
        if event.type == events_pb2.EVENT_TYPE_MISSED:
            missed += event.missed.count
            assert event.missed.after_token == before
        else:
            told += 1
        before = event.resume_token
        event = await slow.next()
    assert told + missed == happened
    assert missed > 0
    # No more than what is kept, and what stood in the buffers of two connections.
    assert told < happened / 2


class _Flood:
    """A store whose history is long: as much of the Protocol as Events needs. `pulled` counts what was taken of it."""

    def __init__(self) -> None:
        self.pulled = 0

    async def list(self, _prefix: str, *, revision: int = 0) -> store.Listing:
        return store.Listing((), revision or 1, cluster_id=1)

    async def watch(self, _prefix: str, revision: int, **_more: object) -> AsyncGenerator[store.Batch, None]:
        key = names.Keys("local", "nsmanager").status("routeTables/a")
        part = route_table_pb2.RouteTableStatus(conditions=[status_pb2.Condition(message="x" * FLOOD_BYTES)])
        value = part.SerializeToString()
        for at in range(revision + 1, revision + 1 + FLOOD):
            self.pulled += 1
            yield store.Batch((store.Change(key, at, store.Entry(key, value, 1, at)),), at)
        await asyncio.Event().wait()


async def test_reader_that_does_not_read_holds_no_memory_and_loses_nothing(tmp_path: Path) -> None:
    flood = _Flood()
    servicer = Events(flood, names.Keys("local", "gateway"), {})  # type: ignore[arg-type] # as much of a store as it needs
    services: dict[str, rpc.Service] = {"crossns.v1.Events": (events_pb2_grpc.add_EventsServicer_to_server, servicer)}
    who = rpc.Identity("test", "viewer")
    server = rpc.Server(f"unix:{tmp_path}/g", services, rpc.by_role, lambda: True, identify=lambda _context: who)
    await server.start()
    async with rpc.channel(f"unix:{tmp_path}/g") as channel:
        watching = _Watching(events_pb2_grpc.EventsStub(channel).Watch(events_pb2.WatchRequest(), timeout=WITHIN_S * 3))
        await watching.next()
        pulled = -1
        while pulled != flood.pulled:
            pulled = flood.pulled
            for _ in range(50):
                await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=WITHIN_S)
        assert pulled < FLOOD / 2
        for _ in range(FLOOD - 1):
            last = await watching.next()
        assert last.resume_token == Cursor(1, FLOOD + 1).token
        watching.cancel()
    await server.stop(0)
