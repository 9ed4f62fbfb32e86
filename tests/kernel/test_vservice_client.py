"""What a vService knows of its clients and grants them, on the real HAProxy: their addresses by the PROXY protocol in and out,
how many of them it lets in, and how long it waits for them and for members.
"""

import asyncio
import contextlib
import itertools
import time
from typing import Any, Literal

import pytest

from crossns.testing.device import Device, doc, wait_until
from crossns.testing.lab import Lab
from crossns.testing.traffic import address, proxy_header
from tests.kernel.client import REQUEST, VIP, VIP6, Client, Dial, backend, dial, reloads, served, single
from tests.kernel.test_proxy import A, B, frontend, plug, served_by

__all__ = ["dial"]  # a fixture
pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]

# In `a`, and expects the header.
TOLD = {"name": "told", "routeTable": "routeTables/a", "address": "10.0.0.5", "port": 8443}
IN = {"acceptProxyProtocol": True}
SECOND_SOURCE = "203.0.113.8"
# How much later than set something may happen on a loaded machine; how much earlier, as HAProxy counts milliseconds roughly.
LATE_S, EARLY_S = 1.5, 0.05


async def plug_told(device: Device, lab: Lab, *tables: str) -> None:
    await plug(device, lab, *tables)
    await backend(lab.hosts["a"], "told", "10.0.0.5:8443", "[fd00::5]:8443", expects_header=True)


def header(version: Literal[1, 2], client: str, port: int = 4711) -> bytes:
    target = VIP6 if ":" in client else VIP
    return proxy_header.render(version, (client, port), (target, 80))


async def served_one(lab: Lab, dial: Dial) -> Client:
    """One more connection that is served already: two that are made at once are taken in any order."""
    client = await dial(lab.hosts["dmz"], VIP)
    assert await client.name() == "a"
    return client


async def is_let_in(lab: Lab, dial: Dial) -> bool:
    return await (await dial(lab.hosts["dmz"], VIP)).is_kept()


async def test_members_are_told_the_client_though_others_have_the_same_address(device: Device, lab: Lab, dial: Dial) -> None:
    """Clients in two tables have one address; a third one has another."""
    await plug(device, lab, "a", "b", "office")
    await lab.hosts["a"].configure("addr add 10.0.0.7/24 dev eth0")
    await backend(lab.hosts["office"], "told", "192.0.2.9:8443", expects_header=True)
    frontends = [frontend(table, table, "10.0.0.10") for table in ("a", "b")]
    member = {**TOLD, "routeTable": "routeTables/office", "address": "192.0.2.9"}
    for protocol, version in itertools.product(("TCP", "HTTP"), ("V1", "V2")):
        pool = {"name": "main", "members": [member], "proxyProtocol": version}
        await device.apply(doc("vServices/web", protocol=protocol, frontends=frontends, pools=[pool]))
        clients = [await dial(lab.hosts[table], "10.0.0.10") for table in ("a", "b")]
        clients.append(await dial(lab.hosts["a"], "10.0.0.10", source="10.0.0.7"))
        # Three rounds: a connection to a member that were shared would tell of another client.
        for client in [*clients, *reversed(clients), *clients]:
            assert (await client.ask())["client"] == client.local


async def test_members_of_the_other_family_are_told_the_client_too(device: Device, lab: Lab, dial: Dial) -> None:
    await plug_told(device, lab, "dmz", "a")
    six = {**TOLD, "name": "six", "address": "fd00::5"}
    frontends = frontend("four", "dmz", VIP, pool="six"), frontend("six", "dmz", VIP6, pool="four")
    for version in ("V1", "V2"):
        pools = [{"name": name, "members": [member], "proxyProtocol": version} for name, member in (("four", TOLD), ("six", six))]
        await device.apply(doc("vServices/web", protocol="TCP", frontends=frontends, pools=pools))
        for target in (VIP, f"[{VIP6}]:80"):
            client = await dial(lab.hosts["dmz"], target)
            assert (await client.ask())["client"] == client.local


async def test_members_are_told_in_the_version_that_they_expect(device: Device, lab: Lab, dial: Dial) -> None:
    await plug(device, lab, "dmz", "a")
    begun: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The check of members says nothing.
        with contextlib.suppress(ConnectionError):
            begun.append(await reader.read(12))
        writer.close()

    async with served(lab.hosts["a"], "10.0.0.5:8082", listen):
        for version, first in (("V1", b"PROXY TCP4 2"), ("V2", b"\r\n\r\n\0\r\nQUIT\n")):
            await device.apply(single({**A, "port": 8082}, pool={"proxyProtocol": version}))
            await (await dial(lab.hosts["dmz"], VIP, first=REQUEST)).ended()
            assert first in begun


