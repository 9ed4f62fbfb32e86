"""Tables for people: which columns each kind has, how a state looks, how text is aligned.

Colour only where the output is a terminal; `click.echo` takes it off elsewhere.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import click
from google.protobuf.timestamp_pb2 import Timestamp

from crossns import names
from crossns.cli import part
from crossns.cli.kinds import short_name
from crossns.resource import Resource
from crossns.v1 import interface_pb2, neighbor_pb2, route_pb2, route_table_pb2, rule_pb2, status_pb2, v_service_pb2

_COLOURS = {"READY": "green", "PENDING": "yellow", "DEGRADED": "yellow", "DELETING": "yellow", "ERROR": "red"}
# Why something is not READY is cut to this in a table; `describe` has all of it.
_WHY_MAX = 60
# So many of a list are named in a cell.
_NAMED_MAX = 3


def state(value: status_pb2.State.ValueType) -> str:
    """A state's name, in its colour."""
    name = status_pb2.State.Name(value).removeprefix("STATE_")
    return click.style(name, fg=_COLOURS.get(name))


def time(when: Timestamp) -> str:
    """In UTC, to the second."""
    return when.ToJsonString()[:19].replace("T", " ")


def why(resource: Resource) -> str:
    """Why it is not READY, as far as a condition says."""
    false = (each for each in resource.status.conditions if each.status == status_pb2.CONDITION_STATUS_FALSE)
    texts = [each.message or each.reason for each in false if each.reason != "OK"]
    return texts[0] if texts else ""


def link_kind(interface: interface_pb2.Interface) -> str:
    return interface.spec.WhichOneof("kind") or ""


def via(route: route_pb2.Route) -> str:
    """`10.0.0.254, b-lan weight 2` or the kind of a route without gateways."""
    if not route.spec.gateways:
        return route_pb2.RouteType.Name(route.spec.type).removeprefix("ROUTE_TYPE_").lower()
    return ", ".join(
        " ".join(filter(None, (hop.address, names.resource_id(hop.interface), f"weight {hop.weight}" if hop.weight > 1 else "")))
        for hop in route.spec.gateways
    )


def selector(rule: rule_pb2.Rule) -> str:
    """As `ip rule` writes it: `from 10.0.0.0/8 iif a-lan fwmark 0x1/0xff`; `from all` where it selects nothing in particular."""
    spec = rule.spec
    words = [f"from {spec.source or 'all'}"]
    if spec.destination:
        words.append(f"to {spec.destination}")
    if spec.interface:
        words.append(f"iif {names.resource_id(spec.interface)}")
    if spec.mark or spec.mark_mask:
        words.append(f"fwmark {spec.mark:#x}" + (f"/{spec.mark_mask:#x}" if spec.mark_mask else ""))
    return " ".join(words)


def action(rule: rule_pb2.Rule) -> str:
    """`lookup 100`, or what else is done with a packet."""
    name = rule_pb2.RuleAction.Name(rule.spec.action or rule_pb2.RULE_ACTION_LOOKUP).removeprefix("RULE_ACTION_").lower()
    return f"{name} {rule.spec.kernel_table}" if rule.spec.kernel_table else name


def endpoint(end: v_service_pb2.Frontend | v_service_pb2.Member) -> str:
    """`dmz 203.0.113.10:80`, `dmz [2001:db8::10]:8000-8099`; `:*` for a member's port that is the one the client came to."""
    address = f"[{end.address}]" if ":" in end.address else end.address
    last = end.end_port if isinstance(end, v_service_pb2.Frontend) else 0
    ports = f"{end.port}-{last}" if last not in (0, end.port) else str(end.port or "*")
    return f"{names.resource_id(end.route_table)} {address}:{ports}"


def few(texts: Sequence[str]) -> str:
    """`a, b, c and 61 more`."""
    more = f" and {len(texts) - _NAMED_MAX} more" if len(texts) > _NAMED_MAX else ""
    return ", ".join(texts[:_NAMED_MAX]) + more


def protocol(service: v_service_pb2.VService) -> str:
    name = v_service_pb2.Protocol.Name(service.spec.protocol).removeprefix("PROTOCOL_")
    return name if service.spec.protocol else ""


def _ready(parts: Sequence[v_service_pb2.PartStatus], total: int) -> str:
    """`2/2`: of so many parts no service reports another state."""
    worse = {part.name for part in parts if part.state != status_pb2.STATE_READY}
    reported = {part.name for part in parts}
    return f"{len(reported - worse)}/{total}"


def _route_table(table: route_table_pb2.RouteTable) -> list[str]:
    return [str(table.status.index or table.spec.index), "yes" if table.spec.forwarding else "no", table.spec.description]


def _interface(interface: interface_pb2.Interface) -> list[str]:
    link = interface.status.link_name or interface.spec.link_name
    return [names.resource_id(interface.spec.route_table), link, link_kind(interface), ", ".join(interface.spec.addresses)]


def _route(route: route_pb2.Route) -> list[str]:
    return [route.spec.destination, via(route), str(route.spec.metric or "")]


def _rule(rule: rule_pb2.Rule) -> list[str]:
    return [str(rule.spec.priority), selector(rule), action(rule)]


def _neighbor(neighbor: neighbor_pb2.Neighbor) -> list[str]:
    spec = neighbor.spec
    return [spec.address, names.resource_id(spec.interface), "answered for" if spec.proxy else spec.mac_address]


def _v_service(service: v_service_pb2.VService) -> list[str]:
    members = sum(len(pool.members) for pool in service.spec.pools)
    fronts = few([endpoint(front) for front in service.spec.frontends])
    ready = _ready(service.status.frontends, len(service.spec.frontends))
    return [protocol(service), fronts, ready, f"{len(part.serving(service))}/{members}"]


_KINDS: dict[str, tuple[list[str], Callable[[Any], list[str]]]] = {
    "routeTables": (["INDEX", "FORWARDS", "DESCRIPTION"], _route_table),
    "interfaces": (["TABLE", "LINK", "KIND", "ADDRESSES"], _interface),
    "routes": (["DESTINATION", "VIA", "METRIC"], _route),
    "rules": (["PRIORITY", "SELECTS", "ACTION"], _rule),
    "neighbors": (["ADDRESS", "INTERFACE", "MAC"], _neighbor),
    "vServices": (["PROTOCOL", "LISTENS ON", "FRONTENDS", "SERVING"], _v_service),
}


def table(resources: Sequence[Resource]) -> str:
    """Resources of one kind, a line each."""
    heads, cells = _KINDS[names.collection(resources[0].name)]
    rows = [[short_name(each.name), state(each.status.state), *cells(each), _cut(why(each))] for each in resources]
    return aligned([["NAME", "STATE", *heads, ""], *rows])


def aligned(rows: Sequence[Sequence[str]], numbers: Collection[str] = ()) -> str:
    """Columns two blanks apart; the first row is the head. `numbers`: heads of columns that end on the right."""
    widths = [max(len(click.unstyle(cell)) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = (_padded(*each) for each in zip(row, widths, (head in numbers for head in rows[0]), strict=True))
        lines.append("  ".join(cells).rstrip())
    lines[0] = click.style(lines[0], bold=True)
    return "\n".join(lines)


def _padded(cell: str, width: int, is_number: bool) -> str:
    blanks = " " * (width - len(click.unstyle(cell)))
    return blanks + cell if is_number else cell + blanks


def _cut(text: str) -> str:
    return text if len(text) <= _WHY_MAX else text[: _WHY_MAX - 1] + "…"
