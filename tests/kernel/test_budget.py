"""Budgets of route tables with real sessions: what is too much stays out and is counted, nobody else's is touched."""

import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Self

import pytest
import pytest_asyncio

from crossns import proc
from crossns.budget import Budget
from crossns.testing import device as testing_device
from crossns.testing.device import Device, doc, wait_until
from crossns.testing.lab import Cable, Host, Lab
from crossns.v1 import statistics_pb2
from services.nsmanager.agent import budget_rules
from tests.kernel import packets
from tests.kernel.privileged import socket_in
from tests.kernel.test_statistics import METRICS, scrape, statistics
from tests.kernel.view import do, table_with_card

pytestmark = [pytest.mark.kernel, pytest.mark.needs("nft"), pytest.mark.asyncio(loop_scope="module")]

PORT = 5000
# Longer than any answer on a cable takes, shorter than the first retransmission of a SYN (1 s).
DROPPED_S = 0.3
FLOOD = 40
# Of this burst a second of rest lets one more in.
BURST = 5
MOST, PACKETS = 20, 200
PICKUP = "net.netfilter.nf_conntrack_tcp_loose"
TARGETS = ("10.0.0.1", "2001:db8::1")
TRACKING = "add table inet f; add chain inet f c { type filter hook input priority 0; }; add rule inet f c ct state new accept"
LIMITED = ["nft", "list", "table", "inet", "crossns_budget"]
FOREIGN = (
    "add table inet foreign; add chain inet foreign c { type filter hook input priority 0; }; add rule inet foreign c counter"
)


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="suite")
async def suite_with_metrics() -> AsyncIterator[Device]:
    async with testing_device.started({"CROSSNS_GATEWAY_METRICS": "{}:{}".format(*METRICS)}) as started:
        yield started


async def plug(device: Device, lab: Lab, *tables: str) -> dict[str, Host]:
    for table in tables:
        await lab.host(table, Cable(f"card-{table}"), ["10.0.0.6/24", "2001:db8::6/64"])
        await device.apply(*table_with_card(table, f"card-{table}", "10.0.0.1/24", "2001:db8::1/64"))
    return dict(lab.hosts)


async def limit(device: Device, **budget: int) -> None:
    await device.apply(doc("routeTables/a", budget=budget))


async def dropped(device: Device) -> statistics_pb2.BudgetStatistics:
    return (await statistics(device, "a")).budget


@contextlib.contextmanager
def listening(namespace: Path, address: str = "10.0.0.1") -> Iterator[socket.socket]:
    """Takes everybody without being asked."""
    with socket_in(namespace, socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, PORT))
        listener.listen(2 * FLOOD)
        listener.settimeout(5)
        yield listener


class Sessions:
    """TCP connections from a host, held open."""

    def __init__(self, namespace: Path, address: str = "10.0.0.1") -> None:
        self._namespace, self._target = namespace, (address, PORT)
        self.open: list[socket.socket] = []

    def begin(self) -> bool:
        """Whether one more comes about."""
        with socket_in(self._namespace, socket.AF_INET, socket.SOCK_STREAM) as made:
            made.settimeout(DROPPED_S)
            with contextlib.suppress(TimeoutError):
                made.connect(self._target)
                self.open.append(socket.socket(fileno=made.detach()))
                return True
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self.open:
            each.close()


def speak(client: socket.socket, server: socket.socket, times: int = 20) -> None:
    """Both ways, or it raises."""
    client.settimeout(5)
    server.settimeout(5)
    for _ in range(times):
        client.sendall(b"ping")
        assert server.recv(4) == b"ping"
        server.sendall(b"pong")
        assert client.recv(4) == b"pong"


def flood(device: Device, host: Host, table: str, family: socket.AddressFamily = socket.AF_INET) -> int:
    """How many of FLOOD datagrams arrive, each a session of its own."""
    address = "10.0.0.1" if family == socket.AF_INET else "2001:db8::1"
    with (
        socket_in(device.layout.netns / table, family, socket.SOCK_DGRAM) as receiver,
        socket_in(host.namespace, family, socket.SOCK_DGRAM) as introduced,
    ):
        receiver.bind((address, PORT))
        receiver.settimeout(DROPPED_S)
        # Neighbours look for each other before.
        introduced.sendto(b"x", (address, PORT))
        receiver.recv(1)
        for _ in range(FLOOD):
            with socket_in(host.namespace, family, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"x", (address, PORT))
        arrived = 0
        with contextlib.suppress(TimeoutError):
            while receiver.recv(1):
                arrived += 1
        return arrived


async def test_sessions_beyond_the_budget_stay_out_and_come_in_when_one_ends(device: Device, lab: Lab) -> None:
    hosts = await plug(device, lab, "a", "b")
    await limit(device, maxSessions=5)
    with (
        listening(device.layout.netns / "a") as server,
        listening(device.layout.netns / "b"),
        Sessions(hosts["a"].namespace) as limited,
        Sessions(hosts["b"].namespace) as free,
    ):
        assert [limited.begin() for _ in range(7)] == [True] * 5 + [False] * 2
        assert all(free.begin() for _ in range(FLOOD))
        accepted = [server.accept()[0] for _ in range(5)]
        for client, taken in zip(limited.open, accepted, strict=True):
            speak(client, taken)
        assert (await dropped(device)).too_many_total == 2
        assert not (await statistics(device, "b")).HasField("budget")
        limited.open.pop().close()
        accepted.pop().close()
        await wait_until(limited.begin)
        for taken in accepted:
            taken.close()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["ipv4", "ipv6"])
