"""How a vService shares its connections and requests among members, on the real HAProxy: every algorithm, and weights."""

import itertools
from collections import Counter

import pytest

from crossns.testing.device import Device, doc, wait_until
from crossns.testing.lab import Host, Lab
from tests.kernel.client import VIP, Client, Dial, backend, dial, killed, single
from tests.kernel.test_proxy import A, B, frontend, is_served, plug, served_by, vservice

__all__ = ["dial"]  # a fixture
pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]

# Between the other two by its name, and yet the last to come.
C = {"name": "ab", "routeTable": "routeTables/a", "address": "10.0.0.5", "port": 8081}
SOURCES = [f"203.0.113.{number}" for number in range(100, 132)]


async def plug_sources(device: Device, lab: Lab) -> None:
    """Tables `dmz`, `a`, `b`; the client has many addresses, and in `a` there is a third backend, `c`."""
    await plug(device, lab, "dmz", "a", "b")
    await lab.hosts["dmz"].configure(*(f"addr add {source}/24 dev eth0" for source in SOURCES))
    await backend(lab.hosts["a"], "c", "10.0.0.5:8081")


async def by_source(host: Host, dial: Dial) -> dict[str, str]:
    """Who serves each of the client's addresses."""
    found = {}
    for source in SOURCES:
        client = await dial(host, VIP, source=source)
        found[source] = await client.name()
        await client.finish()
    return found


async def held(host: Host, dial: Dial, count: int) -> dict[str, list[Client]]:
    """So many connections that stay open, by the member that serves them."""
    clients: dict[str, list[Client]] = {}
    for _ in range(count):
        client = await dial(host, VIP)
        clients.setdefault(await client.name(), []).append(client)
    return clients


async def test_round_robin_serves_as_often_as_the_weights_say(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "a", "b")
    for protocol in ("TCP", "HTTP"):
        await device.apply(single({**A, "weight": 1}, {**B, "weight": 3}, protocol=protocol))
        counts = Counter(await served_by(lab.hosts["dmz"], VIP, 200))
        assert counts.total() == 200
        assert abs(counts["a"] - 50) <= 2, counts


async def test_random_draws_by_weight(device: Device, lab: Lab) -> None:
    """Of 400 draws at 1:3 the standard deviation is 8.7, with the unevenness of 256 points on HAProxy's ring (1.4 %) at most 10:
    chance leaves bounds of five of them once in 1,700,000 runs. That five never go to the same member in a row happens once in
    10**10."""
    await plug(device, lab, "dmz", "a", "b")
    await device.apply(single({**A, "weight": 64}, {**B, "weight": 192}, pool={"algorithm": "RANDOM"}))
    answers = await served_by(lab.hosts["dmz"], VIP, 400)
    assert abs(answers.count("a") - 100) <= 50, Counter(answers)
    # What takes turns has no such runs.
    assert max(len(list(run)) for name, run in itertools.groupby(answers) if name == "b") > 4


async def test_least_connections_go_where_fewest_are_held(device: Device, lab: Lab, dial: Dial) -> None:
    await plug(device, lab, "dmz", "a", "b")
    await device.apply(single(A, B, pool={"algorithm": "LEAST_CONNECTIONS"}))
    clients = await held(lab.hosts["dmz"], dial, 8)
    assert {name: len(these) for name, these in clients.items()} == {"a": 4, "b": 4}
    for client in clients["b"]:
        await client.finish()
    # Each ends before the next begins: in turn, every other one would be a's.
    assert set(await served_by(lab.hosts["dmz"], VIP, 12)) == {"b"}


async def test_least_connections_are_in_proportion_to_the_weights(device: Device, lab: Lab, dial: Dial) -> None:
    await plug(device, lab, "dmz", "a", "b")
    pool = {"algorithm": "LEAST_CONNECTIONS"}
    await device.apply(single({**A, "weight": 1}, {**B, "weight": 3}, pool=pool))
    clients = await held(lab.hosts["dmz"], dial, 16)
    assert {name: len(these) for name, these in clients.items()} == {"a": 4, "b": 12}


