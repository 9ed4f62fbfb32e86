"""What HAProxy's workers count, added up, and what is said of it."""

import dataclasses
import ipaddress
from collections.abc import Sequence
from typing import cast

import pytest

from crossns.registry import Registry
from crossns.v1 import v_service_pb2
from services.proxy import model, plan, servicer
from tests.unit.proxy import sample
from tests.unit.proxy.show_stat import row, table

FRONTEND, POOL = "vs.web.fe.fe", "vs.web.po.main"
SPARE = ("_1.tenant-a.21", "10.0.0.5:8080")
OWN = ("a1.tenant-a.21", "10.0.0.5:8080")


def told(ledger: plan.Ledger, vservice: model.VService) -> v_service_pb2.VServiceStatistics:
    """Of a HAProxy without connections."""
    counts = {
        subject: plan.Counts(0, 0, *growing)
        for section in plan.sections(vservice)
        for subject, growing in ledger.totals(section).items()
    }
    return plan.statistics(vservice, plan.Totals(ledger.since, counts))


def take(ledger: plan.Ledger, worker: int, *rows: str) -> list[bool]:
    return [ledger.take(worker, each) for each in plan.rows(table(*rows))]


def total(ledger: plan.Ledger, vservice: model.VService | None = None) -> tuple[int, int, int]:
    """Connections of the frontend, the pool and the member."""
    statistics = told(ledger, vservice or sample.vservice())
    traffic = statistics.frontends[0].traffic, statistics.pools[0].traffic, statistics.members[0].traffic
    return traffic[0].connections_total, traffic[1].connections_total, traffic[2].connections_total


def connected(count: int, name: str = OWN[0], addr: str = OWN[1]) -> tuple[str, str, str]:
    return row(FRONTEND, "FRONTEND", stot=count), row(POOL, name, addr, stot=count), row(POOL, "BACKEND", stot=count)


def subjects(*lines: str) -> set[plan.Subject]:
    """Of frontends, and of pools with a member."""
    known = [f"{line},FRONTEND,0" if ".fe." in line else f"{line.partition('/')[0]}\n{line} 0" for line in lines]
    return plan.listed("\n".join(known))


def has(*vservices: str) -> set[plan.Subject]:
    """What a worker has of vServices that are as `sample.vservice` makes them."""
    found: set[plan.Subject] = set()
    for each in vservices:
        found |= subjects(f"vs.{each}.fe.fe", f"vs.{each}.po.main/a1.tenant-a.21 1/1 10.0.0.5 8080 -")
    return found


def http(vservice: model.VService) -> model.VService:
    return model.VService(vservice.name, vservice.frontends, vservice.pools, vservice.generation, protocol="http")


def test_a_first_sight_takes_everything_and_a_second_one_what_is_new() -> None:
    ledger = plan.Ledger(0.0)
    for count in (5, 5, 8):
        take(ledger, 1, *connected(count))
        assert total(ledger) == (count, count, count)


def test_each_worker_begins_at_nothing_and_the_totals_do_not() -> None:
    ledger = plan.Ledger(0.0)
    take(ledger, 1, *connected(5))
    take(ledger, 2, *connected(2))
    take(ledger, 1, *connected(6))
    ledger.forget([2])
    take(ledger, 2, *connected(3))
    assert total(ledger) == (9, 9, 9)


def test_a_pid_that_is_used_again_is_another_worker() -> None:
    ledger = plan.Ledger(0.0)
    take(ledger, 1, *connected(5))
    ledger.forget([])
    take(ledger, 1, *connected(2))
    assert total(ledger) == (7, 7, 7)


def test_totals_never_go_back() -> None:
    """A connection that a member refuses is counted for it first, and taken away when the next one has its turn."""
    ledger = plan.Ledger(0.0)
    for tried, moved, shown in ((5, 0, 5), (6, 0, 6), (6, 1, 6), (7, 1, 6), (8, 1, 7)):
        take(ledger, 1, row(POOL, *OWN, stot=tried, wredis=moved))
        assert total(ledger) == (0, 0, shown)


def test_a_member_on_a_spare_line_is_known_by_its_table_and_address() -> None:
    ledger = plan.Ledger(0.0)
    take(ledger, 1, *connected(5, *SPARE))
    # A reload gives it a line of its own.
    take(ledger, 2, *connected(2))
    assert total(ledger) == (7, 7, 7)


@pytest.mark.parametrize("addr", ["10.0.0.6:8080", "10.0.0.5:8081"])
def test_a_spare_line_that_points_elsewhere_is_somebody_elses(addr: str) -> None:
    ledger = plan.Ledger(0.0)
    take(ledger, 1, *connected(5, "_1.tenant-a.21", addr), *connected(5, "_1.tenant-b.22", OWN[1]))
    assert total(ledger) == (5, 5, 0)


