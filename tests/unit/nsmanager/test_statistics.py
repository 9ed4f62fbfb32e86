"""Statistics of route tables: from the kernel's words to the API's, how agents are asked, and what is refused."""

import asyncio
from collections.abc import Mapping

import pytest
from google.protobuf import duration_pb2

from crossns import counter, errors
from crossns.v1 import route_table_pb2, statistics_pb2
from services.nsmanager import plan, servicer
from services.nsmanager.servicer import statistics

LINK = counter.Link("lan", 1, 2, 3, 4, 5, 6, 7, 8)
# Every counter another square: what adds up wrongly shows.
VALUES = {name: (number + 10) ** 2 for number, name in enumerate(sorted(counter.NAMES | {*counter.CENSUS}))}


def read(**other: object) -> counter.KernelCounters:
    return counter.KernelCounters(**{"time_ns": 5_000_000_007, "links": (LINK,), "values": VALUES} | other)  # type: ignore[arg-type]


def told(**other: object) -> statistics_pb2.RouteTableStatistics:
    return plan.statistics("routeTables/a", read(**other))


def test_link_is_told_in_both_directions() -> None:
    (link,) = told().links
    assert link.link == "lan"
    assert link.received == statistics_pb2.LinkTraffic(bytes_total=1, packets_total=2, errors_total=3, drops_total=4)
    assert link.sent == statistics_pb2.LinkTraffic(bytes_total=5, packets_total=6, errors_total=7, drops_total=8)


def test_what_was_read_at_which_time_is_told() -> None:
    assert (told().read_time.seconds, told().read_time.nanos) == (5, 7)


def test_every_counter_that_is_read_is_told_once() -> None:
    found = told()
    numbers = [
        number
        for message in (found.ipv4, found.ipv6, found.tcp)
        for part in (message, *(value for _, value in message.ListFields() if hasattr(value, "ListFields")))
        for _, number in part.ListFields()
        if isinstance(number, int)
    ]
    total = sum(numbers) + found.sockets
    assert total == sum(VALUES.values())


@pytest.mark.parametrize(
    ("field", "counters"),
    [
        ("ipv4.received_packets_total", ["IpInReceives"]),
        ("ipv4.received_bytes_total", ["IpExtInOctets"]),
        ("ipv4.forwarded_packets_total", ["IpForwDatagrams"]),
        ("ipv4.no_routes_total", ["IpExtInNoRoutes", "IpOutNoRoutes"]),
        ("ipv4.udp.no_ports_total", ["UdpNoPorts"]),
        ("ipv4.icmp.sent_unreachables_total", ["IcmpOutDestUnreachs"]),
        ("ipv4.sockets.raw", ["RAW.inuse"]),
        ("ipv6.received_packets_total", ["Ip6InReceives"]),
        ("ipv6.sent_bytes_total", ["Ip6OutOctets"]),
        ("ipv6.forwarded_packets_total", ["Ip6OutForwDatagrams"]),
        ("ipv6.udp.received_datagrams_total", ["Udp6InDatagrams"]),
        ("ipv6.icmp.received_messages_total", ["Icmp6InMsgs"]),
        ("ipv6.sockets.tcp", ["TCP6.inuse"]),
        ("tcp.established", ["TcpCurrEstab"]),
        ("tcp.time_wait", ["TCP.tw"]),
        ("tcp.listen_drops_total", ["TcpExtListenDrops"]),
        ("sockets", ["sockets.used"]),
    ],
)
def test_field_is_the_counter_of_its_meaning(field: str, counters: list[str]) -> None:
    value: object = told()
    for part in field.split("."):
        value = getattr(value, part)
    assert value == sum(VALUES[name] for name in counters)


def test_kernel_without_ipv6_has_no_ipv6() -> None:
    without = {name: value for name, value in VALUES.items() if not name.startswith("Ip6")}
    assert told().HasField("ipv6")
    assert not told(values=without).HasField("ipv6")


def test_table_without_connection_tracking_has_none() -> None:
    assert not told().HasField("conntrack")
    found = told(conntrack=counter.Conntrack(entries=0, limit=9))
    assert (found.HasField("conntrack"), found.conntrack.limit) == (True, 9)


def test_driver_that_counts_from_minus_one_on_breaks_nothing() -> None:
    (link,) = told(links=(counter.Link("lan", 2**64 - 1, 0, 0, 0, 0, 0, 0, 0),)).links
    assert link.received.bytes_total == 2**63 - 1


