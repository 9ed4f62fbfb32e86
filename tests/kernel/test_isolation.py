"""Isolation between route tables: every planted leak is found, a clean device is proven clean, and nobody is disturbed."""

import asyncio
import contextlib
import itertools
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest

from crossns import errors, proc
from crossns.testing.device import Device, doc, wait_until
from crossns.testing.lab import Cable, Host, Lab
from crossns.v1 import isolation_pb2, route_table_pb2_grpc
from tests.e2e.terminal import crossns
from tests.kernel.privileged import socket_in
from tests.kernel.test_events import ADDRESS, LINK, NEIGHBOR, ROUTE, watching
from tests.kernel.view import do, ip, reaches, table_with_card

pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]

LAYERS = ("INTERFACE", "ROUTING", "NEIGHBOR", "FIREWALL", "SOCKET")
TABLES = [doc("routeTables/a"), doc("routeTables/b")]
# In the namespace of one table, with a socket that was made in the other one.
HOLDER = "import time; print('there', flush=True); time.sleep(60)"

Found = dict[tuple[str, str], list[str]]


async def verify(device: Device, *tables: str) -> tuple[str, Found]:
    """The verdict; and by layer and verdict what was seen."""
    stub = route_table_pb2_grpc.RouteTablesStub(device.client.channel)
    request = isolation_pb2.VerifyIsolationRequest(names=[f"routeTables/{table}" for table in tables])
    answers = [each async for each in device.client.stream(stub.VerifyIsolation, request)]
    assert [each.progress.number for each in answers[:-1]] == list(range(1, answers[0].progress.count + 1))
    found: Found = {}
    for each in answers[-1].report.findings:
        layer = isolation_pb2.IsolationLayer.Name(each.layer).removeprefix("ISOLATION_LAYER_")
        found.setdefault((layer, verdict_name(each.verdict)), []).append(each.evidence)
    return verdict_name(answers[-1].report.verdict), found


def verdict_name(verdict: isolation_pb2.IsolationVerdict.ValueType) -> str:
    return isolation_pb2.IsolationVerdict.Name(verdict).removeprefix("ISOLATION_VERDICT_")


def leaks(found: Found) -> dict[str, list[str]]:
    return {layer: words for (layer, verdict), words in found.items() if verdict == "LEAK"}


@contextlib.asynccontextmanager
async def planted(plant: str, uproot: str) -> AsyncIterator[None]:
    """Shell commands in `default`; what they did is undone by `uproot`."""
    try:
        await do("sh", "-ec", plant)
        yield
    finally:
        await do("sh", "-ec", uproot)


async def state(table: str) -> list[object]:
    """Everything that a trial could have left."""
    commands = (["link"], ["address"], ["-4", "rule"], ["-6", "rule"], ["-4", "route", "show", "table", "all"])
    permanent = ["neigh", "show", "nud", "permanent"]
    rules = (await proc.run(["ip", "netns", "exec", table, "nft", "list", "ruleset"])).check().stdout
    return [rules, *[await ip(*what, table=table) for what in (*commands, ["-6", "route", "show", "table", "all"], permanent)]]


async def no_address_is_tentative() -> bool:
    """Else some appear by themselves (RFC 4862 5.4)."""
    return not [
        each for table in ("a", "b") for each in await ip("address", "show", "tentative", table=table) if each.get("addr_info")
    ]


@contextlib.asynccontextmanager
async def traffic(device: Device, host: Host) -> AsyncIterator[list[int]]:
    """Datagrams from the host to 10.0.0.1 in the table `a` all the time; the numbers of those that arrived, all of them."""
    loop = asyncio.get_running_loop()
    arrived: list[int] = []
    with (
        socket_in(host.namespace, socket.AF_INET, socket.SOCK_DGRAM) as sender,
        socket_in(device.layout.netns / "a", socket.AF_INET, socket.SOCK_DGRAM) as receiver,
    ):
        receiver.bind(("10.0.0.1", 5000))
        receiver.setblocking(False)  # noqa: FBT003 - the name of the parameter is the method's
        sender.connect(("10.0.0.1", 5000))

        async def flow() -> None:
            for number in itertools.count():
                sender.send(number.to_bytes(4, "big"))
                arrived.append(int.from_bytes(await loop.sock_recv(receiver, 4), "big"))
                await asyncio.sleep(0.002)

        flowing = asyncio.create_task(flow())
        try:
            yield arrived
        finally:
            flowing.cancel()
            await asyncio.gather(flowing, return_exceptions=True)


