"""What a reload leaves behind, on the real HAProxy with real clients: the worker from before finishes what it has as if nothing
were, takes nothing new, and is gone soon behind its last connection.
"""

import asyncio
import contextlib
import os
import re
import signal
import time
from collections.abc import Iterator

import pytest

from crossns import proc
from crossns.testing.device import Device, doc, wait_until
from crossns.testing.lab import Lab
from crossns.v1 import config_pb2
from tests.kernel.client import VIP, Client, Dial, dial, reloads, served, single
from tests.kernel.test_proxy import A, B, engine, frontend, is_refused, plug, served_by
from tests.kernel.test_vservice_statistics import reload

__all__ = ["dial"]  # a fixture
pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]

# How long a worker may be there behind its last connection: it is looked at every second, and a machine may be busy.
SEEN_OFF_S = 3.0


def pools(pool: str, *ports: int) -> str:
    """vServices/web with two pools, one for each member; which of them is used, and on which ports, only a reload changes."""
    frontends = [frontend(f"p{port}", "dmz", VIP, port, pool) for port in ports or (80,)]
    members = [{"name": each["name"], "members": [each]} for each in (A, B)]
    return doc("vServices/web", protocol="TCP", frontends=frontends, pools=members)


def workers(device: Device) -> int:
    """All processes but the master."""
    return len(device.pids("haproxy")) - 1


async def accepting(device: Device, table: str) -> int:
    """How many workers accept connections in a table."""
    argv = ["nsenter", f"--net={device.layout.netns / table}", "--", "ss", "-Hltnp"]
    return len(set(re.findall(r'"haproxy",pid=(\d+)', (await proc.run(argv)).check().stdout)))


async def answer(client: Client) -> bytes:
    """Status line and fields of one more answer on the connection, in lower case; its body is read too."""
    client.send()
    head = (await client.reader.readuntil(b"\r\n\r\n")).lower()
    length = re.search(rb"content-length: (\d+)", head)
    await client.reader.readexactly(int(length[1]) if length else 0)
    return head


async def seen_off(device: Device, left: int) -> None:
    """Until no more workers are left, which takes no longer than it may."""
    began = time.monotonic()
    await wait_until(lambda: workers(device) == left)
    assert time.monotonic() - began < SEEN_OFF_S


