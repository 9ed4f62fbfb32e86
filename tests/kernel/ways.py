"""Three ways out of one table, and what `ip` shows of them: called by the kernel tests of rules, neighbours, ARP and filters."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from crossns import proc
from crossns.testing.device import Device, doc, wait_until
from crossns.testing.lab import Cable, Host, Lab
from tests.kernel.view import ip

TABLE = Path("/run/netns/a")
SERVER_MAC = "02:00:00:00:02:06"
# Of a neighbour, those in which it is decided whether there is one first.
STATES = ("FAILED", "REACHABLE", "STALE", "DELAY", "PROBE", "PERMANENT", "INCOMPLETE", "NOARP", "NONE")
TARGETS = {4: "172.16.5.5", 6: "2001:db8:5::5"}


def card(name: str, *addresses: str) -> str:
    return doc(f"interfaces/{name}", routeTable="routeTables/a", linkName=name, physical={"linkName": name}, addresses=addresses)


async def two_ways(device: Device, lab: Lab, **table: Any) -> Host:
    """A client at `one`, and behind `two` and `three` a server each with the same addresses: the kernel table main leads to the
    former, 100 to the latter."""
    client = await lab.host(
        "client", Cable("one"), ["10.1.0.6/24", "10.1.0.66/24", "2001:db8:1::6/64"], ["10.1.0.1", "2001:db8:1::1"]
    )
    for number, name in ((2, "two"), (3, "three")):
        own = [f"10.{number}.0.6/24", f"2001:db8:{number}::6/64", f"{TARGETS[4]}/32", f"{TARGETS[6]}/128"]
        await lab.host(name, Cable(name), own)
    ways = [("main", 2, 0), ("other", 3, 100)]
    routes = [
        doc(
            f"routeTables/a/routes/{way}{net[0]}",
            destination=f"{TARGETS[net[1]]}/{net[2]}",
            gateways=[{"address": net[3]}],
            kernelTable=table_,
        )
        for way, number, table_ in ways
        for net in (("4", 4, 32, f"10.{number}.0.6"), ("6", 6, 128, f"2001:db8:{number}::6"))
    ]
    await device.apply(
        doc("routeTables/a", forwarding=True, **table),
        *(
            card(name, f"10.{number}.0.1/24", f"2001:db8:{number}::1/64")
            for number, name in enumerate(("one", "two", "three"), 1)
        ),
        *routes,
    )
    return client


def rule(name: str = "r", **spec: Any) -> str:
    return doc(f"routeTables/a/rules/{name}", **spec)


def servers(lab: Lab) -> dict[str, Path]:
    return {name: lab.hosts[name].namespace for name in ("two", "three")}


def neighbor(name: str = "n", **spec: Any) -> str:
    return doc(f"routeTables/a/neighbors/{name}", **spec)


async def state_of(namespace: Path, address: str) -> list[str]:
    """What a host, or the table, knows of a neighbour."""
    shown = (await proc.run(["nsenter", f"--net={namespace}", "ip", "neighbor", "show", address])).check().stdout
    return [word for word in shown.split() if word in STATES]


async def is_answered(namespace: Path, address: str, ask: Callable[[], None]) -> bool:
    """Whether somebody answers for the neighbour, whom the namespace has to know once `ask` was called."""
    ask()

    async def is_decided() -> bool:
        return bool({*STATES[:5]} & {*await state_of(namespace, address)})

    await wait_until(is_decided)
    return await state_of(namespace, address) != ["FAILED"]


async def drifting(device: Device, lab: Lab) -> None:
    await two_ways(device, lab)
    await device.apply(
        rule(priority=100, source="10.1.0.64/26", interface="interfaces/one", kernelTable=100),
        rule("six", priority=100, family="IPV6", mark=1, action="PROHIBIT"),
        neighbor(address="10.2.0.6", interface="interfaces/two", macAddress=SERVER_MAC),
        neighbor("six", address="2001:db8:2::6", interface="interfaces/two", macAddress=SERVER_MAC),
        neighbor("proxy", address="10.1.0.9", interface="interfaces/one", proxy=True),
    )


async def ours() -> dict[str, set[tuple[str, ...]]]:
    """What carries our mark in the table, as `ip` shows it."""
    commands = {
        "rules": ["rule", "show"],
        "neighbors": ["neighbor", "show", "nud", "permanent"],
        "proxies": ["neighbor", "show", "proxy"],
    }
    found = {}
    for what, words in commands.items():
        shown = [each for family in ("-4", "-6") for each in await ip(family, *words, table="a")]
        found[what] = {
            tuple(sorted(f"{key}={value}" for key, value in each.items())) for each in shown if str(each.get("protocol")) == "197"
        }
    return found