@pytest.mark.parametrize("protocol", ["TCP", "HTTP"])
async def test_the_client_that_a_proxy_in_front_tells_of_reaches_the_member(
    device: Device, lab: Lab, dial: Dial, protocol: str
) -> None:
    await plug_told(device, lab, "dmz", "a")
    await device.apply(single(TOLD, protocol=protocol, entry=IN, pool={"proxyProtocol": "V2"}))
    versions: tuple[Literal[1, 2], ...] = (1, 2)
    for version, told in itertools.product(versions, ("198.51.100.77", "2001:db8:77::7")):
        client = await dial(lab.hosts["dmz"], VIP, first=header(version, told))
        assert [(await client.ask())["client"] for _ in range(2)] == [address.render(told, 4711)] * 2
    # A usual client that tells of itself.
    done = await lab.hosts["dmz"].run(["curl", "-sS", "--max-time", "5", "--haproxy-protocol", f"http://{VIP}/"])
    assert '"client": "203.0.113.9:' in done.check().stdout


async def test_a_frontend_that_expects_the_header_serves_nobody_without(device: Device, lab: Lab, dial: Dial) -> None:
    await plug(device, lab, "dmz", "a")
    for protocol in ("TCP", "HTTP"):
        await device.apply(single(A, protocol=protocol, entry=IN))
        for first in (REQUEST, b"PROXY NONSENSE\r\n", b"\r\n\r\n\0\r\nQUIT\n" + b"\xff" * 16):
            client = await dial(lab.hosts["dmz"], VIP, first=first)
            assert b"backend" not in await client.ended()
        assert await (await dial(lab.hosts["dmz"], VIP, first=header(1, "198.51.100.77"))).is_kept()


async def test_a_frontend_that_expects_no_header_believes_none(device: Device, lab: Lab, dial: Dial) -> None:
    """It is the first bytes of the client's own stream, for the member to make sense of."""
    await plug_told(device, lab, "dmz", "a")
    await device.apply(single(TOLD, pool={"proxyProtocol": "V1"}))
    client = await dial(lab.hosts["dmz"], VIP, first=header(1, "198.51.100.77"))
    assert (await client.ask())["client"] == client.local


async def test_connections_beyond_the_limit_wait_until_one_ends(device: Device, lab: Lab, dial: Dial) -> None:
    await plug(device, lab, "dmz", "a")
    for protocol in ("TCP", "HTTP"):
        await device.apply(single(A, protocol=protocol, entry={"limits": {"maxConnections": 2}}))
        first, second = await served_one(lab, dial), await served_one(lab, dial)
        third = await dial(lab.hosts["dmz"], VIP, first=REQUEST)
        assert await third.is_left_waiting(0.3)
        await first.finish()
        assert (await third.answered())["backend"] == "a"
        assert await second.is_kept()


async def test_one_client_beyond_its_limit_is_closed_and_another_one_served(device: Device, lab: Lab, dial: Dial) -> None:
    await plug(device, lab, "dmz", "a")
    await lab.hosts["dmz"].configure(f"addr add {SECOND_SOURCE}/24 dev eth0")
    for protocol in ("TCP", "HTTP"):
        await device.apply(single(A, protocol=protocol, entry={"limits": {"maxConnectionsPerClient": 2}}))
        clients = [await served_one(lab, dial) for _ in range(2)]
        assert not await (await dial(lab.hosts["dmz"], VIP)).is_kept()
        assert await (await dial(lab.hosts["dmz"], VIP, source=SECOND_SOURCE)).is_kept()
        # Nobody who was in has noticed, and who leaves makes room.
        assert [await client.is_kept() for client in clients] == [True, True]
        await clients[0].finish()
        await wait_until(lambda: is_let_in(lab, dial))


async def test_clients_of_a_proxy_in_front_are_limited_each_for_itself(device: Device, lab: Lab, dial: Dial) -> None:
    await plug(device, lab, "dmz", "a")
    await device.apply(single(A, entry={**IN, "limits": {"maxConnectionsPerClient": 1}}))
    for client, is_served in (("198.51.100.1", True), ("198.51.100.2", True), ("198.51.100.1", False)):
        assert await (await dial(lab.hosts["dmz"], VIP, first=header(2, client))).is_kept() == is_served


async def test_one_client_is_limited_in_each_family_and_each_frontend_for_itself(device: Device, lab: Lab, dial: Dial) -> None:
    await plug(device, lab, "dmz", "a")
    limited = {"limits": {"maxConnectionsPerClient": 1}}
    frontends = [frontend("four", "dmz", VIP) | limited, frontend("six", "dmz", VIP6) | limited]
    pool = {"name": "main", "members": [A]}
    await device.apply(doc("vServices/web", protocol="TCP", frontends=frontends, pools=[pool]))
    for is_served in (True, False):
        for target in (VIP, f"[{VIP6}]:80"):
            assert await (await dial(lab.hosts["dmz"], target)).is_kept() == is_served


async def test_connections_beyond_the_rate_wait_and_none_is_lost(device: Device, lab: Lab) -> None:
    """20 come in at once, each further one when its time has come: 50 take 1.5 s."""
    await plug(device, lab, "dmz", "a")
    await device.apply(single(A, entry={"limits": {"maxConnectionRate": 20}}))
    began = time.monotonic()
    answers = await asyncio.gather(*(served_by(lab.hosts["dmz"], VIP, 10) for _ in range(5)))
    took_s = time.monotonic() - began
    assert [len(each) for each in answers] == [10] * 5
    assert 1.0 < took_s < 1.5 + 2 * LATE_S


