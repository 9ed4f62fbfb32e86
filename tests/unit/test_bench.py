"""The arithmetic of rows and goals, that a run of one area leaves the others' rows alone, and what is read of others' tools."""

from pathlib import Path
from typing import Any

import pytest
from pyroute2.netlink.rtnl import RTM_DELROUTE, RTM_NEWROUTE
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from bench import hand, route, row, tool
from crossns import errors

FIVE = (1.0, 2.0, 3.0, 4.0, 10.0)


def _row(slug: str, samples: tuple[float, ...] = FIVE, against: tuple[float, ...] | None = None) -> row.Row:
    return row.Row(slug, "ms", row.Series("ours", samples), row.Series("theirs", against) if against else None)


def test_ratio_is_that_of_the_medians() -> None:
    assert _row("ground.x", against=(2.0, 2.0, 2.0, 2.0, 90.0)).ratio == 1.5


def test_row_without_another_contestant_has_no_ratio() -> None:
    assert _row("ground.x").ratio is None
    assert _row("ground.x").as_json()["against"] is None


def test_control_ratio_is_the_same_contestants_odd_runs_against_its_even_ones() -> None:
    assert _row("ground.x", (1.0, 2.0, 1.0, 2.0, 1.0, 2.0)).control_ratio == 2.0
    assert _row("ground.x", (3.0,) * 6).control_ratio == 1.0


def test_ratio_to_nothing_is_none() -> None:
    assert _row("ground.idle_cpu", (0.0,) * 5).control_ratio is None


def test_fewer_than_five_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="4 samples"):
        row.Series("ours", FIVE[:4])


def test_goal_is_the_most_that_the_median_may_be() -> None:
    series = row.Series("ours", FIVE)
    assert row.Row("a.b", "ms", series, goal=3.0).verdict == "met"
    assert row.Row("a.b", "ms", series, goal=2.9).verdict == "missed"
    assert row.Row("a.b", "ms", series).verdict is None


@pytest.mark.parametrize(("of", "value"), [("median", 50.5), ("mean", 60.4), ("sum", 6040.0), ("p99", 99.0), ("worst", 1090.0)])
def test_goal_may_be_of_another_statistic_than_the_median(of: row.Statistic, value: float) -> None:
    series = row.Series("ours", tuple(float(number) for number in (1090, *range(99, 0, -1))))
    met, missed = (row.Row("a.b", "ms", series, goal=row.Goal(bound, of)) for bound in (value, value - 0.01))
    assert met.value == pytest.approx(value)
    assert [met.verdict, missed.verdict] == ["met", "missed"]


def test_last_against_first_is_a_slope_that_noise_does_not_excuse() -> None:
    first, last = row.Series("first", (10.0, 11.0) * 5), row.Series("last", (20.0, 19.0) * 5)
    assert row.Row("a.b", "ms", last, first, goal=row.Goal(1.5, "ratio")).verdict == "missed"
    assert row.Row("a.b", "ms", first, last, goal=row.Goal(1.5, "ratio")).verdict == "met"


def _against_100(*ours: float) -> row.Row:
    goal = row.Goal(0.97, "ratio", "at least")
    return row.Row("a.b", "1/s", row.Series("x", ours), row.Series("y", (100.0,) * 5), goal=goal)


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [
        ((97.0,) * 5, "met"),
        ((96.0,) * 5, "missed"),
        # As far from the other as it is from itself.
        ((96.0, 100.8, 96.0, 100.8, 96.0), "met"),
        # The same, but it is so little like itself that it may be anything.
        ((90.0, 99.0, 90.0, 99.0, 90.0), "inconclusive"),
        # Further from the other than it is from itself.
        ((80.0, 90.0, 80.0, 90.0, 80.0), "missed"),
        # It is not the spread that saves it.
        ((110.0, 132.0, 110.0, 132.0, 110.0), "met"),
    ],
)
def test_ratio_within_the_spread_is_that_of_equals_unless_the_spread_is_wide(ours: tuple[float, ...], verdict: str) -> None:
    assert _against_100(*ours).verdict == verdict


def test_goals_are_counted_by_what_became_of_them() -> None:
    rows = [_row("a.b"), _against_100(*(97.0,) * 5), _against_100(*(96.0,) * 5), _against_100(90.0, 99.0, 90.0, 99.0, 90.0)]
    assert row.summary(rows) == "goals: 1 met, 1 missed, 1 inconclusive"


def test_spread_is_that_of_the_contestant_that_is_less_like_itself() -> None:
    steady, restless = (10.0,) * 6, (10.0, 8.0) * 3
    assert _row("a.b", steady, restless).spread == pytest.approx(0.2)
    assert _row("a.b", restless, steady).spread == pytest.approx(0.2)
    assert _row("a.b", restless).spread is None


def test_spread_does_not_excuse_from_being_better() -> None:
    restless = (10.0, 20.0) * 3
    better = row.Goal(1.3, "ratio", "at least")
    assert row.Row("a.b", "1/s", row.Series("x", restless), row.Series("y", restless), goal=better).verdict == "missed"
    assert row.Row("a.b", "1/s", row.Series("x", (13.0,) * 5), row.Series("y", (10.0,) * 5), goal=better).verdict == "met"


def test_goal_for_a_ratio_without_another_contestant_is_missed() -> None:
    assert row.Row("a.b", "ms", row.Series("x", FIVE), goal=row.Goal(1.03, "ratio")).verdict == "missed"


