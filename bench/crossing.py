"""The way that is measured: client host -> route table `bench-dmz` -> HAProxy -> route table `bench-internal` -> backend host.

Called by `bench.vservice`. Hosts are the lab's; the tables, their interfaces and the vServices are made through the API. What
answers in the backend host is HAProxy too, which does nothing but answer: it must not be what is measured.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench import hand
from crossns import errors, proc
from crossns.layout import Layout
from crossns.testing.device import Device, doc
from crossns.testing.lab import Cable, Host, Lab

DMZ, INTERNAL = "bench-dmz", "bench-internal"
VIP = "203.0.113.10"
MEMBERS = {"a": "10.0.0.5", "b": "10.0.0.6"}
HTTP_PORT, STREAM_PORT = 80, 5201
BACKEND_PORT = 8080
# Where the HAProxys of `hand` listen: these ports above ours, at the same VIP.
BY_HAND, AS_IT_COMES = 1000, 2000
_BODY_BYTES = 1000
_GATEWAY = "203.0.113.1"
_READY_S = 10.0
# A client of ten thousand connections a second is many clients in truth: its ports must not run out.
_PORTS = "echo 1024 65535 > /proc/sys/net/ipv4/ip_local_port_range; echo 1 > /proc/sys/net/ipv4/tcp_tw_reuse"


@dataclass(frozen=True, slots=True)
class Crossing:
    """All of it, up."""

    device: Device
    client: Host
    backend: Host
    directory: Path


@contextlib.asynccontextmanager
async def built(device: Device) -> AsyncIterator[Crossing]:
    """The hosts, the two tables, and what serves in the backend; nothing of it is left."""
    async with Lab() as lab:
        client = await lab.host("client", Cable("card-dmz"), ["203.0.113.20/24"], [_GATEWAY])
        addresses = [f"{address}/24" for address in MEMBERS.values()]
        backend = await lab.host("backend", Cable("card-internal"), addresses)
        for host in (client, backend):
            (await host.run(["sh", "-c", _PORTS])).check()
        await device.apply(*_tables())
        with TemporaryDirectory() as directory:
            crossing = Crossing(device, client, backend, Path(directory))
            await _serve(crossing)
            yield crossing
        await device.clear()


def _tables() -> list[str]:
    interfaces = [("dmz", DMZ, f"{_GATEWAY}/24"), ("internal", INTERNAL, "10.0.0.1/24")]
    links = [
        doc(f"interfaces/bench-{side}", routeTable=f"routeTables/{table}", physical={"linkName": f"card-{side}"}, addresses=[own])
        for side, table, own in interfaces
    ]
    return [doc(f"routeTables/{DMZ}"), doc(f"routeTables/{INTERNAL}"), *links]


async def _serve(crossing: Crossing) -> None:
    """An HTTP server on each member's address, which answers the member's name first, and iperf3."""
    config = crossing.directory / "backend.cfg"
    sections = [
        f"frontend {name}\n    bind {address}:{BACKEND_PORT}\n"
        f'    http-request return status 200 content-type text/plain string "{name} {"x" * _BODY_BYTES}"\n'
        for name, address in MEMBERS.items()
    ]
    head = "global\n    maxconn 4000\ndefaults\n    mode http\n    timeout client 1h\n    timeout http-keep-alive 1h\n"
    config.write_text(head + "".join(sections), encoding="utf-8")
    log = str(crossing.directory / "iperf3.log")
    await crossing.backend.start(["haproxy", "-db", "-q", "-f", str(config)], output=None)
    await crossing.backend.start(["iperf3", "--server", "--port", str(STREAM_PORT), "--logfile", log])
    for address in MEMBERS.values():
        await wait_until_listens(crossing.backend, f"{address}:{BACKEND_PORT}")
    await wait_until_listens(crossing.backend, f"{MEMBERS['a']}:{STREAM_PORT}")


def v_service(identifier: str, protocol: str, frontend: tuple[str, int], members: dict[str, str], **pool: Any) -> str:
    """The document of a vService from the DMZ to `members` (name: address:port)."""
    parts = []
    for name, target in members.items():
        address, _, port = target.rpartition(":")
        parts.append({"name": name, "routeTable": f"routeTables/{INTERNAL}", "address": address, "port": int(port)})
    vip, vip_port = frontend
    listens = {"name": "front", "routeTable": f"routeTables/{DMZ}", "address": vip, "port": vip_port}
    pools = [{"name": "pool", "members": parts, **pool}]
    return doc(f"vServices/{identifier}", protocol=protocol, frontends=[listens], pools=pools)


@contextlib.asynccontextmanager
async def by_hand(crossing: Crossing) -> AsyncIterator[None]:
    """Two more HAProxys that serve what the suite's serves now: BY_HAND with the suite's settings, AS_IT_COMES without."""
    layout = Layout()
    suite = await asyncio.to_thread(_config(layout).read_text, encoding="utf-8")
    running = []
    try:
        for offset in (BY_HAND, AS_IT_COMES):
            directory = crossing.directory / str(offset)
            directory.mkdir()
            text = hand.render(suite, layout.engine_dir("haproxy"), directory, offset)
            config = directory / "haproxy.cfg"
            config.write_text(text if offset == BY_HAND else hand.untuned(text), encoding="utf-8")
            running.append(await proc.start(["haproxy", "-W", "-q", "-f", str(config)], output=None))
            await wait_until_listens(crossing.client, f"{VIP}:{HTTP_PORT + offset}")
        yield
    finally:
        for process in running:
            proc.kill(process)
            await process.wait()


def _config(layout: Layout) -> Path:
    """What the suite's HAProxy runs with."""
    return layout.engine_dir("haproxy").with_name("haproxy.cfg")


async def wait_until_listens(host: Host, target: str) -> None:
    """Until a connection from `host` to ADDRESS:PORT is accepted; DeadlineExceeded otherwise."""
    deadline = time.monotonic() + _READY_S
    while (await host.run([sys.executable, "-P", "-m", "crossns.testing.traffic", "reach", target])).status != 0:
        if time.monotonic() > deadline:
            raise errors.DeadlineExceeded("DEADLINE_EXCEEDED", f"{target} does not accept connections")
