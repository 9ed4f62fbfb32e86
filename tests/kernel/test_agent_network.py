"""Addresses and routes as an agent puts, announces and removes them, with those of others in the same place."""

import asyncio
import re
import socket
from pathlib import Path

import pytest

from crossns import errors, operation, proc
from crossns.agent import Agent
from crossns.testing.lab import Cable, Lab
from tests.kernel.privileged import (
    LAYOUT,
    Tree,
    address,
    agent,
    bridge,
    card,
    dump,
    ip,
    refusal,
    running_for_a_module,
    socket_in,
    tree,
    writes,
)

__all__ = ["agent", "running_for_a_module", "tree"]
pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]

MAC = "02:00:00:00:00:05"


async def test_addresses_are_told_apart_by_their_protocol(agent: Agent) -> None:
    await bridge(agent)
    for prefix in ("10.0.0.1/24", "2001:db8::1/64"):
        for _ in range(2):
            await address(agent, prefix)
    await address(agent, "10.0.0.9/32", "lo", operation.VIP_PROTOCOL)
    seen = {(each.link, each.prefix, each.protocol) for each in (await dump(agent)).addresses if each.protocol > 4}
    own, vip = operation.ADDRESS_PROTOCOL, operation.VIP_PROTOCOL
    assert seen == {("br0", "10.0.0.1/24", own), ("br0", "2001:db8::1/64", own), ("lo", "10.0.0.9/32", vip)}
    # Usable at once: nobody has to wait for duplicate address detection.
    with socket_in(Path(LAYOUT.netns / "a"), socket.AF_INET6, socket.SOCK_STREAM) as probe:
        probe.bind(("2001:db8::1", 80))
    for prefix in ("10.0.0.1/24", "2001:db8::1/64"):
        for _ in range(2):
            await agent.call(operation.RemoveAddress(link="br0", prefix=prefix, protocol=own))
    assert {each.prefix for each in (await dump(agent)).addresses if each.protocol > 4} == {"10.0.0.9/32"}


async def test_foreign_address_stays_even_where_ours_was_its_primary(agent: Agent) -> None:
    await bridge(agent)
    await address(agent, "10.0.0.1/24")
    await ip("-netns", "a", "address", "add", "10.0.0.2/24", "dev", "br0")
    sysctl = Path("/proc/sys/net/ipv4/conf/br0/promote_secondaries")
    before = (await proc.run(["ip", "netns", "exec", "a", "cat", str(sysctl)])).check().stdout
    await agent.call(operation.RemoveAddress(link="br0", prefix="10.0.0.1/24", protocol=operation.ADDRESS_PROTOCOL))
    foreign = operation.Address(link="br0", prefix="10.0.0.2/24")
    assert foreign in (await dump(agent)).addresses
    assert (await proc.run(["ip", "netns", "exec", "a", "cat", str(sysctl)])).check().stdout == before
    attempts = (
        operation.AddAddress(link="br0", prefix="10.0.0.2/24", protocol=operation.ADDRESS_PROTOCOL),
        operation.RemoveAddress(link="br0", prefix="10.0.0.2/24", protocol=operation.ADDRESS_PROTOCOL),
    )
    for wanted in attempts:
        assert (await refusal(agent, wanted)).reason == "FOREIGN_OBJECT"
    assert foreign in (await dump(agent)).addresses