def test_goal_reads_as_what_it_means() -> None:
    assert str(row.Goal(30)) == "<= 30"
    assert str(row.Goal(0.97, "ratio", "at least")) == "ratio >= 0.97"
    assert str(row.Goal(50, "p99")) == "p99 <= 50"


def test_written_row_has_exactly_the_fields_that_readers_know() -> None:
    assert _row("ground.x", against=FIVE).as_json() == {
        "slug": "ground.x",
        "unit": "ms",
        "samples": list(FIVE),
        "against": {"name": "theirs", "samples": list(FIVE)},
        "ratio": 1.0,
        "control_ratio": 1.0,
    }


def test_run_of_one_area_replaces_only_its_rows() -> None:
    earlier: list[dict[str, Any]] = [
        {"slug": "ground.gone"},
        {"slug": "ground.x", "samples": []},
        {"slug": "proxy.y"},
        {"slug": "groundwork.z"},
    ]
    joined = row.merged(earlier, [_row("ground.x")], "ground")
    assert [written["slug"] for written in joined] == ["ground.x", "groundwork.z", "proxy.y"]
    assert joined[0]["samples"] == list(FIVE)


def test_run_of_everything_replaces_everything() -> None:
    assert [written["slug"] for written in row.merged([{"slug": "proxy.y"}], [_row("ground.x")], "")] == ["ground.x"]


async def test_contestants_take_turns_and_the_first_round_does_not_count() -> None:
    order: list[str] = []

    async def run(name: str) -> float:
        order.append(name)
        return len(order)

    ours, theirs = await row.alternate(5, ("ours", lambda: run("a")), ("theirs", lambda: run("b")))
    assert order == ["a", "b"] * 6
    assert ours.samples == (3, 5, 7, 9, 11)
    assert theirs.samples == (4, 6, 8, 10, 12)


WRK = """\
Running 1s test @ http://203.0.113.10:80/
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   829.35us  612.02us  12.61ms   90.15%
    Req/Sec    40.61k     3.50k   46.11k    70.00%
  Latency Distribution
     50%  710.00us
     99%    3.05ms
  40402 requests in 1.00s, 41.87MB read
{more}Requests/sec:  40391.22
Transfer/sec:     41.86MB
"""


def test_what_wrk_prints_is_read() -> None:
    assert tool.parse_http(WRK.format(more="")) == tool.Http(40391.22, 3.05)
    assert tool.parse_http(WRK.format(more="").replace("3.05ms", "920.00us")).p99_ms == pytest.approx(0.92)


@pytest.mark.parametrize("failure", ["Non-2xx or 3xx responses: 7", "Socket errors: connect 0, read 3, write 0, timeout 0"])
def test_run_in_which_a_request_failed_is_no_measurement(failure: str) -> None:
    with pytest.raises(errors.PermanentError, match=failure):
        tool.parse_http(WRK.format(more=f"  {failure}\n"))


SUITE = """\
global
    maxconn 9000
    tune.bufsize 65536
    tune.pipesize 1048576
    maxpipes 128
    stats socket /run/crossns/engines/haproxy/stats.sock mode 660 level user

defaults tcp
    mode tcp
    option splice-request

frontend vs.web.fe.front from tcp
    bind ipv4@203.0.113.10:80 namespace dmz.4711 name dmz.4711 transparent
    default_backend vs.web.po.pool

backend vs.web.po.pool from tcp
    balance roundrobin
    server a.internal.4712 ipv4@10.0.0.5:8080 id 1 namespace internal.4712 weight 1
    server _1.internal.4712 ipv4@255.255.255.255:1 id 2 namespace internal.4712 weight 1 disabled
"""


def test_by_hand_is_the_suites_text_but_for_names_ports_and_sockets() -> None:
    text = hand.render(SUITE, Path("/run/crossns/engines/haproxy"), Path("/tmp/hand"), 1000)
    changed = [line for line in text.splitlines() if line not in SUITE.splitlines()]
    assert changed == [
        "    stats socket /tmp/hand/stats.sock mode 660 level user",
        "    bind ipv4@203.0.113.10:1080 namespace dmz name dmz transparent",
        "    server a.internal.4712 ipv4@10.0.0.5:8080 id 1 namespace internal weight 1",
    ]
    assert len(text.splitlines()) == len(SUITE.splitlines()) - 1


def test_untuned_is_without_what_makes_haproxy_faster() -> None:
    assert set(SUITE.splitlines()) - set(hand.untuned(SUITE).splitlines()) == {
        "    tune.bufsize 65536",
        "    tune.pipesize 1048576",
        "    maxpipes 128",
        "    option splice-request",
    }


@pytest.mark.parametrize(("number", "address"), [(0, "198.18.0.0"), (300, "198.18.1.44"), (65536, "198.19.0.0")])
def test_storm_is_made_of_routes_to_addresses_for_benchmarks(number: int, address: str) -> None:
    for is_new in (True, False):
        data = route.message(number, is_new=is_new)
        decoded = rtmsg(data)
        decoded.decode()
        assert decoded["header"]["type"] == (RTM_NEWROUTE if is_new else RTM_DELROUTE)
        assert decoded["header"]["length"] == len(data)
        assert (decoded.get_attr("RTA_DST"), decoded["dst_len"], decoded["table"]) == (address, 32, 254)
