"""`crossns stats`: rates of two looks, what the screen and scripts are told, and what is waited for on a terminal."""

import asyncio
import json
import re
from collections.abc import AsyncIterator

import click
import pytest

from crossns import errors
from crossns.cli.stats import command, live, rate, screen
from crossns.cli.stats.rate import Looks
from crossns.v1 import statistics_pb2


def look(
    seconds: int, *links: str, size_bytes: int = 0, packets: int = 0, datagrams: int = 0
) -> statistics_pb2.RouteTableStatistics:
    told = statistics_pb2.RouteTableStatistics(name="routeTables/a", sockets=1234)
    told.read_time.seconds = 1_700_000_000 + seconds
    for link in links:
        added = told.links.add(link=link)
        added.received.bytes_total, added.received.packets_total = size_bytes, packets
    told.ipv4.udp.received_datagrams_total = datagrams
    told.ipv4.sockets.tcp = 3
    told.tcp.active_opens_total = packets
    return told


def row(text: str, name: str) -> list[str]:
    (line,) = re.findall(rf"^  {name} .*$", click.unstyle(text), re.MULTILINE)
    return [str(cell) for cell in re.split(r"  +", str(line).strip())]


def test_rate_is_what_came_in_between_by_the_times_of_reading() -> None:
    looks = Looks(look(4, "lan", size_bytes=9216, packets=18), look(0, "lan", size_bytes=1024, packets=10))
    assert looks.seconds == 4
    assert row(screen.text(looks), "lan") == ["lan", "2.0 KiB/s", "2.0", "0 B/s", "0", "9.0 KiB", "0 B", "0", "0"]
    assert row(screen.text(looks), "opened") == ["opened", "2.0", "18"]


def test_first_look_has_totals_and_no_rates() -> None:
    text = screen.text(Looks(look(0, "lan", size_bytes=1024, packets=10)))
    assert row(text, "lan") == ["lan", "-", "-", "-", "-", "1.0 KiB", "0 B", "0", "0"]
    assert row(text, "opened") == ["opened", "-", "10"]


@pytest.mark.parametrize(
    "before",
    [
        look(0, "lan", size_bytes=2048, packets=20),
        look(0, "other"),
        look(1, "lan"),
        look(2, "lan"),
    ],
    ids=["shrank", "is new", "at the same time", "later"],
)
def test_link_that_was_not_the_same_before_has_no_rate(before: statistics_pb2.RouteTableStatistics) -> None:
    looks = Looks(look(1, "lan", size_bytes=1024, packets=10), before)
    assert row(screen.text(looks), "lan")[1:3] == ["-", "-"]
    assert rate.plain(looks)["links"][0].get("received", {}).get("bytesTotal") is None


def test_small_rates_have_a_digit_more() -> None:
    looks = Looks(look(3, datagrams=1), look(0))
    assert row(screen.text(looks), "UDP in") == ["UDP in", "0.3", "1", "-", "-"]


def test_screen_tells_sockets_and_connection_tracking_where_there_is_some() -> None:
    told = look(0)
    assert "1,234 held by processes; in use: TCP 3, UDP 0, raw 0" in screen.text(Looks(told))
    assert "connection tracking" not in screen.text(Looks(told))
    told.conntrack.entries, told.conntrack.limit = 0, 262_144
    assert "0 of 262,144" in screen.text(Looks(told))


def test_screen_tells_what_is_over_budget_where_there_is_one() -> None:
    before, now = look(0), look(2)
    assert "over budget" not in screen.text(Looks(now, before))
    before.budget.too_fast_total, now.budget.too_fast_total, now.budget.too_many_total = 1_000, 1_400, 7
    text = screen.text(Looks(now, before))
    assert row(text, "came too fast") == ["came too fast", "200", "1,400"]
    assert row(text, "too many at a time")[-1] == "7"


async def answers(
    *told: statistics_pb2.RouteTableStatistics | errors.CrossnsError,
) -> AsyncIterator[statistics_pb2.RouteTableStatistics]:
    for each in told:
        if isinstance(each, errors.CrossnsError):
            raise each
        yield each


async def test_scripts_are_told_totals_zeros_included_and_rates(capsys: pytest.CaptureFixture[str]) -> None:
    looks = await command._looks(answers(look(0, "lan"), look(2, "lan", size_bytes=100, packets=1, datagrams=8)))
    command._print(looks, "json")
    told = json.loads(capsys.readouterr().out)
    assert told["seconds"] == 2
    assert told["statistics"]["links"][0]["received"] == {"bytesTotal": 100, "packetsTotal": 1, "errorsTotal": 0, "dropsTotal": 0}
    assert told["perSecond"]["links"][0]["received"]["bytesTotal"] == 50
    assert told["perSecond"]["ipv4"]["udp"]["receivedDatagramsTotal"] == 4
    assert "sockets" not in told["perSecond"]


@pytest.mark.parametrize("seconds", [0.0, 0.09, 3601.0, -1.0, float("nan"), float("inf")])
def test_interval_out_of_bounds_is_wrong_usage(seconds: float) -> None:
    with pytest.raises(click.UsageError, match=r"0\.1 to 3600"):
        command._duration(seconds)


def test_interval_is_sent_to_the_nanosecond() -> None:
    assert (command._duration(1.25).seconds, command._duration(1.25).nanos) == (1, 250_000_000)


async def test_agent_that_is_away_is_waited_for_with_the_reason_beside_the_last_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_AGAIN_S", 0)
    away = errors.AgentUnavailable("AGENT_UNAVAILABLE", "the agent is away")
    gone = errors.NotFound("NOT_FOUND", "no such table")
    streams = iter([answers(away), answers(look(0), look(1, datagrams=5), away), answers(look(3, datagrams=9), gone)])
    drawn: list[str] = []
    with pytest.raises(errors.NotFound):
        await live._follow(lambda: next(streams), drawn.append)
    assert drawn[0] == "the agent is away"
    assert ["the agent is away" in each for each in drawn] == [True, False, False, True, False]
    assert [row(each, "UDP in")[1:3] for each in drawn[1:]] == [["-", "0"], ["5.0", "5"], ["5.0", "5"], ["2.0", "9"]]


async def test_gateway_that_is_away_ends_it() -> None:
    nobody = errors.ServiceUnavailable("SERVICE_UNAVAILABLE", "no crossns is running here")
    with pytest.raises(errors.ServiceUnavailable):
        await live._follow(lambda: answers(nobody), lambda _text: None)


async def test_whoever_ends_it_is_no_error_but_who_is_cancelled_is() -> None:
    following = asyncio.ensure_future(asyncio.Event().wait())
    asyncio.get_running_loop().call_soon(following.cancel)
    await live._ended(following)  # type: ignore[arg-type]
    inner = asyncio.ensure_future(asyncio.Event().wait())
    outer = asyncio.create_task(live._ended(inner))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    outer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await outer
    assert inner.cancelled()
