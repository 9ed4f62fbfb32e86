"""Members that are drained, disabled, added and changed while they serve, on the real HAProxy: who lives on, who is served by
whom, and that what needs no reload makes none.
"""

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from crossns.testing.device import Device, wait_until
from crossns.testing.lab import Lab
from tests.kernel.client import REQUEST, VIP, Client, Dial, backend, dial, killed, reloads, served, single
from tests.kernel.test_proxy import A, B, frontend, is_refused, is_served, plug, served_by, vservice

__all__ = ["dial"]  # a fixture
pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]

C = {"name": "c", "routeTable": "routeTables/a", "address": "10.0.0.5", "port": 8081}
DRAIN, DISABLED, ENABLED = {"state": "DRAIN"}, {"state": "DISABLED"}, {"state": "ENABLED"}
OTHER = vservice("other", frontend("dmz", "dmz", "203.0.113.11"), main=[A])


async def both_held(device: Device, lab: Lab, dial: Dial, *members: dict[str, Any]) -> dict[str, Client]:
    """One connection to each of two members that are served in turn, of vServices/web."""
    await plug(device, lab, "dmz", "a", "b")
    await device.apply(single(*(members or (A, B))))
    clients = [await dial(lab.hosts["dmz"], VIP) for _ in range(2)]
    return {await client.name(): client for client in clients}


async def is_shared(lab: Lab, weights: dict[str, int], target: str = VIP, client: str = "dmz") -> bool:
    """Whether 40 requests in turn are shared by the weights. After a change HAProxy goes on in the middle of a turn."""
    counts = Counter(await served_by(lab.hosts[client], target, 40))
    expected = {name: 40 * weight / sum(weights.values()) for name, weight in weights.items()}
    return counts.keys() == expected.keys() and all(abs(counts[name] - expected[name]) <= 2 for name in expected)


@contextlib.contextmanager
def frozen(device: Device, process: str) -> Iterator[None]:
    pid = device.pid(process)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_a_drained_member_keeps_what_it_has_and_takes_nothing_new(device: Device, lab: Lab, dial: Dial) -> None:
    clients = await both_held(device, lab, dial)
    before = await reloads(device)
    await device.apply(single({**A, **DRAIN}, B))
    assert await is_shared(lab, {"b": 1})
    assert await clients["a"].name() == "a"
    assert await clients["b"].name() == "b"
    await device.apply(single({**A, **ENABLED}, B))
    assert await is_shared(lab, {"a": 1, "b": 1})
    assert await clients["a"].name() == "a"
    assert await reloads(device) == before


async def test_a_disabled_member_ends_what_it_has_and_the_other_one_goes_on(device: Device, lab: Lab, dial: Dial) -> None:
    clients = await both_held(device, lab, dial)
    before = await reloads(device)
    await device.apply(single({**A, **DISABLED}, B))
    assert await clients["a"].ended() == b""
    assert await clients["b"].name() == "b"
    assert await is_shared(lab, {"b": 1})
    await device.apply(single({**A, **ENABLED}, B))
    assert await is_shared(lab, {"a": 1, "b": 1})
    assert await reloads(device) == before


async def test_a_member_that_is_drained_by_a_reload_keeps_what_it_has(device: Device, lab: Lab, dial: Dial) -> None:
    clients = await both_held(device, lab, dial)
    before = await reloads(device)
    # Another way to choose is another structure.
    await device.apply(single({**A, **DRAIN}, B, pool={"algorithm": "FIRST"}))
    assert await reloads(device) > before
    assert await is_shared(lab, {"b": 1})
    assert await clients["a"].name() == "a"


async def test_a_member_that_is_disabled_by_a_reload_ends_what_it_has(device: Device, lab: Lab, dial: Dial) -> None:
    clients = await both_held(device, lab, dial)
    before = await reloads(device)
    await device.apply(single({**A, **DISABLED}, B, pool={"algorithm": "FIRST"}))
    assert await reloads(device) > before
    assert await clients["a"].ended() == b""
    assert await clients["b"].name() == "b"
    assert await is_shared(lab, {"b": 1})