async def test_busy_tables_with_the_same_addresses_are_proven_apart_and_nobody_notices(device: Device, lab: Lab) -> None:
    for table in ("a", "b"):
        await lab.host(table, Cable(f"card-{table}", card_mac="02:00:00:00:00:01"), ["10.0.0.6/24", "2001:db8::6/64"])
        await device.apply(*table_with_card(table, f"card-{table}", "10.0.0.1/24", "2001:db8::1/64"))
    fronts = [{"name": t, "routeTable": f"routeTables/{t}", "address": "203.0.113.10", "port": 80} for t in ("a", "b")]
    member = {"name": "m", "routeTable": "routeTables/b", "address": "10.0.0.6", "port": 80}
    await device.apply(doc("vServices/web", protocol="TCP", frontends=fronts, pools=[{"name": "p", "members": [member]}]))
    assert [await reaches(host, "10.0.0.1") for host in lab.hosts.values()] == [True, True]
    # HAProxy has sockets in both.
    assert (await verify(device))[0] == "ISOLATED"
    await wait_until(no_address_is_tentative)
    before, table_before = [await state(table) for table in ("a", "b")], await device.client.get("routeTables/a")
    async with traffic(device, lab.hosts["a"]) as arrived:
        for _ in range(2):
            verdict, found = await verify(device, "a", "b")
            assert (verdict, set(found)) == ("ISOLATED", {(layer, "ISOLATED") for layer in LAYERS}), found
    assert arrived == list(range(len(arrived)))
    assert len(arrived) > 10
    assert [await state(table) for table in ("a", "b")] == before
    assert await device.client.get("routeTables/a") == table_before


async def test_what_is_thrown_away_is_no_event(device: Device) -> None:
    await device.apply(*TABLES)
    async with watching(device, route_tables=["routeTables/a"], kinds=[LINK, ADDRESS, ROUTE, NEIGHBOR]) as watch:
        await verify(device, "a", "b")
        async with planted("ip -n a link add marker type bridge", "ip -n a link del marker"):
            told = await watch.until(lambda event: event.link.link == "marker")
    assert [each.link.link for each in told] == ["marker"]


async def test_command_shows_the_evidence_of_every_layer(device: Device) -> None:
    await device.apply(*TABLES)
    shown = await asyncio.to_thread(crossns, "verify", "isolation")
    assert (shown.returncode, shown.stderr) == (0, ""), shown.stdout
    assert [line.split()[:2] for line in shown.stdout.splitlines() if line[:1].islower()] == [
        [layer.lower(), "ISOLATED"] for layer in LAYERS for _ in range(1 if layer == "FIREWALL" else 2)
    ]
    assert shown.stdout.splitlines()[-1] == "ISOLATED 3 route tables"
    async with planted("ip link add va netns a type veth peer name vb netns b", "ip -n a link del va"):
        shown = await asyncio.to_thread(crossns, "verify", "isolation", "a", "b", "-o", "json")
    assert (shown.returncode, shown.stderr) == (1, "")
    told = json.loads(shown.stdout)
    assert (told["verdict"], told["routeTables"]) == ("LEAK", ["routeTables/a", "routeTables/b"])


async def test_veth_into_another_table_leaks_with_what_leaves_over_it(device: Device) -> None:
    await device.apply(*TABLES, doc("routeTables/c"))
    plant = """ip link add va netns a type veth peer name vb netns b
        ip -n a addr add 10.9.0.1/24 dev va; ip -n a link set va up; ip -n b link set vb up
        ip -n a route add 10.0.0.0/8 via 10.9.0.2; ip -n a route add 2001:db8:5::/64 dev va
        ip -n a neigh add 10.9.0.2 lladdr 02:00:00:00:00:09 dev va"""
    async with planted(plant, "ip -n a link del va"):
        verdict, found = await verify(device, "a", "b")
        assert verdict == "LEAK"
        assert leaks(found) == {
            "INTERFACE": ["veth va in routeTables/a - veth vb in routeTables/b"],
            "ROUTING": ["routeTables/a: 10.0.0.0/8 via 10.9.0.2 dev va; 10.9.0.0/24 dev va; 2001:db8:5::/64 dev va"],
            "NEIGHBOR": ["routeTables/a: 10.9.0.2 is 02:00:00:00:00:09 on va"],
        }
        assert (await verify(device, "a", "c"))[0] == "ISOLATED"


BRIDGE = """ip netns add hidden; ip -n hidden link add name br0 type bridge
    for table in a b; do
        ip link add name out netns $table type veth peer name to-$table netns hidden; ip -n hidden link set to-$table master br0
    done"""
BRIDGE_PATH = (
    "veth out in routeTables/a - veth to-a in the namespace /run/netns/hidden - bridge br0 in the namespace /run/netns/hidden - "
    "veth to-b in the namespace /run/netns/hidden - veth out in routeTables/b"
)
MACVLAN = """ip -n a link add va type veth peer name out; ip -n a link add link va name mv netns b type macvlan"""
MACVLAN_PATH = "veth va in routeTables/a - macvlan mv in routeTables/b"


