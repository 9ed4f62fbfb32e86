"""Which change of a key is which event, and that a reader who comes back misses nothing and hears nothing twice."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

import pytest
from google.protobuf import timestamp_pb2
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as some

from crossns import errors, names, store
from crossns.resource import MESSAGES
from crossns.v1 import events_pb2, interface_pb2, route_table_pb2, status_pb2, v_service_pb2
from gateway.events import cursor, mapping
from gateway.events.cursor import Cursor, Place
from gateway.events.stored import Stored
from gateway.events.stream import merged

KEYS = names.Keys("local", "gateway")
NSMANAGER, PROXY = KEYS.of("nsmanager"), KEYS.of("proxy")
CREATED, UPDATED, DELETING, DELETED, STATUS = (
    events_pb2.EVENT_TYPE_CREATED,
    events_pb2.EVENT_TYPE_UPDATED,
    events_pb2.EVENT_TYPE_DELETING,
    events_pb2.EVENT_TYPE_DELETED,
    events_pb2.EVENT_TYPE_STATUS,
)


def _table(generation: int = 1, **fields: object) -> route_table_pb2.RouteTable:
    return route_table_pb2.RouteTable(name="routeTables/a", generation=generation, **fields)  # type: ignore[arg-type]


def _interface(table: str, generation: int = 1) -> interface_pb2.Interface:
    spec = interface_pb2.InterfaceSpec(route_table=f"routeTables/{table}")
    return interface_pb2.Interface(name="interfaces/i", spec=spec, generation=generation)


def _going(resource: route_table_pb2.RouteTable) -> route_table_pb2.RouteTable:
    resource.delete_time.FromSeconds(99)
    return resource


def _entry(key: str, message: Message | None, revision: int, *, new: bool = False) -> store.Entry | None:
    if message is None:
        return None
    return store.Entry(key, message.SerializeToString(), revision if new else 1, revision)


def _change(
    key: str, now: Message | None, before: Message | None = None, revision: int = 9, *, new: bool = False
) -> store.Change:
    return store.Change(key, revision, _entry(key, now, revision, new=new), _entry(key, before, revision - 1))


def _only(change: store.Change, concerns: mapping.Concerns | None = None) -> events_pb2.Event:
    (event,) = mapping.events_of(change, KEYS, concerns or {})
    return event


TABLE = NSMANAGER.desired("routeTables/a")


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (_change(TABLE, _table(), new=True), CREATED),
        (_change(TABLE, _table(2), _table(1)), UPDATED),
        (_change(TABLE, _table(labels={"a": "b"}), _table()), UPDATED),
        (_change(TABLE, _table(2)), UPDATED),
        (_change(TABLE, _going(_table()), _table()), DELETING),
        (_change(TABLE, None, _going(_table())), DELETED),
        (_change(TABLE, None), DELETED),
        (_change(NSMANAGER.status("routeTables/a"), route_table_pb2.RouteTableStatus(), None), STATUS),
        (_change(NSMANAGER.status("routeTables/a"), None, route_table_pb2.RouteTableStatus()), STATUS),
    ],
    ids=[
        "first write",
        "another spec",
        "other labels",
        "what was before is forgotten",
        "deletion asked for",
        "gone",
        "gone, what was before is forgotten",
        "observed",
        "no longer observed",
    ],
)
def test_change_of_a_key_is_one_event(change: store.Change, kind: int) -> None:
    event = _only(change)
    assert (event.type, event.name, event.service, list(event.route_tables)) == (
        kind,
        "routeTables/a",
        "nsmanager",
        ["routeTables/a"],
    )


@pytest.mark.parametrize(
    "change",
    [
        _change(TABLE, _table(update_time={"seconds": 5}), _table(update_time={"seconds": 4})),
        _change(TABLE, _going(_table()), _going(_table())),
        _change(NSMANAGER.claim("index", "1"), _table()),
        _change(NSMANAGER.claim("deleting", "routeTables/a"), _table()),
        _change(NSMANAGER.ref("routeTables/a", "interfaces/i"), _table()),
        _change(NSMANAGER.trace("routeTables/a"), _table()),
        _change(NSMANAGER.request("x"), _table()),
        _change(NSMANAGER.leader, _table()),
        _change(NSMANAGER.desired("unknown/x"), _table()),
        _change(names.Keys("other", "nsmanager").desired("routeTables/a"), _table()),
    ],
    ids=["nothing of it", "going on", "index", "deleting", "ref", "trace", "request", "leader", "unknown kind", "other device"],
)
def test_what_says_nothing_to_a_client_is_no_event(change: store.Change) -> None:
    assert mapping.events_of(change, KEYS, {}) == ()


def test_status_carries_what_the_service_sees() -> None:
    condition = status_pb2.Condition(type="Present", reason="OK", last_transition_time=timestamp_pb2.Timestamp(seconds=7))
    part = v_service_pb2.VServiceStatus(observed_generation=3, state=status_pb2.STATE_READY, conditions=[condition])
    event = _only(_change(NSMANAGER.status("vServices/v"), part), {"vServices/v": ("routeTables/a", "routeTables/b")})
    assert (event.service, event.generation, event.state, list(event.conditions)) == (
        "nsmanager",
        3,
        status_pb2.STATE_READY,
        [condition],
    )
    assert event.time.seconds == 7
    assert list(event.route_tables) == ["routeTables/a", "routeTables/b"]


def test_times_are_those_of_the_resource() -> None:
    assert _only(_change(TABLE, _table(update_time={"seconds": 5}), new=True)).time.seconds == 5
    assert _only(_change(TABLE, _going(_table(update_time={"seconds": 5})), _table())).time.seconds == 99
    assert not _only(_change(TABLE, None, _table(update_time={"seconds": 5}))).HasField("time")


def test_move_concerns_the_table_that_was_left_and_the_new_one() -> None:
    event = _only(_change(NSMANAGER.desired("interfaces/i"), _interface("b", 2), _interface("a", 1)))
    assert list(event.route_tables) == ["routeTables/a", "routeTables/b"]


@pytest.mark.parametrize("collection", names.NESTED)
def test_what_is_below_a_table_concerns_it_even_when_only_its_name_is_left(collection: str) -> None:
    name = f"routeTables/t/{collection}/x"
    key = NSMANAGER.desired(name)
    assert list(_only(_change(key, None)).route_tables) == ["routeTables/t"]
    assert list(_only(_change(key, None, MESSAGES[collection](name=name))).route_tables) == ["routeTables/t"]


def _feed(begin: Cursor, resources: Sequence[interface_pb2.Interface] = ()) -> mapping.Feed:
    return mapping.Feed(KEYS, begin, resources)


def test_reader_knows_the_tables_of_a_status_from_what_was_there_and_what_came() -> None:
    part = interface_pb2.InterfaceStatus()
    feed = _feed(Cursor(1, 8), [_interface("a")])
    status, desired = NSMANAGER.status("interfaces/i"), NSMANAGER.desired("interfaces/i")
    changes = (
        _change(status, part, revision=9),
        _change(desired, _interface("b", 2), _interface("a"), revision=10),
        _change(status, part, revision=11),
        _change(desired, None, _interface("b", 2), revision=12),
        _change(status, None, part, revision=13),
    )
    told = [(event.type, list(event.route_tables)) for event in feed.take(store.Batch(changes, 13))]
    assert told == [
        (STATUS, ["routeTables/a"]),
        (UPDATED, ["routeTables/a", "routeTables/b"]),
        (STATUS, ["routeTables/b"]),
        (DELETED, ["routeTables/b"]),
        (STATUS, []),
    ]


@given(
    history=some.lists(some.lists(some.booleans(), min_size=1, max_size=4), min_size=1, max_size=6),
    cuts=some.lists(some.integers(1, 5), min_size=1, max_size=24),
)
def test_reader_who_comes_back_anywhere_misses_nothing_and_hears_nothing_twice(
    history: list[list[bool]], cuts: list[int]
) -> None:
    """`history`: the changes of each revision, True for one that is an event; `cuts`: how many events are read each time."""
    changes = [
        _change(NSMANAGER.desired(f"routeTables/t{place}") if is_event else NSMANAGER.leader, None, revision=revision)
        for revision, kinds in enumerate(history, 3)
        for place, is_event in enumerate(kinds)
    ]
    last = 2 + len(history)
    everything = [(event.name, event.resume_token) for event in _feed(Cursor(7, 2)).take(store.Batch(tuple(changes), last))]
    heard: list[tuple[str, str]] = []
    at = Cursor(7, 2)
    for count in cuts:
        behind = tuple(change for change in changes if change.revision > at.revision)
        events = list(_feed(at).take(store.Batch(behind, last)))[:count]
        heard += [(event.name, event.resume_token) for event in events]
        if events:
            at = cursor.parse(events[-1].resume_token).stored
    assert heard == everything[: len(heard)]
    assert len(heard) == min(len(everything), sum(cuts))


def test_quiet_revisions_move_the_reader_on() -> None:
    feed = _feed(Cursor(7, 2))
    assert list(feed.take(store.Batch((_change(NSMANAGER.leader, _table(), revision=5),), 6))) == []
    assert feed.cursor == Cursor(7, 6)


@pytest.mark.parametrize(
    "token", ["x", "1.2", "1.2.3.4", "-1.2.3", "1.2.3 ", "", "1" * 17 + ".1.1", "1.2.3~", "1.2.3~x", "1.2.3~x:", "1.2.3~X:1"]
)
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(errors.InvalidSpec, match="resume_token"):
        cursor.parse(token)


@given(some.integers(0, 2**64 - 1), some.integers(0, 2**63 - 1), some.integers(0, 2**32 - 1))
def test_token_says_what_it_was_made_of(cluster_id: int, revision: int, told: int) -> None:
    at = Cursor(cluster_id, revision, told)
    assert cursor.parse(at.token) == Place(at)
    place = Place(at, {"nsmanager": "1f.2", "healthcheck": "3"})
    assert cursor.parse(place.token) == place
    # Of a service that has not been heard yet there is nothing to say.
    assert cursor.parse(Place(at, {"nsmanager": ""}).token) == Place(at)


class _Forgetful:
    """A store that throws its history away while it is read: as much of the Protocol as events need."""

    def __init__(self) -> None:
        self.revision = 2

    async def list(self, _prefix: str, *, revision: int = 0) -> store.Listing:
        return store.Listing((), revision or self.revision, cluster_id=7)

    async def watch(self, _prefix: str, revision: int, **_more: object) -> AsyncGenerator[store.Batch, None]:
        yield store.Batch((), revision)
        yield store.Batch((_change(NSMANAGER.desired(f"routeTables/t{revision}"), None, revision=revision + 1),), revision + 1)
        self.revision += 40
        raise store.Compacted


async def test_events_that_were_thrown_away_before_they_were_read_are_told_as_missed() -> None:
    events = Stored(_Forgetful(), KEYS).events(None)  # type: ignore[arg-type] # as much of a store as it needs
    told: list[str] = []
    while len(told) < 4:
        step = await anext(events)
        if step.event is not None:
            told.append(step.event.name or f"missed {step.event.missed.count}, now {step.at}")
    await events.aclose()
    assert told == [
        "routeTables/t2",
        f"missed 39, now {Cursor(7, 42)}",
        "routeTables/t42",
        f"missed 39, now {Cursor(7, 82)}",
    ]


async def _source(*steps: int, ends: asyncio.Event) -> AsyncGenerator[int, None]:
    try:
        for step in steps:
            yield step
        await asyncio.Event().wait()
    finally:
        ends.set()


async def test_sources_are_read_side_by_side_at_most_one_step_ahead_and_all_end_together() -> None:
    ends = [asyncio.Event() for _ in range(3)]
    sources = [_source(0, ends=ends[0]), _source(1, 2, 3, ends=ends[1]), _source(11, 12, ends=ends[2])]
    async with merged(sources) as (first, steps):
        assert first == [0, 1, 11]
        heard = sorted([await anext(steps) for _ in range(3)])
    assert heard == [2, 3, 12]
    assert all(end.is_set() for end in ends)