@contextlib.contextmanager
def frozen(pid: int) -> Iterator[None]:
    """The process does nothing meanwhile; it may be killed."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


async def test_a_kept_http_connection_is_answered_once_more_though_that_takes_a_new_one_to_the_member(
    device: Device, lab: Lab, dial: Dial
) -> None:
    await plug(device, lab, "dmz", "office", "a")

    async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The check of members says nothing, and ends its connections with a reset.
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            await writer.drain()
        writer.close()

    async with served(lab.hosts["a"], "10.0.0.5:8082", answer_once):
        await device.apply(single({**A, "port": 8082}, protocol="HTTP"))
        client = await dial(lab.hosts["dmz"], VIP)
        assert b"connection: close" not in await answer(client)
        await reload(device, 81)
        await asyncio.sleep(0.3)
        last = await answer(client)
        assert last.startswith(b"http/1.1 200 ")
        assert b"connection: close" in last
        assert await client.ended() == b""
        await seen_off(device, 1)


async def test_an_ordinary_reload_is_no_news_to_the_operator(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "office", "a")
    await device.apply(single(A))
    mark = len(device.log)
    # What is said of the first is heard by the end of the second.
    for port in (81, 82):
        await reload(device, port)
        await seen_off(device, 1)
    assert [line for process, line in device.log[mark:] if process == "launcher" and "haproxy: " in line] == []


@pytest.mark.parametrize("protocol", ["TCP", "HTTP"])
async def test_nobody_new_meets_a_configuration_from_before(device: Device, lab: Lab, dial: Dial, protocol: str) -> None:
    """A connection that lives keeps its worker: it is there, and accepts nothing."""
    await plug(device, lab, "dmz", "a", "b")
    await device.apply(pools("a").replace('"TCP"', f'"{protocol}"'))
    held = await dial(lab.hosts["dmz"], VIP)
    assert await held.name() == "a"
    await device.apply(pools("b").replace('"TCP"', f'"{protocol}"'))
    assert workers(device) == 2
    assert await accepting(device, "dmz") == 1
    assert set(await served_by(lab.hosts["dmz"], VIP, 200)) == {"b"}
    assert await held.name() == "a"


async def test_a_port_that_is_given_up_is_closed_though_connections_to_it_live(device: Device, lab: Lab, dial: Dial) -> None:
    await plug(device, lab, "dmz", "a", "b")
    await device.apply(pools("a", 80, 81))
    held = await dial(lab.hosts["dmz"], f"{VIP}:81")
    assert await held.name() == "a"
    await device.apply(pools("a", 80))
    assert await is_refused(lab.hosts["dmz"], f"{VIP}:81")
    assert await held.is_kept()


async def test_a_worker_ends_soon_behind_its_last_connection(device: Device, lab: Lab, dial: Dial) -> None:
    await plug(device, lab, "dmz", "office", "a")
    await device.apply(single(A))
    clients = [await dial(lab.hosts["dmz"], VIP) for _ in range(2)]
    assert [await client.name() for client in clients] == ["a", "a"]
    await reload(device, 81)
    await clients[0].finish()
    # Longer than it takes to be seen off.
    await asyncio.sleep(SEEN_OFF_S)
    assert workers(device) == 2
    assert await clients[1].is_kept()
    await clients[1].finish()
    await seen_off(device, 1)


async def test_a_proxy_that_was_killed_behind_a_reload_retires_the_worker_when_it_is_back(
    device: Device, lab: Lab, dial: Dial
) -> None:
    await plug(device, lab, "dmz", "a")
    await device.apply(single(A))
    client = await dial(lab.hosts["dmz"], VIP)
    assert await client.name() == "a"
    with frozen(device.pid("proxy")):
        # A reload of which it does not know, as of one that it had not seen the end of.
        os.kill((await engine(device)).pid, signal.SIGUSR2)
        await wait_until(lambda: workers(device) == 2)

        async def both_accept() -> bool:
            return await accepting(device, "dmz") == 2

        await wait_until(both_accept)
        await device.kill("proxy")
    await wait_until(device.serves)

    async def one_accepts() -> bool:
        return await accepting(device, "dmz") == 1

    await wait_until(one_accepts)
    assert await client.is_kept()
    await client.finish()
    await seen_off(device, 1)


async def test_a_launcher_that_is_killed_around_a_reload_leaves_no_worker_that_accepts(device: Device, lab: Lab) -> None:
    """Wherever in it: the launcher that comes back may try the configuration once more, and nobody has asked it to."""
    await plug(device, lab, "dmz", "a", "b")
    for delay_s in (0.02, 0.05, 0.08, 0.11, 0.14, 0.2):
        await device.apply(pools("a", 80, 81))
        await seen_off(device, 1)
        asked = await device.apply(pools("a", 80), wait=False)
        await asyncio.sleep(delay_s)
        await device.kill("launcher")
        await device.wait([config_pb2.WaitTarget(name=each.name, generation=each.generation) for each in asked])
        await seen_off(device, 1)
        assert await is_refused(lab.hosts["dmz"], f"{VIP}:81")
        assert set(await served_by(lab.hosts["dmz"], VIP)) == {"a"}


async def test_a_connection_lives_through_many_reloads_and_only_its_worker_stays(device: Device, lab: Lab, dial: Dial) -> None:
    await plug(device, lab, "dmz", "a", "b")
    await device.apply(pools("a"))
    before = await reloads(device)
    client = await dial(lab.hosts["dmz"], VIP)
    assert await client.name() == "a"
    for number in range(20):
        await device.apply(pools("ab"[number % 2], 80, 81 + number))
    assert await reloads(device) == before + 20
    await seen_off(device, 2)
    assert await client.name() == "a"
    await client.finish()
    await seen_off(device, 1)