@pytest.mark.parametrize(
    ("plant", "uproot", "path"),
    [
        pytest.param(
            BRIDGE, "ip netns del hidden; ip -n a link del out || true; ip -n b link del out || true", BRIDGE_PATH, id="bridge"
        ),
        pytest.param(MACVLAN, "ip -n a link del va", MACVLAN_PATH, id="macvlan", marks=pytest.mark.needs("macvlan")),
    ],
)
async def test_way_below_ip_is_followed_through_every_namespace(device: Device, plant: str, uproot: str, path: str) -> None:
    await device.apply(*TABLES)
    async with planted(plant, uproot):
        _, found = await verify(device, "a", "b")
        assert leaks(found) == {"INTERFACE": [path]}


async def test_name_of_a_table_that_leads_into_another_one_leaks(device: Device) -> None:
    await device.apply(*TABLES)
    async with planted("mount --bind /run/netns/b /run/netns/a", "umount /run/netns/a"):
        _, found = await verify(device, "a", "b")
        words = "/run/netns/a is another namespace than routeTables/a: somebody mounted it there"
        assert leaks(found) == {"INTERFACE": [words]}


async def test_namespace_that_only_an_open_file_keeps_is_followed_too(device: Device) -> None:
    await device.apply(*TABLES)
    async with planted(BRIDGE, "ip netns del hidden || true"):
        held = os.open("/run/netns/hidden", os.O_RDONLY)
        try:
            await do("ip", "netns", "del", "hidden")
            _, found = await verify(device, "a", "b")
            assert [words.count(f"held by process {os.getpid()}") for words in leaks(found)["INTERFACE"]] == [3], found
        finally:
            os.close(held)
            await do("sh", "-c", "ip -n a link del out; ip -n b link del out; true")


ROUTER = """ip netns add hidden
    for table in a b; do ip link add name out netns $table type veth peer name to-$table netns hidden; done"""
ROUTER_PATH = (
    "veth out in routeTables/a - veth to-a in the namespace /run/netns/hidden - routing in the namespace /run/netns/hidden - "
    "veth to-b in the namespace /run/netns/hidden - veth out in routeTables/b"
)


async def test_namespace_between_two_tables_leaks_where_it_routes(device: Device) -> None:
    await device.apply(*TABLES)
    meeting = (
        "routeTables/a; routeTables/b lead into the namespace /run/netns/hidden, which neither routes nor bridges between them"
    )
    async with planted(ROUTER, "ip netns del hidden"):
        verdict, found = await verify(device, "a", "b")
        assert (verdict, meeting in found["INTERFACE", "ISOLATED"]) == ("ISOLATED", True)
        for sysctl in ("net.ipv4.conf.to-a.forwarding", "net.ipv6.conf.all.forwarding"):
            await do("ip", "netns", "exec", "hidden", "sysctl", "-qw", f"{sysctl}=1")
            assert leaks((await verify(device, "a", "b"))[1]) == {"INTERFACE": [ROUTER_PATH]}
            await do("ip", "netns", "exec", "hidden", "sysctl", "-qw", f"{sysctl}=0")


@pytest.mark.needs("vxlan")
async def test_tunnel_whose_packets_leave_in_another_table_leaks(device: Device) -> None:
    await device.apply(*TABLES)
    path = "routing in routeTables/a - vxlan vx in routeTables/b"
    for bound in ("", "dev out"):
        plant = f"""ip -n a link add out type veth peer name out2
            ip -n a link add vx type vxlan id 5 {bound} dstport 4789 remote 10.9.0.2; ip -n a link set vx netns b"""
        async with planted(plant, "ip -n b link del vx; ip -n a link del out"):
            assert leaks((await verify(device, "a", "b"))[1]) == {"INTERFACE": [path]}


async def test_mark_that_no_resource_stands_for_declares_nothing(device: Device) -> None:
    await device.apply(*TABLES)
    for mark in ("peerLinks.ab", "system.hello"):
        plant = f"""ip link add va netns a type veth peer name vb netns b
            ip -n a link property add dev va altname {mark}; ip -n b link property add dev vb altname {mark}"""
        async with planted(plant, "ip -n a link del va"):
            _, found = await verify(device, "a", "b")
            assert leaks(found) == {"INTERFACE": ["veth va in routeTables/a - veth vb in routeTables/b"]}
            assert ("INTERFACE", "ALLOWED") not in found