class Agents:
    """In the place of the driver: `hanging` never answer, `absent` say that they are not there."""

    def __init__(self, hanging: set[str] = frozenset(), absent: set[str] = frozenset()) -> None:  # type: ignore[assignment]
        self.hanging, self.absent = hanging, absent
        self.asked = 0
        self.waiting = 0

    async def count(self, table: str) -> counter.KernelCounters:
        self.asked += 1
        if table in self.absent:
            raise errors.AgentUnavailable("AGENT_UNAVAILABLE", "gone")
        if table in self.hanging:
            await self._hang()
        return read()

    async def agent_restarts(self) -> Mapping[str, int]:
        if "launcher" in self.hanging:
            await self._hang()
        return {"a": 0, "b": 3}

    async def _hang(self) -> None:
        self.waiting += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.waiting -= 1


def of(agents: Agents, *tables: str) -> servicer.Statistics:
    return servicer.Statistics(agents, lambda: [f"routeTables/{table}" for table in tables])


async def test_agent_that_hangs_is_told_with_the_time_that_it_had() -> None:
    agents = Agents(hanging={"a"})
    with pytest.raises(errors.AgentUnavailable, match=r"routeTables/a does not answer within 0\.01 s") as caught:
        await of(agents).read("routeTables/a", 0.01)
    assert (caught.value.reason, caught.value.code, agents.waiting) == ("AGENT_UNAVAILABLE", "UNAVAILABLE", 0)


async def test_table_whose_agent_hangs_delays_nobody_and_is_told_without_numbers() -> None:
    agents = Agents(hanging={"b", "d"}, absent={"c"})
    loop = asyncio.get_running_loop()
    begun = loop.time()
    found = {each.name: each for each in await of(agents, "c", "b", "a", "d").read_all()}
    assert loop.time() - begun < 2 * statistics.ALL_PATIENCE_S
    assert list(found) == [f"routeTables/{table}" for table in "abcd"]
    assert [each.HasField("statistics") for each in found.values()] == [True, False, False, False]
    assert agents.waiting == 0


async def test_restarts_are_told_of_tables_that_the_launcher_knows() -> None:
    a, b, c = await of(Agents(), "a", "b", "c").read_all()
    assert (a.HasField("agent_restarts_total"), a.agent_restarts_total) == (True, 0)
    assert (b.agent_restarts_total, c.HasField("agent_restarts_total")) == (3, False)


async def test_launcher_that_hangs_takes_only_the_restarts_away() -> None:
    agents = Agents(hanging={"launcher"})
    (found,) = await of(agents, "a").read_all()
    assert (found.HasField("statistics"), found.HasField("agent_restarts_total")) == (True, False)
    assert agents.waiting == 0


async def test_watch_answers_at_once_and_then_at_every_interval() -> None:
    agents = Agents()
    loop = asyncio.get_running_loop()
    begun = loop.time()
    times = []
    async for _ in of(agents).watch("routeTables/a", 0.05):
        times.append(loop.time() - begun)
        if len(times) == 4:
            break
    assert times[0] < 0.04
    assert 0.15 <= times[3] < 0.5


async def test_slow_reader_of_a_watch_is_told_less_often() -> None:
    agents = Agents()
    watch = of(agents).watch("routeTables/a", 0.01)
    for _ in range(3):
        await anext(watch)
        await asyncio.sleep(0.1)
    await watch.aclose()
    assert agents.asked == 3


def request(**interval: int) -> route_table_pb2.WatchStatisticsRequest:
    given = duration_pb2.Duration(**interval) if interval else None
    return route_table_pb2.WatchStatisticsRequest(name="routeTables/a", interval=given)


@pytest.mark.parametrize(("given", "seconds"), [({}, 1.0), ({"nanos": 100_000_000}, 0.1), ({"seconds": 3600}, 3600.0)])
def test_interval_within_its_bounds_is_taken(given: dict[str, int], seconds: float) -> None:
    assert statistics.interval(request(**given)) == seconds


@pytest.mark.parametrize(
    "given", [{"seconds": 0}, {"nanos": 99_999_999}, {"seconds": -1}, {"seconds": 3600, "nanos": 1}, {"seconds": 2**62}]
)
def test_interval_out_of_its_bounds_is_refused_with_what_to_give(given: dict[str, int]) -> None:
    with pytest.raises(errors.InvalidSpec, match=r"give 0\.1s to 3600s") as caught:
        statistics.interval(request(**given))
    assert caught.value.metadata["field"] == "interval"
