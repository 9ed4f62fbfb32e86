"""What kernel tests look with, and the tables that they look at. Called by the tests of route tables and of drift."""

import json
import sys
from typing import Any

from crossns import proc
from crossns.testing.device import Device, doc
from crossns.testing.lab import Cable, Host, Lab

TRAFFIC = [sys.executable, "-m", "crossns.testing.traffic"]
MAC = "02:00:00:00:00:05"


async def ip(*arguments: str, table: str = "") -> Any:
    """`ip -json` in a table, or in `default`."""
    inside = ["-netns", table] if table else []
    text = (await proc.run(["ip", *inside, "-json", "-details", *arguments])).check().stdout
    return json.loads(text) if text.strip() else []


async def do(*argv: str) -> None:
    (await proc.run(argv)).check()


async def reaches(host: Host, address: str) -> bool:
    """Whether an ICMP echo is answered."""
    return (await host.run([*TRAFFIC, "reach", address])).status == 0


async def link(name: str, table: str = "") -> dict[str, Any] | None:
    return next((each for each in await ip("link", "show", table=table) if each["ifname"] == name), None)


async def addresses(name: str, table: str = "") -> set[str]:
    found: dict[str, Any] = next(
        (each for each in await ip("address", "show", table=table) if each["ifname"] == name), {"addr_info": []}
    )
    return {f"{each['local']}/{each['prefixlen']}" for each in found["addr_info"] if each.get("scope") == "global"}


async def routes(table: str) -> set[str]:
    return {each["dst"] for family in ("-4", "-6") for each in await ip(family, "route", "show", "proto", "197", table=table)}


def table_with_card(table: str, card: str, *given: str) -> tuple[str, str]:
    lan = doc(
        f"interfaces/{table}-lan",
        routeTable=f"routeTables/{table}",
        linkName="lan",
        physical={"linkName": card},
        addresses=given,
    )
    return doc(f"routeTables/{table}"), lan


def bridge(name: str, **spec: Any) -> str:
    return doc(f"interfaces/{name}", routeTable="routeTables/a", bridge={}, **spec)


async def make_drifting(device: Device, lab: Lab) -> None:
    await lab.host("h", Cable("card-a"), ["10.0.0.6/24"])
    await device.apply(
        *table_with_card("a", "card-a", "10.0.0.1/24"),
        doc("routeTables/a/routes/r", destination="0.0.0.0/0", gateways=[{"address": "10.0.0.254"}]),
        bridge("br", linkName="br0", addresses=["10.8.0.1/24"]),
    )
