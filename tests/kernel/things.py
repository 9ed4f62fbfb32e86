"""All that hangs on links in the kernel, in every route table, as `ip` shows it and in the words of an impact.

Called by the tests of moves: the difference of two such looks is what an impact must have foretold, no more and no less.
"""

import ipaddress
import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from crossns import proc
from crossns.cli import kinds
from crossns.testing.device import Device, wait_until
from crossns.v1 import impact_pb2, interface_pb2, interface_pb2_grpc
from tests.kernel.view import do, ip

TABLES = ("a", "b", "default")
# (kind, table, link, object)
Thing = tuple[str, str, str, str]
_OURS = 197

T = TypeVar("T")


def _what(name: str, target: str, how: dict[str, Any]) -> dict[str, Any]:
    return {"name": f"interfaces/{name}", "route_table": f"routeTables/{target}", **how}


async def impact(device: Device, name: str, target: str, **how: Any) -> impact_pb2.Impact:
    api = device.client
    request = interface_pb2.InterfacesAnalyzeImpactRequest(**_what(name, target, how))
    found: impact_pb2.Impact = await api.call(interface_pb2_grpc.InterfacesStub(api.channel).AnalyzeImpact, request)
    return found


async def move(device: Device, name: str, target: str, **how: Any) -> None:
    api = device.client
    await api.call(interface_pb2_grpc.InterfacesStub(api.channel).Move, interface_pb2.MoveRequest(**_what(name, target, how)))


async def without_dad(*tables: str) -> None:
    """Link-local addresses are there with the link, not a second later."""
    for table in tables:
        await do(
            "ip", "netns", "exec", table, "sysctl", "-qw", *(f"net.ipv6.conf.{each}.accept_dad=0" for each in ("all", "default"))
        )


async def without_ipv6(table: str) -> None:
    """Of links that come from now on: they take no address of it."""
    await do("ip", "netns", "exec", table, "sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")


async def settled(look: Callable[[], Awaitable[T]]) -> T:
    """What two looks agree about."""
    seen = [await look()]

    async def is_quiet() -> bool:
        seen.append(await look())
        return bool(seen[-1] == seen[-2])

    await wait_until(is_quiet)
    return seen[-1]


async def things(*tables: str) -> frozenset[Thing]:
    """Of these tables; "default" is the device's own namespace."""
    found: set[Thing] = set()
    for table in tables:
        inside = "" if table == "default" else table
        found |= {("LINK", table, each["ifname"], _kind(each)) for each in await ip("link", "show", table=inside)}
        for each in await ip("address", "show", table=inside):
            for address in each["addr_info"]:
                found.add(("ADDRESS", table, each["ifname"], f"{address['local']}/{address['prefixlen']}"))
        for family in ("-4", "-6"):
            for each in await ip(family, "route", "show", "table", "all", table=inside):
                found.add(_route(family, table, each))
            found |= {
                ("NEIGHBOR", table, each["dev"], f"{each['dst']} {each.get('lladdr', 'proxy')}")
                for shown in ("nud permanent", "proxy")
                for each in await ip(family, "neighbor", "show", *shown.split(), table=inside)
            }
            found |= {_rule(family, table, each) for each in await ip(family, "rule", "show", table=inside) if each["priority"]}
    return frozenset(found)


def _kind(link: dict[str, Any]) -> str:
    kind = link.get("linkinfo", {}).get("info_kind", "")
    return "" if any(name.startswith("was.") for name in link.get("altnames", [])) else {"tun": "tap"}.get(kind, kind)


def _route(family: str, table: str, route: dict[str, Any]) -> Thing:
    destination = route["dst"] if route["dst"] != "default" else f"default (IPv{family[1]})"
    words = [] if route.get("type", "unicast") == "unicast" else [route["type"]]
    hops = route.get("nexthops", [])
    words += [destination, *([f"via {route['gateway']}"] if "gateway" in route else [])]
    words += sorted(f"nexthop via {hop.get('gateway', '-')} dev {hop['dev']} weight {hop['weight']}" for hop in hops)
    words += [f"table {route['table']}"] if route.get("table", "main") != "main" else []
    words += [f"metric {route['metric']}"] if route.get("metric") else []
    kind = "CONNECTED_ROUTE" if route.get("protocol") == "kernel" else "STATIC_ROUTE"
    return kind, table, route.get("dev", "") if not hops else "", " ".join(words)