async def test_source_hash_keeps_each_client_at_its_member(device: Device, lab: Lab, dial: Dial) -> None:
    await plug_sources(device, lab)
    client, pool = lab.hosts["dmz"], {"algorithm": "SOURCE_HASH"}
    await device.apply(single(A, B, pool=pool))
    before = await by_source(client, dial)
    # Both have their share; which clients are whose depends on nothing that changes from run to run.
    assert all(count >= 4 for count in Counter(before.values()).values()), before
    # Over a reload.
    await device.apply(vservice("other", frontend("dmz", "dmz", "203.0.113.11"), main=[A]))
    assert await by_source(client, dial) == before
    # One that comes takes some over from the others, and nobody changes between those.
    await device.apply(single(A, B, C, pool=pool))
    among_three = await by_source(client, dial)
    moved = {source for source in SOURCES if among_three[source] != before[source]}
    assert 0 < len(moved) < len(SOURCES) / 2
    assert {among_three[source] for source in moved} == {"c"}
    # Over a reload, and over an engine that begins anew, too.
    await device.apply(vservice("other", frontend("dmz", "dmz", "203.0.113.12"), main=[A]))
    assert await by_source(client, dial) == among_three
    await killed(device)
    await wait_until(lambda: is_served(client, VIP))
    assert await by_source(client, dial) == among_three
    # When it goes, everybody is where they were.
    await device.apply(single(A, B, pool=pool))
    assert await by_source(client, dial) == before


async def test_source_hash_of_a_drained_member_falls_to_the_others_alone(device: Device, lab: Lab, dial: Dial) -> None:
    await plug_sources(device, lab)
    client, pool = lab.hosts["dmz"], {"algorithm": "SOURCE_HASH"}
    await device.apply(single(A, B, C, pool=pool))
    before = await by_source(client, dial)
    await device.apply(single(A, B, {**C, "state": "DRAIN"}, pool=pool))
    after = await by_source(client, dial)
    assert {before[source] for source in SOURCES if after[source] != before[source]} == {"c"}
    assert set(after.values()) == {"a", "b"}


async def test_first_fills_one_member_before_the_next(device: Device, lab: Lab, dial: Dial) -> None:
    """In the order of the file, not of the names."""
    await plug(device, lab, "dmz", "a", "b")
    members = {**B, "maxConnections": 2}, {**A, "maxConnections": 3}
    await device.apply(single(*members, pool={"algorithm": "FIRST"}))
    clients = []
    for expected in ("b", "b", "a", "a", "a"):
        clients.append(await dial(lab.hosts["dmz"], VIP))
        assert await clients[-1].name() == expected
    await clients[0].finish()
    assert await served_by(lab.hosts["dmz"], VIP, 3) == ["b"] * 3
    await device.apply(single({**members[0], "state": "DRAIN"}, {**A, "maxConnections": 9}, pool={"algorithm": "FIRST"}))
    assert await served_by(lab.hosts["dmz"], VIP, 3) == ["a"] * 3


async def test_requests_on_one_connection_are_shared_with_http_only(device: Device, lab: Lab, dial: Dial) -> None:
    await plug(device, lab, "dmz", "a", "b")
    for protocol, shares in (("TCP", [12]), ("HTTP", [6, 6])):
        await device.apply(single(A, B, protocol=protocol))
        client = await dial(lab.hosts["dmz"], VIP)
        assert list(Counter([await client.name() for _ in range(12)]).values()) == shares


async def test_pools_of_one_vservice_choose_each_in_its_own_way(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "office", "a", "b")
    frontends = frontend("dmz", "dmz", VIP, pool="turns"), frontend("office", "office", "192.0.2.10", pool="filled")
    pools = [
        {"name": "turns", "algorithm": "ROUND_ROBIN", "members": [A, B]},
        {"name": "filled", "algorithm": "FIRST", "members": [A, B]},
    ]
    await device.apply(doc("vServices/web", protocol="TCP", frontends=frontends, pools=pools))
    assert Counter(await served_by(lab.hosts["dmz"], VIP)) == {"a": 4, "b": 4}
    assert Counter(await served_by(lab.hosts["office"], "192.0.2.10")) == {"a": 8}
