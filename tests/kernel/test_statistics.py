"""Statistics of route tables with real traffic: what was sent is counted, there and nowhere else; agents that hang."""

import asyncio
import contextlib
import errno
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from google.protobuf import duration_pb2
from prometheus_client import parser

from crossns import VERSION, counter, errors, operation, settings
from crossns.agent import Agent
from crossns.etcd.client import EtcdStore
from crossns.testing import device as testing_device
from crossns.testing.device import Device, doc, wait_until
from crossns.testing.lab import Cable, Host, Lab
from crossns.v1 import route_table_pb2, route_table_pb2_grpc, statistics_pb2
from tests.kernel.privileged import socket_in
from tests.kernel.view import do, table_with_card

pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]

METRICS = ("127.0.0.1", 9417)
COUNT, SIZE = 200, 1000
# UDP over IPv4 over Ethernet (RFC 768, 791, 894), as drivers count frames: without checksum.
UDP, IP, ETHERNET = 8, 20, 14
# Neighbours are looked for and introduce themselves meanwhile.
OTHERS_BYTES = 8 * 1024


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="suite")
async def suite_with_metrics() -> AsyncIterator[Device]:
    async with testing_device.started({"CROSSNS_GATEWAY_METRICS": "{}:{}".format(*METRICS)}) as started:
        yield started


def stub(device: Device) -> "route_table_pb2_grpc.RouteTablesAsyncStub":
    return route_table_pb2_grpc.RouteTablesStub(device.client.channel)


async def statistics(device: Device, table: str) -> statistics_pb2.RouteTableStatistics:
    request = route_table_pb2.GetStatisticsRequest(name=f"routeTables/{table}")
    found: statistics_pb2.RouteTableStatistics = await device.client.call(stub(device).GetStatistics, request)
    return found


def link(told: statistics_pb2.RouteTableStatistics, name: str) -> statistics_pb2.LinkStatistics:
    return next(each for each in told.links if each.link == name)


async def scrape() -> tuple[dict[tuple[str, ...], float], float]:
    """Name and label values (in the order of the labels' names) -> number; and how many seconds it took."""
    begun = time.monotonic()
    reader, writer = await asyncio.open_connection(*METRICS)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = await reader.read()
    took_s = time.monotonic() - begun
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK"), head
    found = (sample for family in parser.text_string_to_metric_families(body.decode()) for sample in family.samples)
    return {(each.name, *(value for _, value in sorted(each.labels.items()))): each.value for each in found}, took_s


async def plug(device: Device, lab: Lab, *tables: str) -> dict[str, Host]:
    """Tables with a card each, 10.0.0.1 on all of them and 10.0.0.6 behind."""
    for table in tables:
        await lab.host(table, Cable(f"card-{table}"), ["10.0.0.6/24", "2001:db8::6/64"])
        await device.apply(*table_with_card(table, f"card-{table}", "10.0.0.1/24", "2001:db8::1/64"))
    return dict(lab.hosts)


@contextlib.contextmanager
def udp(device: Device, host: Host) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A socket of the host and one on port 5000 of the table, which know each other's hardware addresses already."""
    with (
        socket_in(host.namespace, socket.AF_INET, socket.SOCK_DGRAM) as sender,
        socket_in(device.layout.netns / "a", socket.AF_INET, socket.SOCK_DGRAM) as receiver,
    ):
        receiver.bind(("10.0.0.1", 5000))
        receiver.settimeout(5)
        sender.connect(("10.0.0.1", 5000))
        sender.send(b"introduce yourself")
        receiver.recv(SIZE)
        yield sender, receiver


async def test_what_was_sent_is_counted_to_the_packet(device: Device, lab: Lab) -> None:
    hosts = await plug(device, lab, "a", "b")
    with udp(device, hosts["a"]) as (sender, receiver):
        before, elsewhere = await statistics(device, "a"), await statistics(device, "b")
        for _ in range(COUNT):
            sender.send(bytes(SIZE))
            assert len(receiver.recv(2 * SIZE)) == SIZE
        after, elsewhere_after = await statistics(device, "a"), await statistics(device, "b")
    assert after.ipv4.udp.received_datagrams_total - before.ipv4.udp.received_datagrams_total == COUNT
    assert after.ipv4.received_packets_total - before.ipv4.received_packets_total == COUNT
    assert after.ipv4.received_bytes_total - before.ipv4.received_bytes_total == COUNT * (SIZE + UDP + IP)
    lan, lan_before = link(after, "lan").received, link(before, "lan").received
    frames_bytes = COUNT * (SIZE + UDP + IP + ETHERNET)
    assert 0 <= lan.bytes_total - lan_before.bytes_total - frames_bytes <= OTHERS_BYTES
    assert COUNT <= lan.packets_total - lan_before.packets_total <= COUNT + OTHERS_BYTES // 40
    assert (lan.errors_total, lan.drops_total) == (lan_before.errors_total, lan_before.drops_total)
    assert elsewhere_after.ipv4.udp == elsewhere.ipv4.udp
    assert link(elsewhere_after, "lan").received.bytes_total - link(elsewhere, "lan").received.bytes_total <= OTHERS_BYTES


