"""What a service keeps of what it tells: readers have places, and whoever comes too late is told how much he missed."""

import asyncio
from collections.abc import AsyncGenerator, Iterable

import pytest

from crossns import chronicle, errors
from crossns.chronicle import Chronicle, Wanted
from crossns.v1 import events_pb2

MISSED = events_pb2.EVENT_TYPE_MISSED
LINK, ROUTE = events_pb2.EVENT_KIND_LINK, events_pb2.EVENT_KIND_ROUTE
EVERYTHING = Wanted(frozenset(), frozenset(), frozenset())


def link(name: str, table: str = "a") -> events_pb2.Event:
    change = events_pb2.LinkChange(link=name)
    return events_pb2.Event(type=events_pb2.EVENT_TYPE_UPDATED, kind=LINK, route_tables=[f"routeTables/{table}"], link=change)


def published(kept: int, names: Iterable[str]) -> Chronicle:
    """One that had nothing before."""
    made = Chronicle(kept)
    made.publish(link(name) for name in names)
    return made


async def taken(reading: AsyncGenerator[events_pb2.Event, None], count: int) -> list[events_pb2.Event]:
    async with asyncio.timeout(1):
        return [await anext(reading) for _ in range(count)]


def said(events: Iterable[events_pb2.Event]) -> list[str]:
    return [f"missed {event.missed.count}" if event.type == MISSED else event.link.link for event in events]


async def test_reader_goes_on_behind_the_event_whose_token_he_has() -> None:
    told = published(4, "abc")
    first, *_ = await taken(told.read(0, EVERYTHING), 3)
    reading = told.read(told.begin(first.resume_token), EVERYTHING)
    assert said(await taken(reading, 2)) == ["b", "c"]
    told.publish([link("d")])
    assert said(await taken(reading, 1)) == ["d"]
    assert told.begin("") == told.begin((await taken(told.read(3, EVERYTHING), 1))[0].resume_token)


async def test_service_itself_leaves_out_what_the_reader_does_not_want() -> None:
    told = Chronicle()
    told.publish([link("a"), link("b", "b"), link("c")])
    of_b = chronicle.parse(events_pb2.WatchRequest(route_tables=["routeTables/b"]))
    reading = told.read(0, of_b)
    assert said(await taken(reading, 1)) == ["b"]
    told.publish([link("d"), link("e", "b")])
    assert said(await taken(reading, 1)) == ["e"]


async def test_reader_waits_for_what_is_still_to_come() -> None:
    told = published(4, "a")
    waiting = asyncio.ensure_future(taken(told.read(told.begin(""), EVERYTHING), 1))
    await asyncio.sleep(0)
    told.publish([link("b")])
    assert said(await waiting) == ["b"]


async def test_slow_reader_is_told_how_much_he_missed_and_goes_on_from_there() -> None:
    told = published(3, "ab")
    reading = told.read(0, EVERYTHING)
    assert said(await taken(reading, 1)) == ["a"]
    told.publish(link(name) for name in "cdefg")
    gap, *rest = await taken(reading, 4)
    assert said([gap, *rest]) == ["missed 3", "e", "f", "g"]
    # The gap's own token is behind the gap.
    assert said(await taken(told.read(told.begin(gap.resume_token), EVERYTHING), 3)) == ["e", "f", "g"]


async def test_reader_of_an_earlier_process_is_told_so_and_gets_what_is_kept() -> None:
    before, now = published(4, "ab"), published(4, "cd")
    (last,) = await taken(before.read(1, EVERYTHING), 1)
    assert now.begin(last.resume_token) is None
    assert said(await taken(now.read(None, EVERYTHING), 3)) == ["missed 0", "c", "d"]


@pytest.mark.parametrize("token", ["x", "1", "1.2.3", "g.1", "1" * 17 + ".1", "1.1 "])
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(errors.InvalidSpec, match="resume_token"):
        Chronicle().begin(token)


def missed(kind: events_pb2.EventKind.ValueType = events_pb2.EVENT_KIND_UNSPECIFIED, *tables: str) -> events_pb2.Event:
    event = chronicle.missed(7, "so many")
    event.kind = kind
    event.route_tables.extend(f"routeTables/{table}" for table in tables)
    return event


STATUS = events_pb2.Event(kind=events_pb2.EVENT_KIND_STATUS, name="interfaces/i", route_tables=["routeTables/a"])


@pytest.mark.parametrize(
    ("request_", "event", "is_told"),
    [
        ({}, link("l"), True),
        ({"route_tables": ["routeTables/a"]}, link("l"), True),
        ({"route_tables": ["routeTables/b"]}, link("l"), False),
        ({"kinds": [LINK]}, link("l"), True),
        ({"kinds": [ROUTE]}, link("l"), False),
        ({"collections": ["interfaces"]}, link("l"), False),
        ({"collections": ["interfaces"]}, STATUS, True),
        ({"collections": ["routes"]}, STATUS, False),
        ({"kinds": [LINK], "route_tables": ["routeTables/b"], "collections": ["routes"]}, missed(), True),
        ({"kinds": [ROUTE]}, missed(ROUTE, "a"), True),
        ({"kinds": [LINK]}, missed(ROUTE, "a"), False),
        ({"route_tables": ["routeTables/b"]}, missed(ROUTE, "a"), False),
        ({"collections": ["interfaces"]}, missed(ROUTE, "a"), False),
        ({"route_tables": ["routeTables/a"]}, STATUS, True),
        ({"route_tables": ["routeTables/a"]}, events_pb2.Event(kind=LINK), False),
    ],
)
def test_reader_gets_what_he_asked_for_and_hears_of_every_gap_in_it(
    request_: dict[str, object],
    event: events_pb2.Event,
    is_told: bool,
) -> None:
    wanted = chronicle.parse(events_pb2.WatchRequest(**request_))  # type: ignore[arg-type] # by name
    assert (event in wanted) == is_told


@pytest.mark.parametrize(
    "request_", [{"route_tables": ["a"]}, {"collections": ["tables"]}, {"kinds": [99]}, {"kinds": [0]}], ids=repr
)
def test_what_cannot_be_watched_is_refused(request_: dict[str, object]) -> None:
    with pytest.raises(errors.InvalidSpec):
        chronicle.parse(events_pb2.WatchRequest(**request_))  # type: ignore[arg-type]