def test_a_table_that_was_made_anew_goes_on_counting() -> None:
    ledger = plan.Ledger(0.0)
    take(ledger, 1, *connected(5, "a1.tenant-a.21"))
    take(ledger, 2, *connected(2, "a1.tenant-a.99"))
    assert total(ledger) == (7, 7, 7)


def test_a_vservice_that_was_deleted_and_made_anew_begins_at_nothing() -> None:
    ledger = plan.Ledger(0.0)
    take(ledger, 1, *connected(5))
    # Worker 2 has no `web`, worker 3 has one again; 1 and 2 still finish their connections.
    ledger.keep(has("other"), ending=[1])
    ledger.keep(has("web", "other"), ending=[1, 2])
    assert total(ledger) == (0, 0, 0)
    assert take(ledger, 1, *connected(9)) == [False] * 3
    assert take(ledger, 3, *connected(1)) == [True] * 3
    assert total(ledger) == (1, 1, 1)


def test_a_vservice_that_stays_goes_on_in_the_workers_that_end() -> None:
    ledger = plan.Ledger(0.0)
    take(ledger, 1, *connected(5))
    ledger.keep(has("web", "other"), ending=[1])
    take(ledger, 1, *connected(9))
    assert total(ledger) == (9, 9, 9)


def test_a_name_that_is_given_to_a_member_of_another_table_begins_at_nothing() -> None:
    ledger = plan.Ledger(0.0)
    take(ledger, 1, *connected(5))
    moved = dataclasses.replace(sample.vservice().pools[0].members[0], table="routeTables/tenant-b")
    other = dataclasses.replace(sample.vservice(), pools=(model.Pool("main", (moved,)),))
    assert total(ledger, other) == (5, 5, 0)
    take(ledger, 2, *connected(2, "a1.tenant-b.22"))
    assert (total(ledger, other), total(ledger)) == ((7, 7, 2), (7, 7, 5))


def test_what_no_worker_has_any_more_is_forgotten() -> None:
    ledger = plan.Ledger(0.0)
    ledger.keep(has("web"), ending=[])
    take(ledger, 1, *connected(5))
    # Worker 2 has another member in its place, another pool, another frontend; 1 still finishes its connections.
    ledger.keep(subjects("vs.web.fe.other", "vs.web.po.other/b1.tenant-b.22 1/1 10.0.0.6 8080 -"), ending=[1])
    take(ledger, 1, *connected(6))
    assert total(ledger) == (6, 6, 6)
    ledger.keep(subjects("vs.web.fe.other", "vs.web.po.other/b1.tenant-b.22 1/1 10.0.0.6 8080 -"), ending=[1, 2])
    assert total(ledger) == (6, 6, 6)
    ledger.forget([2, 3])
    assert total(ledger) == (0, 0, 0)
    assert ledger.totals(POOL) == {}


def test_what_is_back_before_a_worker_that_had_it_ends_goes_on() -> None:
    ledger = plan.Ledger(0.0)
    ledger.keep(has("web"), ending=[])
    take(ledger, 1, *connected(5))
    ledger.keep(has("web") - {plan.subject(each) for each in plan.rows(table(row(POOL, *OWN)))}, ending=[1])
    ledger.keep(has("web"), ending=[1, 2])
    ledger.forget([3])
    assert total(ledger) == (5, 5, 5)


def test_what_came_without_a_reload_is_kept_when_a_worker_from_before_ends() -> None:
    ledger = plan.Ledger(0.0)
    ledger.keep(has("web"), ending=[1])
    came = row(POOL, "_1.tenant-a.21", "10.0.0.6:8080", stot=3)
    take(ledger, 2, came)
    ledger.forget([2])
    (kept,) = ledger.totals(POOL).values()
    assert kept[0] == 3


def test_what_a_spare_line_counted_is_kept_when_its_member_has_a_line_of_its_own() -> None:
    """Even where the worker that has the spare line is read for the first time when it ends."""
    ledger = plan.Ledger(0.0)
    ledger.keep(has("web"), ending=[1])
    take(ledger, 1, *connected(5, *SPARE))
    ledger.forget([2])
    assert total(ledger) == (5, 5, 5)


def test_what_a_worker_has_is_read_of_what_haproxy_tells() -> None:
    told = (
        "# name\nvs.web.po.main\nvs.web.po.empty\n\n"
        + table(connected(1)[0])
        + "# bkname/svname bkid/svid addr port - purge_delay\n"
    )
    told += "vs.web.po.main/a1.tenant-a.21 3/1 fd00::5 8080 - 5000 0 0 1 0 0 -1 0 0 0\n"
    told += "vs.web.po.main/_1.tenant-b.22 3/2 10.0.0.5 8081 - 5000 0 0 1 0 0 -1 0 0 0\n\n"
    assert plan.listed(told) == {
        plan.Subject(FRONTEND),
        plan.Subject(POOL),
        plan.Subject("vs.web.po.empty"),
        plan.Subject(POOL, "a1", "tenant-a"),
        plan.Subject(POOL, "[fd00::5]:8080", "tenant-a"),
        plan.Subject(POOL, "10.0.0.5:8081", "tenant-b"),
    }