async def test_what_a_worker_from_before_a_reload_serves_ends_with_its_disabled_member(
    device: Device, lab: Lab, dial: Dial
) -> None:
    clients = await both_held(device, lab, dial)
    await device.apply(OTHER)
    assert await clients["a"].name() == "a"
    before = await reloads(device)
    await device.apply(single({**A, **DISABLED}, B))
    assert await reloads(device) == before
    assert await clients["a"].ended() == b""
    assert await clients["b"].name() == "b"


async def test_a_kept_connection_is_answered_over_a_reload_and_told_when_it_is_the_last_time(
    device: Device, lab: Lab, dial: Dial
) -> None:
    """With HTTP, by a member that takes one request on each connection: nobody who asks just then may find nobody there."""
    await plug(device, lab, "dmz", "a")

    async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The check of members ends its connections with a reset.
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody")
        writer.close()

    async with served(lab.hosts["a"], "10.0.0.5:8081", answer_once):
        await device.apply(single(C, protocol="HTTP"))
        client = await dial(lab.hosts["dmz"], VIP, first=REQUEST)
        assert await client.answer() == (200, b"body")
        await device.apply(OTHER)
        assert await client.is_left_waiting(0.3)
        client.send()
        last = await client.ended()
    assert last.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in last.lower()


async def test_a_member_that_is_drained_right_behind_a_reload_takes_nothing_new(device: Device, lab: Lab) -> None:
    """Whatever the worker from before the reload still does."""
    await plug(device, lab, "dmz", "a", "b")
    await device.apply(single(A, B))
    await device.apply(OTHER)
    before = await reloads(device)
    await device.apply(single({**A, **DRAIN}, B))
    assert await is_shared(lab, {"b": 1})
    assert await reloads(device) == before


async def test_a_pool_whose_members_are_all_drained_or_disabled_refuses_until_one_is_back(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "a", "b")
    await device.apply(single({**A, **DRAIN}, {**B, **DISABLED}))
    before = await reloads(device)
    assert await is_refused(lab.hosts["dmz"], VIP)
    await device.apply(single({**A, **DRAIN}, B))
    assert await is_shared(lab, {"b": 1})
    assert await reloads(device) == before


async def test_requests_leave_a_drained_member_with_http_though_their_connection_stays(
    device: Device, lab: Lab, dial: Dial
) -> None:
    await plug(device, lab, "dmz", "a", "b")
    await device.apply(single(A, B, protocol="HTTP"))
    client = await dial(lab.hosts["dmz"], VIP)
    assert {await client.name() for _ in range(6)} == {"a", "b"}
    for state in (DRAIN, DISABLED):
        await device.apply(single({**A, **state}, B, protocol="HTTP"))
        assert {await client.name() for _ in range(6)} == {"b"}
    await device.apply(single(A, B, protocol="HTTP"))
    assert {await client.name() for _ in range(6)} == {"a", "b"}


async def test_a_member_in_a_table_that_its_pool_uses_already_comes_without_a_reload(
    device: Device, lab: Lab, dial: Dial
) -> None:
    clients = await both_held(device, lab, dial)
    await backend(lab.hosts["a"], "c", "10.0.0.5:8081")
    before = await reloads(device)
    await device.apply(single(A, B, C))
    assert await is_shared(lab, {"a": 1, "b": 1, "c": 1})
    assert await reloads(device) == before
    assert await clients["a"].is_kept()


async def test_more_members_than_there_is_room_for_come_with_a_reload_that_ends_nobody(
    device: Device, lab: Lab, dial: Dial
) -> None:
    clients = await both_held(device, lab, dial)
    ports = range(8081, 8087)
    await backend(lab.hosts["a"], "many", *(f"10.0.0.5:{port}" for port in ports))
    many = [{**A, "name": f"m{port}", "port": port} for port in ports]
    before = await reloads(device)
    await device.apply(single(A, B, *many))
    assert await is_shared(lab, {"a": 1, "b": 1, "many": 6})
    assert await reloads(device) > before
    assert await clients["a"].is_kept()
    assert await clients["b"].is_kept()


