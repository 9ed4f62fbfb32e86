"""The hosts around the device: two clients, and two tenants' backends that are the same down to the MAC address.

Each host also has an address that nobody else has, so that an attempt to reach it means exactly this host.
"""

import asyncio
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from crossns import proc
from crossns.supervisor import jail
from crossns.testing import lab
from crossns.testing.lab import Cable

PORT = 8080
# The same on both tenants' hosts and cards: nothing on the device may be confused by it (RFC 7042: locally administered).
_BACKEND_MAC, _CARD_MAC = "02:00:00:00:00:05", "02:00:00:00:00:01"
_TRAFFIC = (sys.executable, "-P", "-m", "crossns.testing.traffic")
_COMMANDS = {
    "crossns": f"exec {sys.executable} -P -m crossns.cli",
    "host": f'name=$1; shift; exec nsenter --net={lab.ROOT}/"$name" --',
    "traffic": f"exec {' '.join(_TRAFFIC)}",
}


@dataclass(frozen=True, slots=True)
class Actor:
    """A host of the demo. `own` is the address that only it has; `targets` are the VIPs that a client asks."""

    name: str
    table: str
    cable: Cable
    addresses: tuple[str, ...]
    gateways: tuple[str, ...]
    targets: tuple[str, ...] = ()

    @property
    def own(self) -> str:
        return self.addresses[-1].partition("/")[0]


ACTORS = (
    Actor("client-dmz", "dmz", Cable("card-dmz"), ("203.0.113.20/24",), ("203.0.113.1",), ("203.0.113.10:80",)),
    Actor(
        "client-office",
        "office",
        Cable("card-office"),
        ("2001:db8:2::20/64", "192.0.2.20/24"),
        ("192.0.2.1", "2001:db8:2::1"),
        ("192.0.2.10:80", "[2001:db8:2::10]:80"),
    ),
    Actor(
        "backend-a",
        "tenant-a",
        Cable("card-a", _CARD_MAC, _BACKEND_MAC),
        ("10.0.0.5/24", "fd00::5/64", "10.0.0.101/24"),
        ("10.0.0.1", "fd00::1"),
    ),
    Actor(
        "backend-b",
        "tenant-b",
        Cable("card-b", _CARD_MAC, _BACKEND_MAC),
        ("10.0.0.5/24", "fd00::5/64", "10.0.0.102/24"),
        ("10.0.0.1", "fd00::1"),
    ),
)


@dataclass(frozen=True, slots=True)
class Stage:
    """The built hosts, and the shell that every command of the demo runs in."""

    environ: Mapping[str, str]

    async def run(self, line: str) -> proc.Completed:
        """Run a command line as a reader would type it."""
        return await proc.run(shlex.split(line), environ=self.environ, directory=jail.CODE)

    async def start(self, line: str) -> proc.Process:
        """Start a command line that goes on while others run."""
        return await proc.start(shlex.split(line), environ=self.environ, directory=jail.CODE)


async def build(network: lab.Lab) -> Stage:
    """All hosts, each serving HTTP on all of its addresses, and the commands `host`, `traffic`, `crossns`."""
    stage = Stage(dict(os.environ) | {"PATH": f"{_install_commands()}:{os.environ['PATH']}"})
    async with asyncio.TaskGroup() as group:
        for actor in ACTORS:
            group.create_task(_set_up(network, actor))
    return stage


async def _set_up(network: lab.Lab, actor: Actor) -> None:
    host = await network.host(actor.name, actor.cable, actor.addresses, actor.gateways)
    listen = ["--listen", f"0.0.0.0:{PORT}", "--listen", f"[::]:{PORT}"]
    server = await host.start([*_TRAFFIC, "serve", *listen, "--name", actor.name, "--table", actor.table])
    if server.stdout is not None:
        await server.stdout.readline()


def _install_commands() -> Path:
    """Short names for what the demo runs, so that a reader can run it too."""
    directory = lab.ROOT / "bin"
    directory.mkdir(exist_ok=True)
    for name, command in _COMMANDS.items():
        file = directory / name
        file.write_text(f'#!/bin/sh\n{command} "$@"\n', encoding="utf-8")
        file.chmod(0o755)
    return directory