async def test_new_address_is_announced_to_the_neighbours(tree: Tree, lab: Lab) -> None:
    host = await lab.host("h", Cable(card="card0", card_mac=MAC))
    await tree.create("a")
    agent = await card(tree, "a")
    with socket_in(host.namespace, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as ear:
        ear.settimeout(0)
        await address(agent, "10.0.0.1/24", "lan")
        await address(agent, "2001:db8::1/64", "lan")
        mac, ipv4, ipv6 = (
            bytes.fromhex(MAC.replace(":", "")),
            bytes([10, 0, 0, 1]),
            socket.inet_pton(socket.AF_INET6, "2001:db8::1"),
        )
        arp = b"\xff" * 6 + mac + b"\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01" + mac + ipv4 + bytes(6) + ipv4
        advertisement = re.compile(
            re.escape(b"\x88\x00") + b"..\x20\x00\x00\x00" + re.escape(ipv6 + b"\x02\x01" + mac), re.DOTALL
        )
        is_heard = {"arp": False, "na": False}
        async with asyncio.timeout(5):
            while not all(is_heard.values()):
                frame = await asyncio.get_running_loop().sock_recv(ear, 2048)
                is_heard["arp"] |= frame.startswith(arp)
                is_heard["na"] |= bool(advertisement.search(frame))


ROUTES = (
    operation.Route(destination="192.0.2.0/24", next_hops=(operation.NextHop(gateway="10.0.0.2", link="br0"),)),
    operation.Route(destination="192.0.2.0/24", metric=7, next_hops=(operation.NextHop(gateway="10.0.0.3", link="br0"),)),
    operation.Route(destination="0.0.0.0/0", kernel_table=1000, next_hops=(operation.NextHop(gateway="10.0.0.2", link="br0"),)),
    operation.Route(destination="198.51.100.0/24", next_hops=(operation.NextHop(link="br0"),)),
    operation.Route(
        destination="203.0.113.0/24",
        next_hops=(
            operation.NextHop(gateway="10.0.0.2", link="br0"),
            operation.NextHop(gateway="10.0.0.3", link="br0", weight=3),
        ),
    ),
    operation.Route(
        destination="::/0",
        metric=1024,
        next_hops=(operation.NextHop(gateway="2001:db8::2", link="br0"), operation.NextHop(gateway="2001:db8::3", link="br0")),
    ),
    operation.Route(destination="2001:db8:1::/48", metric=5, next_hops=(operation.NextHop(gateway="2001:db8::2", link="br0"),)),
    operation.Route(destination="10.9.0.0/16", kind="blackhole"),
    operation.Route(destination="10.10.0.0/16", kind="unreachable", metric=3),
    operation.Route(destination="fd00::/8", kind="prohibit", metric=1024),
)


async def routed(agent: Agent) -> None:
    await bridge(agent)
    await address(agent, "10.0.0.1/24")
    await address(agent, "2001:db8::1/64")


async def test_routes_of_every_shape_are_seen_as_they_were_put_and_removed_one_by_one(agent: Agent) -> None:
    await routed(agent)
    for route in ROUTES:
        await agent.call(operation.PutRoute(route=route))
    before = await writes(agent)
    for route in ROUTES:
        await agent.call(operation.PutRoute(route=route))
    assert await writes(agent) == before
    left = list(ROUTES)
    for route in ROUTES:
        assert sorted((await dump(agent)).routes, key=repr) == sorted(left, key=repr)
        left.remove(route)
        for _ in range(2):
            await agent.call(operation.RemoveRoute(route=route))
    assert (await dump(agent)).routes == ()


async def test_route_is_replaced_by_its_key(agent: Agent) -> None:
    await routed(agent)
    for gateway in ("10.0.0.2", "10.0.0.3"):
        route = operation.Route(destination="192.0.2.0/24", next_hops=(operation.NextHop(gateway=gateway, link="br0"),))
        await agent.call(operation.PutRoute(route=route))
        assert (await dump(agent)).routes == (route,)


@pytest.mark.parametrize("destination", ["192.0.2.0/24", "2001:db8:1::/48"])
async def test_foreign_route_is_neither_replaced_nor_removed(agent: Agent, destination: str) -> None:
    await routed(agent)
    family, metric = ("-6", 1024) if ":" in destination else ("-4", 0)
    shown = await ip("-netns", "a", family, "route", "show")
    await ip("-netns", "a", family, "route", "add", destination, "dev", "br0", "metric", str(metric))
    planted = await ip("-netns", "a", family, "route", "show")
    assert planted != shown
    own = operation.Route(destination=destination, metric=metric, kind="blackhole")
    assert (await refusal(agent, operation.PutRoute(route=own))).reason == "FOREIGN_OBJECT"
    await agent.call(operation.RemoveRoute(route=own))
    assert await ip("-netns", "a", family, "route", "show") == planted


async def test_removing_a_route_without_metric_leaves_the_one_with(agent: Agent) -> None:
    await routed(agent)
    await agent.call(operation.PutRoute(route=ROUTES[1]))
    await agent.call(operation.RemoveRoute(route=ROUTES[0]))
    assert (await dump(agent)).routes == (ROUTES[1],)


@pytest.mark.parametrize("gateway", ["172.16.0.1", "fd99::1"])
async def test_unreachable_gateway_is_named_as_such(agent: Agent, gateway: str) -> None:
    await routed(agent)
    destination = "fd01::/16" if ":" in gateway else "172.31.0.0/16"
    route = operation.Route(destination=destination, next_hops=(operation.NextHop(gateway=gateway),))
    refused = await refusal(agent, operation.PutRoute(route=route))
    assert (type(refused), refused.reason) == (errors.PermanentError, "GATEWAY_UNREACHABLE")
    assert destination in refused.message
