"""Hosts with real network stacks, cabled to the device: what stands around it in the demo, the tests and the benchmarks.

Each host is a network namespace of its own with one link `eth0`; the other end of the cable lies in `default` as a network
card, for an Interface to take into a route table. Works only in the sandbox. A cable ends with its host, and a card in a
namespace that dies is gone (a veth is no card that returns): that much is not like hardware.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from crossns import errors, proc
from crossns.testing import sandbox

# Where the hosts' namespaces are mounted: not among the route tables.
ROOT = Path("/run/lab")
# Addresses serve from the first moment: nobody else is on the cable (RFC 4862 5.4 is about those who are).
_WITHOUT_DAD = "echo 0 | tee /proc/sys/net/ipv6/conf/*/accept_dad > /dev/null"


@dataclass(frozen=True, slots=True)
class Cable:
    """How a host is connected. `card` is the link's name in `default`; the MAC addresses are the kernel's choice where empty."""

    card: str
    card_mac: str = ""
    host_mac: str = ""


@dataclass(slots=True)
class Host:
    """A machine on the network. Programs in it see its links only."""

    name: str
    cable: Cable
    _running: list[proc.Process] = field(default_factory=list)

    @property
    def namespace(self) -> Path:
        return ROOT / self.name

    def _inside(self, argv: Sequence[str]) -> list[str]:
        return ["nsenter", f"--net={self.namespace}", "--", *argv]

    async def run(self, argv: Sequence[str], *, stdin: str = "", timeout_s: float = proc.TIMEOUT_S) -> proc.Completed:
        """Run a program to its end."""
        return await proc.run(self._inside(argv), stdin=stdin, timeout_s=timeout_s)

    async def start(self, argv: Sequence[str], *, output: int | None = proc.PIPE) -> proc.Process:
        """A program that runs until it ends, is stopped, or the lab is left; `output` as `proc.start` has it."""
        process = await proc.start(self._inside(argv), output=output)
        self._running.append(process)
        return process

    async def stop(self, process: proc.Process) -> None:
        """Kill a program of `start` and what it has started."""
        proc.kill(process)
        await process.wait()
        self._running.remove(process)

    async def stop_all(self) -> None:
        for process in list(self._running):
            await self.stop(process)

    async def configure(self, *commands: str) -> None:
        """`ip` commands without the `ip`, such as `addr add 10.0.0.6/24 dev eth0`."""
        (await self.run(["ip", "-batch", "-"], stdin="\n".join(commands))).check()


class Lab:
    """The hosts. `async with Lab() as lab:` leaves nothing behind."""

    def __init__(self) -> None:
        self.hosts: dict[str, Host] = {}

    async def __aenter__(self) -> Self:
        if not sandbox.is_inside():
            message = "the lab makes links in the default namespace: run it in the sandbox, `crossns up --sandbox -- COMMAND`"
            raise errors.FailedPrecondition("FOREIGN_OBJECT", message)
        os.makedirs(ROOT, mode=0o700, exist_ok=True)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for host in list(self.hosts.values()):
            await self.remove(host)

    async def host(self, name: str, cable: Cable, addresses: Sequence[str] = (), gateways: Sequence[str] = ()) -> Host:
        """A new host. `addresses` are address/length, the first of a family sends; `gateways` the default ones."""
        host = Host(name, cable)
        host.namespace.touch()
        (await proc.run(["unshare", f"--net={host.namespace}", "sh", "-c", _WITHOUT_DAD])).check()
        self.hosts[name] = host
        link = ["ip", "link", "add", "name", cable.card, *_mac(cable.card_mac), "type", "veth"]
        (await proc.run([*link, "peer", "name", "eth0", *_mac(cable.host_mac), "netns", str(host.namespace)])).check()
        await host.configure(
            "link set lo up",
            "link set eth0 up",
            *(f"addr add {address} dev eth0" for address in addresses),
            *(f"route add default via {gateway} dev eth0 onlink" for gateway in gateways),
        )
        return host

    async def remove(self, host: Host) -> None:
        """Switch a host off: its programs, its namespace and its cable."""
        del self.hosts[host.name]
        await host.stop_all()
        # Now, not when the kernel gets round to the namespace: the card's name is free again. Gone already is as good.
        await host.run(["ip", "link", "delete", "eth0"])
        (await proc.run(["umount", "--lazy", str(host.namespace)])).check()
        host.namespace.unlink()


def _mac(address: str) -> list[str]:
    return ["address", address] if address else []
