"""What was asked of route tables, and what the kernel must show once everything has come to rest. Pure; `wandering` asks it.

A wish is what the API took: resource name -> spec, as in the file format. What the kernel shows is compared as a whole, so that
what is too much counts as well as what is missing. Kernel and oracle have nothing of crossns between them but its marks.
"""

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

# What an interface, route, rule or neighbour of ours carries (services/nsmanager/README.md).
PROTOCOL = "197"
MARK = "interfaces."

Spec = dict[str, Any]
Wish = dict[str, Spec]


@dataclass(frozen=True, slots=True)
class Seen:
    """One route table's namespace, as far as it is ours or somebody's: what the kernel has by itself is left out.

    `links`: (name, mark, kind, up, master); `addresses`: (link, address/length); `routes`: (destination, type, metric, kernel
    table, gateway, link); `rules`: (family, priority, source, link, kernel table); `neighbors`: (link, address, MAC or "proxy").
    """

    links: frozenset[tuple[str, str, str, bool, str]] = frozenset()
    addresses: frozenset[tuple[str, str]] = frozenset()
    routes: frozenset[tuple[str, str, int, str, str, str]] = frozenset()
    rules: frozenset[tuple[int, int, str, str, str]] = frozenset()
    neighbors: frozenset[tuple[str, str, str]] = frozenset()
    forwarding: bool | None = None
    # Routes and neighbours that may be there or not: their link is down, or their gateway in no prefix of it.
    doubtful: frozenset[Any] = field(default=frozenset(), compare=False)


def difference(wanted: Mapping[str, Seen], seen: Mapping[str, Seen]) -> list[str]:
    """What is missing or too much, for people; empty where the kernel is as wanted."""
    found = [f"routeTables/{table} is there" for table in seen.keys() - wanted.keys()]
    for table, wish in wanted.items():
        if table not in seen:
            found.append(f"routeTables/{table} is missing")
            continue
        for what in ("links", "addresses", "routes", "rules", "neighbors"):
            one, other = getattr(wish, what), getattr(seen[table], what)
            found += [f"{table}: {each} of {what} is missing" for each in one - other]
            found += [f"{table}: {each} of {what} is too much" for each in other - one - wish.doubtful]
        if wish.forwarding not in (None, seen[table].forwarding):
            found.append(f"{table}: forwarding is {seen[table].forwarding}")
    return sorted(found)


def expected(wish: Wish, foreign: Mapping[str, Seen], cards: Mapping[str, str]) -> dict[str, Seen]:
    """What each namespace must show: what is wished, and beside it what somebody else has there. `cards`: interface -> its card's
    name, which it has in `default` while no interface takes it."""
    return {table: _expected(table, wish, foreign.get(table, Seen()), cards) for table in {*tables(wish), *foreign}}


def tables(wish: Wish) -> list[str]:
    """Ids of the tables, `default` among them."""
    return ["default", *(name.split("/")[1] for name in wish if name.startswith("routeTables/") and name.count("/") == 1)]


def interfaces(wish: Wish) -> dict[str, Spec]:
    return {name: spec for name, spec in wish.items() if name.startswith("interfaces/")}


def table_of(spec: Spec) -> str:
    return str(spec["routeTable"]).split("/")[1]


def inside(table: str, wish: Wish) -> list[str]:
    """Names of the resources that lie in a table."""
    below = f"routeTables/{table}/"
    held = [name for name, spec in interfaces(wish).items() if table_of(spec) == table]
    return [name for name in wish if name.startswith(below)] + held


def _expected(table: str, wish: Wish, foreign: Seen, cards: Mapping[str, str]) -> Seen:
    here = {name: spec for name, spec in interfaces(wish).items() if table_of(spec) == table}
    links = {_link(name, spec, here) for name, spec in here.items()}
    if table == "default":
        links |= {(card, "", "veth", False, "") for name, card in cards.items() if name not in wish}
    asked, below = wish.get(f"routeTables/{table}"), f"routeTables/{table}/"
    routes = dict(_routes({name: spec for name, spec in wish.items() if name.startswith(f"{below}routes/")}, here))
    neighbors = dict(_neighbors({name: spec for name, spec in wish.items() if name.startswith(f"{below}neighbors/")}, here))
    rules = _rules({name: spec for name, spec in wish.items() if name.startswith(f"{below}rules/")}, here)
    return Seen(
        links=foreign.links | links,
        addresses=foreign.addresses | {(spec["linkName"], text) for spec in here.values() for text in spec["addresses"]},
        routes=foreign.routes | {route for route, is_certain in routes.items() if is_certain},
        rules=foreign.rules | frozenset(rules),
        neighbors=foreign.neighbors | {each for each, is_certain in neighbors.items() if is_certain},
        forwarding=asked.get("forwarding", False) if asked is not None else None,
        doubtful=frozenset(each for found in (routes, neighbors) for each, is_certain in found.items() if not is_certain),
    )


def _link(name: str, spec: Spec, here: Mapping[str, Spec]) -> tuple[str, str, str, bool, str]:
    kind = next(kind for kind in ("physical", "bridge", "vxlan", "macvlan") if kind in spec)
    masters = [other["linkName"] for other in here.values() if name in other.get("bridge", {}).get("ports", ())]
    kernel_kind = "veth" if kind == "physical" else kind
    return spec["linkName"], MARK + name.split("/")[1], kernel_kind, spec["enabled"], masters[0] if masters else ""


def _routes(asked: Wish, here: Mapping[str, Spec]) -> Iterator[tuple[tuple[str, str, int, str, str, str], bool]]:
    """Each with whether it is certain."""
    for spec in asked.values():
        version = ipaddress.ip_network(spec["destination"]).version
        metric = spec.get("metric", 0) or (1024 if version == 6 else 0)
        table = str(spec.get("kernelTable", "main"))
        if "type" in spec:
            yield (spec["destination"], spec["type"].lower(), metric, table, "", ""), True
            continue
        hop = spec["gateways"][0]
        link = here.get(hop["interface"])
        if link is not None:
            holding = [text for text in link["addresses"] if _holds(text, hop["address"])]
            yield (
                (spec["destination"], "unicast", metric, table, hop["address"], link["linkName"]),
                link["enabled"] and bool(holding),
            )


def _holds(prefix: str, address: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_interface(prefix).network


def _rules(asked: Wish, here: Mapping[str, Spec]) -> Iterator[tuple[int, int, str, str, str]]:
    for spec in asked.values():
        named = spec.get("interface")
        if named is None or named in here:
            link = here[named]["linkName"] if named else ""
            yield 6 if ":" in spec["source"] else 4, spec["priority"], spec["source"], link, str(spec["kernelTable"])


def _neighbors(asked: Wish, here: Mapping[str, Spec]) -> Iterator[tuple[tuple[str, str, str], bool]]:
    for spec in asked.values():
        link = here.get(spec["interface"])
        if link is not None:
            yield (link["linkName"], spec["address"], spec.get("macAddress", "proxy")), link["enabled"]