async def test_what_nobody_takes_is_counted_with_its_reason(device: Device, lab: Lab) -> None:
    hosts = await plug(device, lab, "a")
    before = await statistics(device, "a")
    with udp(device, hosts["a"]) as (sender, _), socket_in(hosts["a"].namespace, socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.sendto(b"x", ("10.0.0.1", 5001))
        sender.send(b"y")

        async def is_counted() -> bool:
            return (await statistics(device, "a")).ipv4.udp.no_ports_total > before.ipv4.udp.no_ports_total

        await wait_until(is_counted)
    after = await statistics(device, "a")
    assert after.ipv4.udp.no_ports_total - before.ipv4.udp.no_ports_total == 1
    assert after.ipv4.icmp.sent_unreachables_total - before.ipv4.icmp.sent_unreachables_total == 1
    assert after.ipv4.icmp.sent_messages_total - before.ipv4.icmp.sent_messages_total == 1


@pytest.mark.parametrize(
    ("family", "address"), [(socket.AF_INET, "10.0.0.1"), (socket.AF_INET6, "2001:db8::1")], ids=["ipv4", "ipv6"]
)
async def test_connections_and_sockets_are_counted(device: Device, lab: Lab, family: socket.AddressFamily, address: str) -> None:
    hosts = await plug(device, lab, "a")
    before = await statistics(device, "a")
    with socket_in(device.layout.netns / "a", family, socket.SOCK_STREAM) as listener:
        listener.bind((address, 5000))
        listener.listen()
        with socket_in(hosts["a"].namespace, family, socket.SOCK_STREAM) as client:
            client.settimeout(5)
            client.connect((address, 5000))
            accepted, _ = listener.accept()
            with accepted:
                during = await statistics(device, "a")
        with socket_in(hosts["a"].namespace, family, socket.SOCK_STREAM) as client:
            client.settimeout(5)
            assert client.connect_ex((address, 5001)) == errno.ECONNREFUSED
    after = await statistics(device, "a")
    version = "ipv6" if family == socket.AF_INET6 else "ipv4"
    assert getattr(during, version).sockets.tcp - getattr(before, version).sockets.tcp == 2
    assert during.tcp.passive_opens_total - before.tcp.passive_opens_total == 1
    assert during.tcp.established - before.tcp.established == 1
    assert during.sockets - before.sockets == 2
    assert after.tcp.sent_resets_total - before.tcp.sent_resets_total >= 1
    assert after.tcp.active_opens_total == before.tcp.active_opens_total


@pytest.mark.needs("nft")
async def test_tracked_connections_are_counted_beside_their_limit(device: Device, lab: Lab) -> None:
    hosts = await plug(device, lab, "a")
    assert (await statistics(device, "a")).conntrack.entries == 0
    rule = "add table ip t; add chain ip t c { type filter hook input priority 0; }; add rule ip t c ct state new counter"
    await do("ip", "netns", "exec", "a", "nft", rule)
    with udp(device, hosts["a"]):
        tracked = (await statistics(device, "a")).conntrack
    assert tracked.entries == 1
    assert tracked.limit > tracked.entries


async def test_one_scrape_has_every_table_with_the_numbers_of_its_own(device: Device, lab: Lab) -> None:
    await plug(device, lab, "a", "b")
    before = {table: await statistics(device, table) for table in ("a", "b", "default")}
    told, took_s = await scrape()
    after = {table: await statistics(device, table) for table in ("a", "b", "default")}
    for table in ("a", "b", "default"):
        assert told["crossns_table_up", table] == 1
        assert told["crossns_table_agent_restarts_total", table] == 0
        least, most = (link(each[table], "lo").received.bytes_total for each in (before, after))
        assert least <= told["crossns_link_receive_bytes_total", "lo", table] <= most
        least, most = (each[table].ipv6.sent_packets_total for each in (before, after))
        assert least <= told["crossns_ip_sent_packets_total", "ipv6", table] <= most
    assert told["crossns_service_up", "nsmanager"] == told["crossns_service_up", "proxy"] == 1
    assert told["crossns_build_info", VERSION] == 1
    assert took_s < 1


@contextlib.contextmanager
def frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_table_whose_agent_hangs_delays_no_other_and_is_marked(device: Device) -> None:
    await device.apply(doc("routeTables/a"), doc("routeTables/b"))
    with frozen(device.pid("agent b")):
        told, took_s = await scrape()
        assert (told["crossns_table_up", "a"], told["crossns_table_up", "b"]) == (1, 0)
        assert ("crossns_table_sockets", "b") not in told
        assert took_s < 1
        with pytest.raises(errors.AgentUnavailable, match="routeTables/b does not answer within") as caught:
            await statistics(device, "b")
        assert (caught.value.code, caught.value.reason) == ("UNAVAILABLE", "AGENT_UNAVAILABLE")
        await statistics(device, "a")
    await wait_until(lambda: _is_up("b"))


async def test_agent_that_was_killed_is_counted_and_its_table_is_back(device: Device) -> None:
    await device.apply(doc("routeTables/a"))
    await device.kill("agent a")

    async def is_back() -> bool:
        told, _ = await scrape()
        return told["crossns_table_up", "a"] == told["crossns_table_agent_restarts_total", "a"] == 1

    await wait_until(is_back)


async def _is_up(table: str) -> bool:
    return (await scrape())[0]["crossns_table_up", table] == 1


async def test_haproxy_that_hangs_takes_only_its_own_numbers_away(device: Device) -> None:
    front = {"name": "f", "routeTable": "routeTables/a", "address": "203.0.113.10", "port": 80}
    member = {"name": "m", "routeTable": "routeTables/a", "address": "10.0.0.5", "port": 80}
    pools = [{"name": "p", "members": [member]}]
    await device.apply(doc("routeTables/a"), doc("vServices/web", protocol="TCP", frontends=[front], pools=pools))
    told, _ = await scrape()
    assert told["crossns_vservice_frontend_connections_total", "f", "a", "web"] == 0
    with contextlib.ExitStack() as stack:
        for pid in device.pids("haproxy"):
            stack.enter_context(frozen(pid))
        told, took_s = await scrape()
        assert (told["crossns_service_up", "proxy"], told["crossns_table_up", "a"]) == (0, 1)
        assert took_s < 1


def watching(device: Device, table: str) -> AsyncIterator[statistics_pb2.RouteTableStatistics]:
    request = route_table_pb2.WatchStatisticsRequest(
        name=f"routeTables/{table}", interval=duration_pb2.Duration(nanos=100_000_000)
    )
    return device.client.stream(stub(device).WatchStatistics, request)


async def operations(device: Device, table: str) -> int:
    """How many the agent has been asked for, this question and its hello included."""
    session = await Agent.connect(device.layout.agent_socket(table), "observer", operation.Token(0, 0))
    try:
        counted = await session.call(operation.Statistics())
    finally:
        await session.close()
    assert isinstance(counted, operation.Counters)
    return counted.operations


async def test_watch_answers_at_once_again_and_again_and_leaves_nothing_behind(device: Device) -> None:
    await device.apply(doc("routeTables/a"))
    begun = time.monotonic()
    times: list[float] = []
    stream = watching(device, "a")
    async with contextlib.aclosing(stream) as answers:  # type: ignore[type-var]
        async for told in answers:
            assert told.name == "routeTables/a"
            times.append(time.monotonic() - begun)
            if len(times) == 4:
                break
    assert times[0] < 0.1
    assert times[3] >= 0.3

    async def is_quiet() -> bool:
        before = await operations(device, "a")
        # Three intervals of the watch.
        await asyncio.sleep(0.3)
        return await operations(device, "a") == before + 2

    await wait_until(is_quiet)


async def test_watch_of_a_table_ends_with_its_deletion(device: Device) -> None:
    await device.apply(doc("routeTables/a"))

    async def watch() -> None:
        async for _ in watching(device, "a"):
            first.set()

    first = asyncio.Event()
    following = asyncio.create_task(watch())
    await first.wait()
    await device.delete("routeTables/a")
    with pytest.raises((errors.NotFound, errors.AgentUnavailable)):
        await asyncio.wait_for(following, 10)


async def test_table_that_is_not_there_has_no_statistics(device: Device) -> None:
    with pytest.raises(errors.NotFound):
        await statistics(device, "none")
    with pytest.raises(errors.NotFound):
        async for _ in watching(device, "none"):
            pass


async def test_statistics_write_nothing_to_the_store_and_nothing_to_the_kernel(device: Device) -> None:
    await device.apply(doc("routeTables/a"))
    backend = await EtcdStore.connect(settings.from_environ(os.environ).etcd)
    try:
        before, writes = (await backend.list("/crossns/")).revision, await device.kernel_writes("a")
        for _ in range(5):
            await scrape()
            await statistics(device, "a")
            async for _ in watching(device, "a"):
                break
        assert (await backend.list("/crossns/")).revision == before
        assert await device.kernel_writes("a") == writes
    finally:
        await backend.close()


async def test_agent_tells_every_counter_that_is_known(device: Device) -> None:
    await device.apply(doc("routeTables/a"))
    session = await Agent.connect(device.layout.agent_socket("a"), "observer", operation.Token(0, 0))
    try:
        told = await session.call(operation.ReadCounters())
    finally:
        await session.close()
    assert isinstance(told, counter.KernelCounters)
    assert set(told.values) == counter.NAMES | {*counter.CENSUS}
    assert [each.name for each in told.links] == ["lo"]