@pytest.mark.needs("macvlan")
async def test_interface_on_top_of_another_tables_is_told_as_allowed(device: Device, lab: Lab) -> None:
    await lab.host("h", Cable("card-a"))
    await device.apply(*table_with_card("a", "card-a"), TABLES[1])
    over = {"parent": "interfaces/a-lan", "mode": "BRIDGE"}
    await device.apply(doc("interfaces/b-lan", routeTable="routeTables/b", linkName="lan", macvlan=over))
    verdict, found = await verify(device)
    assert verdict == "ISOLATED"
    assert found["INTERFACE", "ALLOWED"] == [
        "declared by interfaces/b-lan: veth lan in routeTables/a - macvlan lan in routeTables/b"
    ]


def started(device: Device, table: str, held: socket.socket) -> subprocess.Popen[bytes]:
    """A process in the table that holds that socket."""
    argv = ["nsenter", f"--net={device.layout.netns / table}", sys.executable, "-c", HOLDER]
    return subprocess.Popen(argv, stdin=held.fileno(), stdout=subprocess.PIPE)


@pytest.mark.parametrize(
    ("family", "kind", "words"),
    [
        (socket.AF_INET, socket.SOCK_STREAM, "TCP 127.0.0.1:8080"),
        (socket.AF_INET6, socket.SOCK_DGRAM, "UDP [::1]:8080"),
        (socket.AF_PACKET, socket.SOCK_RAW, "packet"),
    ],
    ids=["tcp", "udp6", "packet"],
)
async def test_process_of_one_table_with_a_socket_in_another_leaks(device: Device, family: int, kind: int, words: str) -> None:
    await device.apply(*TABLES)
    with socket_in(device.layout.netns / "b", family, kind) as made:
        if family != socket.AF_PACKET:
            made.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 8080))
        holder = started(device, "a", made)
    try:
        assert holder.stdout is not None
        await asyncio.to_thread(holder.stdout.readline)
        verdict, found = await verify(device, "a", "b")
        held = f"process {holder.pid} (python) of routeTables/a holds {words} in routeTables/b"
        assert (verdict, leaks(found)) == ("LEAK", {"SOCKET": [held]})
    finally:
        holder.kill()
        holder.communicate()


HELD = {
    "tcp": "TCP 127.0.0.1:",
    "tun": "tun tun-x in routeTables/a",
    "abstract": "unix @leak in routeTables/a",
    "xdp": "AF_XDP in routeTables/a",
    "thread": "thread ",
    "files": "TCP 127.0.0.1:",
    "both": "tun tun-a in routeTables/a",
}


@contextlib.asynccontextmanager
async def holding(*what: str) -> AsyncIterator[dict[int, str]]:
    """By pid what each of the processes holds."""
    holder = await proc.start([sys.executable, "-m", "tests.kernel.holder", *what])
    try:
        assert holder.stdout is not None
        async with asyncio.timeout(10):
            lines = [(await holder.stdout.readline()).decode().split() for _ in what]
        yield {int(pid): name for name, pid in lines}
    finally:
        proc.kill(holder)
        await holder.wait()


@pytest.mark.needs("tap")
async def test_whatever_a_process_holds_in_another_table_is_found(device: Device) -> None:
    """Also where its uid is one of crossns's."""
    await device.apply(*TABLES)
    uid = device.layout.uid("gateway")
    async with holding(f"tcp:{uid}", *[each for each in HELD if each != "tcp"], "flight") as held:
        verdict, found = await verify(device, "a", "b")
    assert (verdict, set(leaks(found))) == ("LEAK", {"SOCKET"}), found
    told = {int(words.split()[1]): words for words in found["SOCKET", "LEAK"]}
    assert {held[pid]: HELD[held[pid]] in words for pid, words in told.items()} == dict.fromkeys(HELD, True), found
    (unproven,) = found["SOCKET", "UNPROVEN"]
    assert unproven.endswith(": 1 more wait in this unix socket to be received")


@pytest.mark.parametrize(
    ("tables", "reason", "code"),
    [
        (("a", "nowhere"), "NOT_FOUND", "NOT_FOUND"),
        (("a", "A!"), "INVALID_NAME", "INVALID_ARGUMENT"),
        (("a",), "INVALID_FIELD", "INVALID_ARGUMENT"),
        (("a", "a"), "INVALID_FIELD", "INVALID_ARGUMENT"),
    ],
    ids=["unknown", "malformed", "alone", "twice"],
)
async def test_names_that_are_wrong_are_refused_and_nothing_is_tried(
    device: Device, tables: tuple[str, ...], reason: str, code: str
) -> None:
    await device.apply(*TABLES)
    before = await device.kernel_writes("a", "b")
    with pytest.raises(errors.RequestError) as caught:
        await verify(device, *tables)
    assert (caught.value.reason, caught.value.code) == (reason, code)
    assert await device.kernel_writes("a", "b") == before
