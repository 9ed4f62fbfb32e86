"""Draws the topology from what the API says: clients' tables on the left, the vService between, members' tables on the right.

Pure: documents as `get -o json` prints them become something that rich prints. Nothing here knows the example.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.box import HEAVY, ROUNDED
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

Document = Mapping[str, Any]

_MARKS = {"READY": ("●", "green"), "ERROR": ("✗", "red")}
_NOT_YET = ("○", "yellow")
# Below this width the columns stand under each other.
WIDE = 104
_PANEL_WIDTH = 40


@dataclass(frozen=True, slots=True)
class World:
    """What the API says. `around` names what is plugged into a card, by the card's name in the default route table."""

    tables: Sequence[Document]
    interfaces: Sequence[Document]
    services: Sequence[Document]
    around: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Part:
    """A frontend or member, as a line in its table."""

    table: str
    text: str
    state: str


def draw(world: World, width: int) -> RenderableType:
    """For a terminal of `width` characters."""
    return Group(*(_service(service, world, is_wide=width >= WIDE) for service in world.services))


def _service(service: Document, world: World, *, is_wide: bool) -> RenderableType:
    fronts = [_part(front, "VIP ", front["name"], service, "frontends") for front in service["spec"]["frontends"]]
    members = [
        _part(member, "", f"{pool['name']}/{member['name']}", service, "members")
        for pool in service["spec"]["pools"]
        for member in pool["members"]
    ]
    state = service.get("status", {}).get("state", "PENDING")
    what = Text.assemble(f"{service['spec']['protocol']}\n", _mark(state), f" {state}", justify="center")
    middle = Panel(what, title=f"[bold]{service['name']}", box=HEAVY, padding=(1, 2), expand=False)
    arrow = Text("──▶" if is_wide else "  │\n  ▼", style="bold")
    columns = (_column(fronts, world), arrow, middle, arrow, _column(members, world))
    if not is_wide:
        return Group(*columns)
    grid = Table.grid(padding=(0, 1))
    for _ in columns:
        grid.add_column(vertical="middle")
    grid.add_row(*columns)
    return grid


def _part(part: Document, title: str, name: str, service: Document, kind: str) -> _Part:
    address = f"[{part['address']}]" if ":" in part["address"] else part["address"]
    said = [each["state"] for each in service.get("status", {}).get(kind, []) if each["name"] == name]
    worst = next((state for state in said if state != "READY"), said[0] if said else "PENDING")
    return _Part(part["routeTable"], f"{title}{address}:{part['port']}", worst)


def _column(parts: Sequence[_Part], world: World) -> Group:
    """A panel per table in which there are parts, in their order."""
    return Group(*(_panel(table, parts, world) for table in dict.fromkeys(part.table for part in parts)))


def _panel(table: str, parts: Sequence[_Part], world: World) -> Panel:
    lines = [*_links(table, world), *(Text.assemble(_mark(part.state), f" {part.text}") for part in parts if part.table == table)]
    index = next((each["status"]["index"] for each in world.tables if each["name"] == table), "")
    return Panel(Group(*lines), title=f"[bold]{table}", subtitle=f"[dim]index {index}", box=ROUNDED, width=_PANEL_WIDTH)


def _links(table: str, world: World) -> Iterator[Text]:
    for interface in world.interfaces:
        spec = interface["spec"]
        if spec["routeTable"] != table:
            continue
        link = interface.get("status", {}).get("linkName", spec.get("linkName", ""))
        yield Text.assemble((link, "cyan"), f" {' '.join(spec.get('addresses', []))}")
        card = spec.get("physical", {}).get("linkName", "")
        if card in world.around:
            yield Text(f"└─ {card} ── {world.around[card]}", style="dim")


def _mark(state: str) -> tuple[str, str]:
    return _MARKS.get(state, _NOT_YET)