async def test_new_sessions_that_come_too_fast_stay_out_and_are_counted_to_the_try(
    device: Device, lab: Lab, family: socket.AddressFamily
) -> None:
    hosts = await plug(device, lab, "a", "b")
    await limit(device, newSessionsPerSecond=1, burst=BURST)
    before = (await dropped(device)).too_fast_total
    # IPv6 has introduced itself by ICMP; the flood's own first session is one of the burst, too.
    arrived = flood(device, hosts["a"], "a", family)
    assert BURST - 2 <= arrived <= BURST + 1
    assert (await dropped(device)).too_fast_total - before == FLOOD - arrived
    assert flood(device, hosts["b"], "b", family) == FLOOD
    told, _ = await scrape()
    assert told["crossns_budget_too_fast_sessions_total", "a"] == before + FLOOD - arrived
    assert ("crossns_budget_too_fast_sessions_total", "b") not in told


async def test_one_session_of_many_packets_that_nobody_answers_is_one(device: Device, lab: Lab) -> None:
    hosts = await plug(device, lab, "a")
    await limit(device, newSessionsPerSecond=1, burst=BURST)
    with (
        socket_in(device.layout.netns / "a", socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket_in(hosts["a"].namespace, socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind(("10.0.0.1", PORT))
        receiver.settimeout(5)
        for _ in range(FLOOD):
            sender.sendto(b"x", ("10.0.0.1", PORT))
            assert receiver.recv(1) == b"x"


async def test_what_stood_before_a_budget_is_never_cut_by_it_and_by_none_that_follows(device: Device, lab: Lab) -> None:
    hosts = await plug(device, lab, "a")
    with listening(device.layout.netns / "a") as server, Sessions(hosts["a"].namespace) as sessions:
        assert all(sessions.begin() for _ in range(3))
        accepted = [server.accept()[0] for _ in range(3)]
        for budget in ({"maxSessions": 1, "newSessionsPerSecond": 1, "burst": 1}, {"maxSessions": 2}, {}):
            await limit(device, **budget)
            for client, taken in zip(sessions.open, accepted, strict=True):
                speak(client, taken)
            if budget:
                assert await dropped(device) == statistics_pb2.BudgetStatistics()
        for taken in accepted:
            taken.close()


async def test_sessions_of_the_table_itself_do_not_count(device: Device, lab: Lab) -> None:
    hosts = await plug(device, lab, "a")
    await limit(device, maxSessions=1, newSessionsPerSecond=1, burst=1)
    inside = device.layout.netns / "a"
    with (
        listening(hosts["a"].namespace, "10.0.0.6"),
        listening(inside, "127.0.0.1"),
        Sessions(inside, "10.0.0.6") as outward,
        Sessions(inside, "127.0.0.1") as within,
    ):
        assert all(sessions.begin() for sessions in (outward, within) for _ in range(10))
    assert await dropped(device) == statistics_pb2.BudgetStatistics()


async def nft(table: str, command: str) -> str:
    return (await proc.run(["ip", "netns", "exec", table, "nft", command])).check().stdout


async def test_budget_that_changes_goes_on_counting_and_one_that_is_taken_away_leaves_nothing(device: Device, lab: Lab) -> None:
    hosts = await plug(device, lab, "a")
    await nft("a", FOREIGN)
    foreign = await nft("a", "list table inet foreign")
    await limit(device, newSessionsPerSecond=1, burst=BURST)
    flood(device, hosts["a"], "a")
    before = (await dropped(device)).too_fast_total
    assert before > 0
    await limit(device, newSessionsPerSecond=1000, maxSessions=7)
    assert (await dropped(device)).too_fast_total == before
    rules = await nft("a", "list table inet crossns_budget")
    assert "limit rate over 1000/second burst 1000 packets" in rules
    assert "ct count over 7" in rules
    assert "limit rate over 1/second" not in rules
    await limit(device)
    assert not (await statistics(device, "a")).HasField("budget")
    assert (await nft("a", "list tables")).split() == ["table", "inet", "foreign"]
    assert (await nft("a", "list table inet foreign")).split("counter")[0] == foreign.split("counter")[0]


# What the rules of the budget say, and none of what they do.
SAME_WORDS = [
    f'add rule inet crossns_budget arriving counter accept comment "{comment}"'
    for comment in budget_rules.comments(Budget(5, 100, 100))
]
DRIFT = (
    "delete table inet crossns_budget",
    "flush chain inet crossns_budget arriving",
    "flush ruleset",
    "insert rule inet crossns_budget arriving accept",
    "add table inet crossns_budget { flags dormant; }",
    "add chain inet crossns_budget arriving { policy drop; }",
    "add chain inet crossns_budget more { type filter hook input priority 0; policy drop; }",
    "; ".join(["flush chain inet crossns_budget arriving", *SAME_WORDS]),
)


async def test_budget_that_somebody_changes_is_put_back_and_then_nothing_is_done(device: Device) -> None:
    await limit(device, maxSessions=5, newSessionsPerSecond=100)
    before = await nft("a", "list table inet crossns_budget")
    for command in DRIFT:
        await nft("a", command)

        async def is_back() -> bool:
            listed = await proc.run(["ip", "netns", "exec", "a", *LIMITED])
            return listed.stdout == before

        await wait_until(is_back)
    await device.wait_until_state("routeTables/a", "READY")
    writes = await device.kernel_writes("a")
    await device.kill("nsmanager")
    await wait_until(device.serves)
    await device.apply(doc("routeTables/b"))
    assert await device.kernel_writes("a") == {**writes, "launcher": writes["launcher"] + 1}


async def test_table_has_its_budget_before_its_first_link_and_others_have_none(device: Device) -> None:
    await limit(device, maxSessions=3)
    assert "ct count over 3" in await nft("a", "list ruleset")
    await device.apply(doc("routeTables/b"))
    assert await nft("b", "list ruleset") == ""
    assert "crossns" not in (await proc.run(["nft", "list", "ruleset"])).check().stdout
    await device.kill("agent a")

    async def is_counted() -> bool:
        return (await scrape())[0].get(("crossns_budget_too_many_sessions_total", "a")) == 0

    await wait_until(is_counted)


def floods(namespace: Path) -> Iterator[str]:
    """Sends one after the other, and says which."""
    for kind, payload in packets.KINDS.items():
        for target in TARGETS:
            packets.flood(namespace, target, payload, PACKETS)
            yield f"{kind} to {target}"
    for kind, payload in packets.IPV6_KINDS.items():
        packets.flood(namespace, TARGETS[1], payload, PACKETS)
        yield kind
    for target in TARGETS:
        packets.flood(namespace, target, packets.KINDS["UDP"], PACKETS, in_fragments=True)
        yield f"UDP in fragments to {target}"


async def entries(device: Device) -> int:
    return (await statistics(device, "a")).conntrack.entries


async def loose(table: str = "a") -> str:
    return (await proc.run(["ip", "netns", "exec", table, "sysctl", "-n", PICKUP])).check().stdout.strip()


async def test_no_flood_makes_more_sessions_than_the_budget(device: Device, lab: Lab) -> None:
    hosts = await plug(device, lab, "a")
    await limit(device, maxSessions=MOST, newSessionsPerSecond=1_000_000)
    found = {name: await entries(device) for name in floods(hosts["a"].namespace)}
    assert {name: count for name, count in found.items() if count > MOST} == {}
    # Of every kind that makes entries at all some were too many.
    assert (await dropped(device)).too_many_total > PACKETS
    assert max(found.values()) == MOST


@pytest.mark.parametrize("is_tracked", [False, True], ids=["seen by nobody before", "tracked before"])
async def test_flood_in_the_middle_of_sessions_does_not_cut_those_that_stood_before(
    device: Device, lab: Lab, *, is_tracked: bool
) -> None:
    hosts = await plug(device, lab, "a")
    if is_tracked:
        await nft("a", TRACKING)
    with listening(device.layout.netns / "a") as server, Sessions(hosts["a"].namespace) as sessions:
        assert all(sessions.begin() for _ in range(3))
        accepted = [server.accept()[0] for _ in range(3)]
        await limit(device, maxSessions=1, newSessionsPerSecond=1, burst=1)
        packets.flood(hosts["a"].namespace, TARGETS[0], packets.KINDS["TCP ACK"], PACKETS)
        for client, taken in zip(sessions.open, accepted, strict=True):
            speak(client, taken)
            taken.close()
        assert await dropped(device) == statistics_pb2.BudgetStatistics()
        assert await entries(device) == (3 if is_tracked else 0)


@pytest.mark.parametrize("before", ["0", "1"])
async def test_pickup_of_sessions_is_refused_while_there_is_a_budget_and_as_it_was_behind_it(device: Device, before: str) -> None:
    await device.apply(doc("routeTables/a"))
    await do("ip", "netns", "exec", "a", "sysctl", "-qw", f"{PICKUP}={before}")
    for change in ("list tables", "flush ruleset", "delete table inet crossns_budget; flush ruleset"):
        await limit(device, maxSessions=5)
        assert await loose() == "0"
        await device.kill("agent a")
        await do("ip", "netns", "exec", "a", "sysctl", "-qw", f"{PICKUP}=1")
        # Nobody tells of a sysctl: it is found at the next look.
        for turn in ("add", "delete"):
            await do("ip", "-n", "a", "link", turn, "name", "foreign", "type", "bridge")

        async def is_refused() -> bool:
            return await loose() == "0"

        await wait_until(is_refused)
        await nft("a", change)
        await limit(device)
        assert await loose() == before
        assert "crossns" not in await nft("a", "list ruleset")