async def test_connections_beyond_a_members_limit_wait_for_a_place(device: Device, lab: Lab, dial: Dial) -> None:
    await plug(device, lab, "dmz", "a")
    await device.apply(single({**A, "maxConnections": 1}, timeouts={"queue": "1.2s"}))
    first = await served_one(lab, dial)
    second = await dial(lab.hosts["dmz"], VIP, first=REQUEST)
    assert await second.is_left_waiting(0.3)
    began = time.monotonic()
    third = await dial(lab.hosts["dmz"], VIP, first=REQUEST)
    await first.finish()
    assert (await second.answered())["backend"] == "a"
    # The third one's time is up while the second is there.
    assert await third.ended() == b""
    assert 1.2 - EARLY_S <= time.monotonic() - began < 1.2 + LATE_S
    assert await second.is_kept()


async def test_a_full_member_leaves_its_clients_to_the_others(device: Device, lab: Lab, dial: Dial) -> None:
    await plug(device, lab, "dmz", "a", "b")
    await device.apply(single({**A, "maxConnections": 1}, B))
    clients = [await dial(lab.hosts["dmz"], VIP) for _ in range(6)]
    assert sorted([await client.name() for client in clients]) == ["a", *["b"] * 5]


async def test_a_members_limit_is_changed_without_a_reload(device: Device, lab: Lab, dial: Dial) -> None:
    await plug(device, lab, "dmz", "a")
    await device.apply(single({**A, "maxConnections": 1}))
    before = await reloads(device)
    first = await served_one(lab, dial)
    second = await dial(lab.hosts["dmz"], VIP, first=REQUEST)
    assert await second.is_left_waiting(0.3)
    # Those who wait already, too.
    await device.apply(single({**A, "maxConnections": 2}))
    assert (await second.answered())["backend"] == "a"
    assert await first.is_kept()
    assert await reloads(device) == before


async def test_a_client_that_is_silent_for_too_long_is_closed(device: Device, lab: Lab, dial: Dial) -> None:
    """Each way of being silent on a vService of its own, that has but one of its times set."""
    await plug(device, lab, "dmz", "a")
    cases = [
        ("TCP", "clientIdle", b"", b""),
        ("TCP", "memberIdle", b"", b""),
        ("HTTP", "httpRequest", REQUEST[:10], b"HTTP/1.1 408 "),
        ("HTTP", "httpRequest", b"", b""),
        ("HTTP", "httpKeepAlive", REQUEST, b"HTTP/1.1 200 "),
        ("HTTP", "clientIdle", b"POST / HTTP/1.1\r\nHost: vip\r\nContent-Length: 9\r\n\r\n", b"HTTP/1.1 "),
    ]
    await device.apply(
        *(
            doc(
                f"vServices/v{port}",
                protocol=protocol,
                timeouts={timeout: "0.4s"},
                frontends=[frontend("fe", "dmz", VIP, port)],
                pools=[{"name": "main", "members": [A]}],
            )
            for port, (protocol, timeout, *_) in enumerate(cases, start=80)
        )
    )

    async def is_closed(port: int, sent: bytes, answer: bytes) -> None:
        began = time.monotonic()
        received = await (await dial(lab.hosts["dmz"], f"{VIP}:{port}", first=sent)).ended()
        assert received.startswith(answer), (port, received)
        assert 0.4 - EARLY_S <= time.monotonic() - began < 0.4 + LATE_S, port

    await asyncio.gather(*(is_closed(port, sent, answer) for port, (_, _, sent, answer) in enumerate(cases, start=80)))


async def test_a_member_that_never_answers_costs_its_client_no_more_than_the_time_set(
    device: Device, lab: Lab, dial: Dial
) -> None:
    await plug(device, lab, "dmz", "a")

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The check of members ends its connections with a reset.
        with contextlib.suppress(ConnectionError):
            await reader.read(-1)
        writer.close()

    async with served(lab.hosts["a"], "10.0.0.5:8082", say_nothing):
        await device.apply(single({**A, "port": 8082}, protocol="HTTP", timeouts={"memberIdle": "0.4s"}))
        client = await dial(lab.hosts["dmz"], VIP)
        began = time.monotonic()
        client.send()
        assert (await client.answer())[0] == 504
        assert 0.4 - EARLY_S <= time.monotonic() - began < 0.4 + LATE_S


async def test_who_keeps_speaking_is_not_closed(device: Device, lab: Lab, dial: Dial) -> None:
    """Twice as long as the shortest silence that would end it."""
    await plug(device, lab, "dmz", "a")
    spec: dict[str, Any] = {"timeouts": {"clientIdle": "0.6s", "memberIdle": "0.6s"}}
    await device.apply(single(A, **spec))
    client = await dial(lab.hosts["dmz"], VIP)
    began = time.monotonic()
    while time.monotonic() - began < 1.2:
        assert await client.name() == "a"
        await asyncio.sleep(0.1)