def test_no_answer_and_half_an_answer_change_nothing() -> None:
    ledger = plan.Ledger(0.0)
    whole = table(*connected(5))
    for text in ("", "No such proxy.\n\n", "Can't find the target PID matching the prefix '@!9'\n", whole.splitlines()[1]):
        assert list(plan.rows(text)) == []
    cut = [ledger.take(1, each) for each in plan.rows(whole[: -len(connected(5)[2]) // 2])]
    assert cut == [True, True]


def test_several_answers_are_read_one_after_the_other() -> None:
    text = table(connected(1)[0]) + "No such proxy.\n\n" + table(*connected(1)[1:])
    assert [(each.section, each.name) for each in plan.rows(text)] == [(FRONTEND, ""), (POOL, OWN[0]), (POOL, "")]


def test_every_number_of_haproxys_has_its_place() -> None:
    ledger = plan.Ledger(1_700_000_000.5)
    codes = {"hrsp_1xx": 1, "hrsp_2xx": 2, "hrsp_3xx": 3, "hrsp_4xx": 4, "hrsp_5xx": 5}
    take(
        ledger,
        1,
        row(FRONTEND, "FRONTEND", stot=10, bin=11, bout=12, dcon=13, dses=14, ereq=15, req_tot=16, **codes),
        row(POOL, *OWN, stot=100, bin=21, bout=22, econ=23, wretr=24, wredis=25, **codes),
        row(POOL, "BACKEND", stot=30, bin=31, bout=32, econ=33, wretr=34, wredis=35, req_tot=36, **codes),
    )
    statistics = told(ledger, http(sample.vservice()))
    responses = v_service_pb2.HttpResponses(
        informational_total=1, successful_total=2, redirection_total=3, client_error_total=4, server_error_total=5
    )
    traffic = v_service_pb2.Traffic
    assert statistics.name == "vServices/web"
    assert statistics.counted_since.seconds == 1_700_000_000
    assert list(statistics.frontends) == [
        v_service_pb2.FrontendStatistics(
            name="fe",
            route_table="routeTables/dmz",
            traffic=traffic(connections_total=10, received_bytes_total=11, sent_bytes_total=12),
            denied_total=27,
            request_errors_total=15,
            requests_total=16,
            responses=responses,
        )
    ]
    assert list(statistics.pools) == [
        v_service_pb2.PoolStatistics(
            name="main",
            traffic=traffic(connections_total=30, received_bytes_total=31, sent_bytes_total=32),
            connect_errors_total=33,
            responses=responses,
        )
    ]
    assert list(statistics.members) == [
        v_service_pb2.MemberStatistics(
            name="main/a1",
            route_table="routeTables/tenant-a",
            # Those that went on to another member are not its own.
            traffic=traffic(connections_total=75, received_bytes_total=21, sent_bytes_total=22),
            connect_errors_total=72,
            retries_total=49,
            responses=responses,
        )
    ]


def test_what_there_is_now_is_said_beside_the_totals() -> None:
    section = plan.Subject(POOL)
    statistics = plan.statistics(sample.vservice(), plan.Totals(0.0, {section: plan.Counts(connections=3, queued=2)}))
    assert (statistics.pools[0].traffic.connections, statistics.pools[0].queued) == (3, 2)


def test_what_haproxy_does_not_know_is_there_with_zeros() -> None:
    statistics = plan.statistics(sample.vservice(), plan.Totals())
    assert not statistics.HasField("counted_since")
    nothing = v_service_pb2.Traffic()
    assert [(each.name, each.traffic) for each in statistics.frontends] == [("fe", nothing)]
    assert [(each.name, each.traffic) for each in statistics.pools] == [("main", nothing)]
    assert [(each.name, each.traffic) for each in statistics.members] == [("main/a1", nothing)]


def test_answers_and_requests_are_told_of_http_only() -> None:
    ledger = plan.Ledger(0.0)
    take(ledger, 1, row(FRONTEND, "FRONTEND", stot=1, req_tot=5, hrsp_2xx=5))
    frontend = told(ledger, sample.vservice()).frontends[0]
    assert (frontend.requests_total, frontend.HasField("responses")) == (0, False)
    assert told(ledger, http(sample.vservice())).frontends[0].requests_total == 5


def test_members_of_one_address_in_two_tables_are_two() -> None:
    address = ipaddress.ip_address("10.0.0.5")
    members = tuple(model.Member(f"{table}1", f"routeTables/tenant-{table}", address, 8080) for table in "ab")
    vservice = model.VService("vServices/web", sample.vservice().frontends, (model.Pool("main", members),))
    ledger = plan.Ledger(0.0)
    rows = ("a1.tenant-a.21", 1), ("b1.tenant-b.22", 2), ("_1.tenant-a.21", 10), ("_1.tenant-b.22", 20)
    take(ledger, 1, *(row(POOL, name, OWN[1], stot=count) for name, count in rows))
    assert [each.traffic.connections_total for each in told(ledger, vservice).members] == [11, 22]


class Stored:
    """A registry with vServices, of which a page has one."""

    kind = servicer.V_SERVICE

    def __init__(self, *messages: v_service_pb2.VService) -> None:
        self._messages = messages

    async def get(self, _name: str) -> v_service_pb2.VService:
        return self._messages[0]

    async def page(self, _prefix: str, _size: int, token: str) -> tuple[list[v_service_pb2.VService], str]:
        place = int(token or 0)
        return [self._messages[place]], str(place + 1) if place + 1 < len(self._messages) else ""


async def asked(message: v_service_pb2.VService) -> list[Sequence[str]]:
    """What HAProxy is asked for, for the statistics of a vService."""
    asked: list[Sequence[str]] = []

    async def count(sections: Sequence[str]) -> plan.Totals:
        asked.append(sections)
        return plan.Totals(5.0)

    request = v_service_pb2.GetVServiceStatisticsRequest(name=message.name)
    answer = await servicer.VServices(cast("Registry", Stored(message)), count).GetVServiceStatistics(request, None)
    assert answer.HasField("counted_since") == bool(asked)
    assert [each.name for each in answer.members] == ["main/a1", "main/b1"]
    return asked


async def test_haproxy_is_not_asked_for_what_it_was_not_given_yet() -> None:
    """There may be none."""
    message = sample.message()
    # Another service was quicker.
    message.status.frontends.add(name="dmz", service="nsmanager")
    assert await asked(message) == []


async def test_haproxy_is_asked_for_the_sections_of_the_vservice() -> None:
    message = sample.message()
    message.status.frontends.add(name="dmz", service="proxy")
    assert await asked(message) == [("vs.web.fe.dmz", "vs.web.po.main")]


def stored(name: str, *, is_known: bool = True) -> v_service_pb2.VService:
    message = sample.message()
    message.name = f"vServices/{name}"
    if is_known:
        message.status.frontends.add(name="dmz", service="proxy")
    return message


async def listed(*messages: v_service_pb2.VService) -> tuple[list[v_service_pb2.VServiceStatistics], list[Sequence[str]]]:
    """What is told of all, and what HAProxy was asked for."""
    asked: list[Sequence[str]] = []

    async def count(sections: Sequence[str]) -> plan.Totals:
        asked.append(sections)
        return plan.Totals(5.0, {plan.Subject("vs.a.fe.dmz"): plan.Counts(connections=7)})

    methods = servicer.VServices(cast("Registry", Stored(*messages)), count)
    answers = methods.ListVServiceStatistics(v_service_pb2.ListVServiceStatisticsRequest(), None)
    return [each async for each in answers], asked


async def test_haproxy_is_asked_once_for_all_vservices() -> None:
    told, asked = await listed(stored("a"), stored("b"), stored("young", is_known=False))
    assert asked == [["vs.a.fe.dmz", "vs.a.po.main", "vs.b.fe.dmz", "vs.b.po.main"]]
    assert [(each.name, each.HasField("counted_since")) for each in told] == [
        ("vServices/a", True),
        ("vServices/b", True),
        ("vServices/young", False),
    ]
    assert [each.frontends[0].traffic.connections for each in told] == [7, 0, 0]


async def test_haproxy_is_not_asked_where_it_has_nothing() -> None:
    told, asked = await listed(stored("young", is_known=False))
    assert (len(told), asked) == (1, [])


async def test_what_is_going_or_not_valid_is_left_out_of_a_listing() -> None:
    going, invalid = stored("going"), stored("invalid")
    going.delete_time.GetCurrentTime()
    invalid.spec.frontends[0].address = "nowhere"
    told, _ = await listed(going, invalid, stored("a"))
    assert [each.name for each in told] == ["vServices/a"]


async def test_frontends_and_members_are_told_with_their_tables() -> None:
    (told,), _ = await listed(stored("a"))
    assert [each.route_table for each in told.frontends] == ["routeTables/dmz"]
    assert [each.route_table for each in told.members] == ["routeTables/tenant-a", "routeTables/tenant-b"]
