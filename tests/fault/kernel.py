"""What the kernel shows of route tables, read with iproute2 and without crossns; and what somebody else has there.

Called by `wandering`. One program per table: the reading of a table is a moment, that of several is not.
"""

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from crossns import proc
from tests.fault.wish import MARK, PROTOCOL, Seen
from tests.kernel.view import do

NETNS = Path("/run/netns")
FOREIGN = "foreign"
_LOOK = ("link show", "address show", "route show table all", "rule show", "neigh show nud permanent", "neigh show proxy")
# What somebody else has in a namespace that crossns works in: of each kind one.
_PLANT = (
    "link add foreign0 type bridge",
    "link set foreign0 up",
    "address add 10.99.0.1/24 dev foreign0",
    "address add 2001:db8:99::1/64 dev foreign0 nodad",
    "route add 198.18.0.0/24 via 10.99.0.2 proto static",
    "rule add pref 99 from 10.99.0.0/24 lookup 99 proto static",
    "neigh add 10.99.0.9 lladdr 02:00:00:00:00:99 dev foreign0 nud permanent",
)
_UPROOT = ("link del foreign0", "rule del pref 99 from 10.99.0.0/24 lookup 99 proto static")
_CHAIN = "add table inet foreign; add chain inet foreign c { type filter hook input priority 0; }; "
_FIREWALL = f"{_CHAIN} add rule inet foreign c meta mark 153 accept"
PLANTED = Seen(
    links=frozenset({("foreign0", "", "bridge", True, "")}),
    addresses=frozenset({("foreign0", "10.99.0.1/24"), ("foreign0", "2001:db8:99::1/64")}),
    routes=frozenset({("198.18.0.0/24", "unicast", 0, "main", "10.99.0.2", "foreign0")}),
    rules=frozenset({(4, 99, "10.99.0.0/24", "", "99")}),
    neighbors=frozenset({("foreign0", "10.99.0.9", "02:00:00:00:00:99")}),
)


def names() -> list[str]:
    """What stands in /run/netns: the tables but `default`, and what somebody else put there."""
    return sorted(path.name for path in NETNS.iterdir()) if NETNS.exists() else []


async def look() -> dict[str, Seen]:
    """Every table's namespace by its name, `default` included."""
    found = ["default", *names()]
    seen = await asyncio.gather(*(_seen(table) for table in found), return_exceptions=True)
    # One that goes while it is looked at is gone.
    return {table: each for table, each in zip(found, seen, strict=True) if isinstance(each, Seen)}


async def plant(table: str) -> None:
    await batch(table, *_PLANT)
    await do(*_inside(table), "nft", _FIREWALL)


async def uproot(table: str) -> None:
    await batch(table, *_UPROOT)
    await do(*_inside(table), "nft", "delete table inet foreign")


async def firewall(table: str) -> str:
    return (await proc.run([*_inside(table), "nft", "list", "table", "inet", "foreign"])).check().stdout


async def batch(table: str, *commands: str) -> None:
    """`ip` commands in a table, each as without the `ip`; all must succeed."""
    (await proc.run([*_ip(table), "-batch", "-"], stdin="\n".join(commands))).check()


async def flip_forwarding(table: str) -> None:
    """Nobody tells of it: it is found at the next look, which a link that changes brings about."""
    path = "/proc/sys/net/ipv4/ip_forward"
    await proc.run([*_inside(table), "sh", "-c", f"echo $((1 - $(cat {path}))) > {path}"])
    await meddle(table, "link set lo multicast on", "link set lo multicast off")


async def meddle(table: str, *commands: str) -> None:
    """The same, and never mind what fails: what is meddled with may be going by itself."""
    await proc.run([*_ip(table), "-force", "-batch", "-"], stdin="\n".join(commands))


def _ip(table: str) -> list[str]:
    return ["ip"] if table == "default" else ["ip", "-netns", table]


def _inside(table: str) -> list[str]:
    return [] if table == "default" else ["ip", "netns", "exec", table]


async def _seen(table: str) -> Seen:
    four, six, forwarding = await asyncio.gather(
        proc.run([*_ip(table), "-json", "-details", "-batch", "-"], stdin="\n".join(_LOOK)),
        proc.run([*_ip(table), "-6", "-json", "-details", "rule", "show"]),
        proc.run([*_inside(table), "cat", "/proc/sys/net/ipv4/ip_forward"]),
    )
    links, addresses, routes, rules, neighbors, proxied = [
        json.loads(line) if line.strip() else [] for line in four.check().stdout.split("\n")[: len(_LOOK)]
    ]
    return Seen(
        links=frozenset(_link(each) for each in links if each["ifname"] != "lo"),
        addresses=frozenset(_addresses(addresses)),
        routes=frozenset(_route(each) for each in routes if each["protocol"] in (PROTOCOL, "static")),
        rules=frozenset(_rules(4, rules)) | frozenset(_rules(6, json.loads(six.check().stdout))),
        neighbors=frozenset((each["dev"], each["dst"], each.get("lladdr", "proxy")) for each in (*neighbors, *proxied)),
        forwarding=forwarding.check().stdout.strip() == "1",
    )


def _link(shown: dict[str, Any]) -> tuple[str, str, str, bool, str]:
    mark = next((name for name in shown.get("altnames", ()) if name.startswith(MARK)), "")
    kind = shown.get("linkinfo", {}).get("info_kind", "")
    # Whether a card that nobody has taken is up is its owner's affair.
    is_up = "UP" in shown["flags"] and (bool(mark) or kind != "veth")
    return shown["ifname"], mark, kind, is_up, shown.get("master", "")


def _addresses(shown: Iterable[dict[str, Any]]) -> Iterable[tuple[str, str]]:
    for link in shown:
        for each in link["addr_info"]:
            if each["scope"] == "global":
                yield link["ifname"], f"{each['local']}/{each['prefixlen']}"


def _route(shown: dict[str, Any]) -> tuple[str, str, int, str, str, str]:
    destination = {"default": "0.0.0.0/0"}.get(shown["dst"], shown["dst"])
    link = shown.get("dev", "") if shown["type"] == "unicast" else ""
    return destination, shown["type"], shown.get("metric", 0), shown["table"], shown.get("gateway", ""), link


def _rules(version: int, shown: Iterable[dict[str, Any]]) -> Iterable[tuple[int, int, str, str, str]]:
    for each in shown:
        if each.get("protocol") != "kernel":
            source = f"{each['src']}/{each['srclen']}" if "srclen" in each else each["src"]
            yield version, each["priority"], source, each.get("iif", ""), each["table"]