async def test_a_member_is_changed_without_a_reload(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "a", "b")
    await lab.hosts["a"].configure("addr add 10.0.0.6/24 dev eth0")
    for name, listen in (("c", "10.0.0.5:8081"), ("d", "10.0.0.6:8082"), ("six", "[fd00::5]:8083")):
        await backend(lab.hosts["a"], name, listen)
    await device.apply(single(A, B))
    before = await reloads(device)
    for change, weights in (
        ({"port": 8081}, {"c": 1, "b": 1}),
        ({"address": "10.0.0.6", "port": 8082}, {"d": 1, "b": 1}),
        ({"address": "fd00::5", "port": 8083}, {"six": 1, "b": 1}),
        ({"port": 8081, "weight": 3}, {"c": 3, "b": 1}),
        ({"weight": 1}, {"a": 1, "b": 1}),
    ):
        await device.apply(single({**A, **change}, B))
        assert await is_shared(lab, weights)
    assert await reloads(device) == before


async def test_a_member_that_was_taken_away_is_served_no_more_and_its_place_is_used_again(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "a", "b")
    await backend(lab.hosts["a"], "c", "10.0.0.5:8081")
    for members in ((A, B, C), (A, B), (B, C), (C, A)):
        await device.apply(single(*members))
        assert await is_shared(lab, {str(member["name"]): 1 for member in members})


async def test_a_killed_engine_starts_with_what_it_was_told_meanwhile(device: Device, lab: Lab) -> None:
    """Members, addresses, weights and states that came without a reload."""
    await plug(device, lab, "dmz", "a", "b")
    await backend(lab.hosts["a"], "c", "10.0.0.5:8081")
    await device.apply(single(A, B))
    before = await reloads(device)
    await device.apply(single(A, B, C))
    await device.apply(single({**A, **DISABLED}, {**B, "weight": 3}, C))
    await device.apply(single(A, {**B, "weight": 3}, {**C, **DRAIN}))
    assert await reloads(device) == before
    assert await is_shared(lab, {"a": 1, "b": 3})
    # Nobody is there to tell it once more.
    with frozen(device, "proxy"):
        await killed(device)
        await wait_until(lambda: is_served(lab.hosts["dmz"], VIP))
        assert await is_shared(lab, {"a": 1, "b": 3})
    # Nothing had to be put right afterwards, and what has changed since is changed on the spot.
    after = await reloads(device)
    await device.apply(single(A, B, C))
    assert await is_shared(lab, {"a": 1, "b": 1, "c": 1})
    assert await reloads(device) == after


async def test_a_restarted_proxy_goes_on_from_what_was_told_at_run_time(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "a", "b")
    await device.apply(single(A, B))
    before = await reloads(device)
    await device.apply(single({**A, **DRAIN}, B))
    await device.kill("proxy")
    await wait_until(device.serves)
    assert await is_shared(lab, {"b": 1})
    await device.apply(single({**A, "weight": 3}, B))
    assert await is_shared(lab, {"a": 3, "b": 1})
    assert await reloads(device) == before


async def test_two_pools_with_members_of_one_name_are_changed_each_for_itself(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "office", "a", "b")
    frontends = frontend("dmz", "dmz", VIP, pool="one"), frontend("office", "office", "192.0.2.10", pool="two")
    await device.apply(vservice("web", *frontends, one=[A, B], two=[A, B]))
    before = await reloads(device)
    await device.apply(vservice("web", *frontends, one=[{**A, **DRAIN}, B], two=[A, {**B, "weight": 3}]))
    assert await is_shared(lab, {"b": 1})
    assert await is_shared(lab, {"a": 1, "b": 3}, "192.0.2.10", "office")
    assert await reloads(device) == before