def _rule(family: str, table: str, rule: dict[str, Any]) -> Thing:
    words = ["inet" if family == "-4" else "inet6", str(rule["priority"])]
    link = rule.get("iif") or rule.get("oif") or ""
    if rule.get("protocol") not in ("197", _OURS):
        way = "iif" if "iif" in rule else "oif"
        detached = " detached" if "iif_detached" in rule or "oif_detached" in rule else ""
        return "RULE", table, link, " ".join([*words, way, link]) + detached
    words += [f"{key} {_prefix(rule, name)}" for key, name in (("from", "src"), ("to", "dst")) if rule.get(name, "all") != "all"]
    words += [f"iif {link}"] if link else []
    words += [f"fwmark {rule['fwmark']}/{rule.get('fwmask', '0xffffffff')}"] if "fwmark" in rule else []
    words.append(f"lookup {rule['table']}" if rule.get("action", "lookup") in ("lookup", "to_tbl") else rule["action"])
    return "RULE", table, link, " ".join(words)


def _prefix(rule: dict[str, Any], name: str) -> str:
    length = rule.get(f"{name}len", ipaddress.ip_address(rule[name]).max_prefixlen)
    return f"{rule[name]}/{length}"


async def resources(device: Device) -> dict[str, str]:
    """Every resource that there is, and what is wanted of it."""
    found: dict[str, str] = {}
    for kind in kinds.KINDS:
        found |= {each.name: str(each.spec) async for each in device.client.list(kind)}
    return found


def foretold(impact: impact_pb2.Impact, before: frozenset[Thing], target: str) -> frozenset[Thing]:
    """What `before` becomes by all that the impact says."""
    then = set(before)
    for item in impact.items:
        if item.kind in (impact_pb2.IMPACT_KIND_FRONTEND, impact_pb2.IMPACT_KIND_MEMBER):
            continue
        # `ip` does not tell whose an address is.
        kind = impact_pb2.ImpactKind.Name(item.kind).removeprefix("IMPACT_KIND_").replace("VIP", "ADDRESS")
        change = impact_pb2.ImpactChange.Name(item.change).removeprefix("IMPACT_CHANGE_")
        table = item.route_table.removeprefix("routeTables/")
        thing = (kind, table, item.link, item.object)
        if change == "ADDED":
            then.add(thing)
            continue
        if kind == "LINK" and change in ("INTERRUPTED", "RECREATED") and item.resource != impact.name:
            continue
        if change == "CHANGED":
            then.remove((*thing[:3], f"{item.object} detached"))
            then.add(thing)
            continue
        if thing in then or kind != "NEIGHBOR":
            then.remove(thing)
        if change in ("MOVED", "RECREATED"):
            then.add((kind, target, item.link, item.object))
        elif change == "INTERRUPTED":
            then.add((kind, table, item.link, f"{item.object} detached"))
    return frozenset(then)


async def becomes(expected: frozenset[Thing], *tables: str) -> None:
    """The kernel, within a while, what was expected; tells the difference otherwise."""
    unknown = {thing[1:3] for thing in expected if thing[0] == "ADDRESS" and thing[3] == "fe80::/64"}

    async def seen() -> frozenset[Thing]:
        return frozenset(_as_foretold(thing) if thing[1:3] in unknown else thing for thing in await things(*(tables or TABLES)))

    async def is_so() -> bool:
        return await seen() == expected

    try:
        await wait_until(is_so, timeout_s=5)
    except TimeoutError:
        now = await seen()
        pytest.fail(f"not foretold: {sorted(now - expected)}; foretold and not there: {sorted(expected - now)}")


def _as_foretold(thing: Thing) -> Thing:
    """With the link-local address that the kernel chose as it was foretold: as one of its choice."""
    shown = re.sub(r"^fe80::\S+:\S*/64$", "fe80::/64", thing[3])
    return (*thing[:3], re.sub(r"^local fe80::\S+ table", "local fe80::/64 table", shown))


# What passes by itself, or is another number each time that a link comes.
_PASSING = re.compile(
    r"^\d+: |@if\d+|link-netnsid \d+ |(?<=_lft )\d+sec|(?<=expires )\d+sec|\w+_timer +[\d.]+|"
    r"state (UP|DOWN|LOWERLAYERDOWN|UNKNOWN) "
)
_LOOKS = {
    "-0": ("link show", "address show", "nexthop show"),
    "-4": ("route show table all", "rule show", "neighbor show nud permanent", "neighbor show proxy"),
}


async def every_word(*tables: str) -> frozenset[str]:
    """What `ip` tells of these tables, with all that it knows of each thing."""
    found: set[str] = set()
    for table in tables:
        for family, looks in {**_LOOKS, "-6": _LOOKS["-4"]}.items():
            way = [] if family == "-0" else [family]
            argv = ["ip", *way, "-details", "-oneline", *(["-netns", table] if table != "default" else []), "-batch", "-"]
            lines = (await proc.run(argv, stdin="\n".join(looks))).check().stdout.splitlines()
            found |= {f"{table}: {' '.join(sorted(_PASSING.sub('', line).split()))}" for line in lines}
    return frozenset(found)
