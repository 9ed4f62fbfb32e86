"""What crosses, crosses whole: bulk in both directions, ends of streams, HTTP between overlapping networks of both families."""

import asyncio
import hashlib
import json
import random
from collections import Counter
from typing import Any

import pytest

from crossns.testing.device import Device, doc
from crossns.testing.lab import Lab
from tests.kernel.client import VIP, VIP6, Dial, dial, served, single
from tests.kernel.test_proxy import A, B, frontend, plug, served_by

__all__ = ["dial"]  # a fixture
pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]

RAW = {"name": "raw", "routeTable": "routeTables/a", "address": "10.0.0.5", "port": 9000}
PIECE_BYTES = 1 << 20
BULK_S = 30


async def poured(writer: asyncio.StreamWriter, dice: random.Random, size_bytes: int) -> str:
    """Send so many random bytes; their checksum."""
    digest = hashlib.sha256()
    for _ in range(size_bytes // PIECE_BYTES):
        piece = dice.randbytes(PIECE_BYTES)
        digest.update(piece)
        writer.write(piece)
        await writer.drain()
    return digest.hexdigest()


async def drained(reader: asyncio.StreamReader) -> str:
    """The checksum of everything until the other side has said its last."""
    digest = hashlib.sha256()
    while piece := await reader.read(PIECE_BYTES):
        digest.update(piece)
    return digest.hexdigest()


async def test_bytes_cross_whole_both_ways_at_once(device: Device, lab: Lab, dial: Dial, dice: random.Random) -> None:
    await plug(device, lab, "dmz", "a")
    at_member: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()
    there, back = random.Random(dice.random()), random.Random(dice.random())

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sending = asyncio.create_task(poured(writer, back, 64 * PIECE_BYTES))
        received = await drained(reader)
        at_member.set_result((received, await sending))
        writer.close()

    async with served(lab.hosts["a"], "10.0.0.5:9000", serve), asyncio.timeout(BULK_S):
        await device.apply(single(RAW))
        client = await dial(lab.hosts["dmz"], VIP)
        receiving = asyncio.create_task(drained(client.reader))
        sent = await poured(client.writer, there, 64 * PIECE_BYTES)
        client.writer.write_eof()
        assert (sent, await receiving) == await at_member


async def test_a_client_that_has_said_its_last_still_hears_the_member(device: Device, lab: Lab, dial: Dial) -> None:
    await plug(device, lab, "dmz", "a")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard = await reader.read(-1)
        # Longer than an end that were passed on as one of both directions would take.
        await asyncio.sleep(0.2)
        writer.write(b"heard " + heard)
        writer.close()

    async with served(lab.hosts["a"], "10.0.0.5:9000", serve):
        await device.apply(single(RAW))
        client = await dial(lab.hosts["dmz"], VIP, first=b"this")
        client.writer.write_eof()
        assert await client.ended() == b"heard this"


async def test_a_member_that_has_said_its_last_still_hears_the_client(device: Device, lab: Lab, dial: Dial) -> None:
    await plug(device, lab, "dmz", "a")
    heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.write_eof()
        heard.set_result(await reader.read(-1))
        writer.close()

    async with served(lab.hosts["a"], "10.0.0.5:9000", serve), asyncio.timeout(BULK_S):
        await device.apply(single(RAW))
        client = await dial(lab.hosts["dmz"], VIP)
        assert await client.ended() == b"hello"
        await asyncio.sleep(0.2)
        client.send(b"this")
        client.writer.write_eof()
        assert await heard == b"this"


async def test_bodies_cross_whole_both_ways_with_http(device: Device, lab: Lab, dice: random.Random) -> None:
    """A usual client puts 64 MiB, and gets as many back while it still sends."""
    await plug(device, lab, "dmz", "a")
    size_bytes = 64 * PIECE_BYTES

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size_bytes)
        left = size_bytes
        while left:
            piece = await reader.read(min(left, PIECE_BYTES))
            left -= len(piece)
            writer.write(piece)
            await writer.drain()
        writer.close()

    put = 'curl -sS -H Expect: -T "$2" "$3" | sha256sum && sha256sum < "$2"'
    script = f'head -c "$1" /dev/urandom > "$2" && {put}; rm "$2"'
    file = f"/run/body-{dice.randrange(1 << 30)}"
    async with served(lab.hosts["a"], "10.0.0.5:9000", echo):
        await device.apply(single(RAW, protocol="HTTP"))
        done = await lab.hosts["dmz"].run(["sh", "-c", script, "sh", str(size_bytes), file, f"http://{VIP}/"])
    received, sent = done.check().stdout.splitlines()
    assert received == sent


@pytest.mark.needs("iperf3")
async def test_bulk_crosses_both_ways_at_once(device: Device, lab: Lab) -> None:
    """Two streams of 128 MiB each way, as iperf3 has them."""
    await plug(device, lab, "dmz", "a")
    server = await lab.hosts["a"].start(["iperf3", "--server", "--port", "5201", "--forceflush"])
    assert server.stdout is not None
    while b"listening" not in await server.stdout.readline():
        pass
    await device.apply(single({**RAW, "port": 5201}, entry={"port": 5201}))
    asked = ["--client", VIP, "--port", "5201", "--parallel", "2", "--bytes", "256M", "--bidir", "--json"]
    end: dict[str, Any] = json.loads((await lab.hosts["dmz"].run(["iperf3", *asked])).check().stdout)["end"]
    for way in ("", "_bidir_reverse"):
        sent, received = (end[f"sum_{what}{way}"]["bytes"] for what in ("sent", "received"))
        # It asks for the end on a connection of its own, which overtakes what is still in four sockets' buffers.
        assert sent >= received > sent / 2
    assert end["sum_sent"]["bytes"] + end["sum_sent_bidir_reverse"]["bytes"] >= 256 * PIECE_BYTES


async def test_http_crosses_from_overlapping_networks_to_overlapping_networks(device: Device, lab: Lab) -> None:
    """Two tables to two tables, the same VIP and the same members' address, each request in its turn; and the pools are two."""
    await plug(device, lab, "a", "b")
    frontends = [frontend("in-a", "a", "10.0.0.10", pool="both"), frontend("in-b", "b", "10.0.0.10", pool="both")]
    frontends += [frontend("to-b", "a", "10.0.0.11", pool="b"), frontend("to-a", "b", "10.0.0.11", pool="a")]
    pools = [{"name": name, "members": members} for name, members in (("both", [A, B]), ("a", [A]), ("b", [B]))]
    await device.apply(doc("vServices/web", protocol="HTTP", frontends=frontends, pools=pools))
    for table in ("a", "b"):
        assert Counter(await served_by(lab.hosts[table], "10.0.0.10")) == {"a": 4, "b": 4}
    assert set(await served_by(lab.hosts["a"], "10.0.0.11")) == {"b"}
    assert set(await served_by(lab.hosts["b"], "10.0.0.11")) == {"a"}


async def test_http_crosses_from_each_family_to_each(device: Device, lab: Lab, dial: Dial) -> None:
    await plug(device, lab, "dmz", "a", "b")
    six = {**B, "address": "fd00::5"}
    vips = (VIP, VIP6)
    frontends = [
        frontend(f"v{number}{pool}", "dmz", vip, 80 + index, pool=pool)
        for number, vip in enumerate(vips)
        for index, pool in enumerate(("four", "six", "both"))
    ]
    pools = [{"name": name, "members": members} for name, members in (("four", [A]), ("six", [six]), ("both", [A, six]))]
    await device.apply(doc("vServices/web", protocol="HTTP", frontends=frontends, pools=pools))
    for vip in vips:
        for index, expected in enumerate(({"a": 6}, {"b": 6}, {"a": 3, "b": 3})):
            client = await dial(lab.hosts["dmz"], f"[{vip}]:{80 + index}")
            assert Counter([await client.name() for _ in range(6)]) == expected
