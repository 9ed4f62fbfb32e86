"""What a change would touch, for people: conflicts, then what is touched, the worst first, then what would be written.

Called by `interface move` and `table delete --dry-run`, which go on only with consent.
"""

import json
import sys

import click

from crossns import names
from crossns.cli import columns, render
from crossns.v1 import impact_pb2

_COLOURS = {
    impact_pb2.IMPACT_SEVERITY_CRITICAL: "red",
    impact_pb2.IMPACT_SEVERITY_WARNING: "yellow",
}


def show(impact: impact_pb2.Impact, form: str = "table") -> None:
    if form == "name":
        click.echo("".join(f"{each.name}\n" for each in impact.resources), nl=False)
    elif form == "json":
        click.echo(json.dumps(render.fields(impact), indent=2, ensure_ascii=False))
    elif form == "yaml":
        click.echo(render.to_yaml([render.fields(impact)]), nl=False)
    else:
        click.echo(text(impact))


def text(impact: impact_pb2.Impact) -> str:
    lines = [f"{click.style(_blocks(each), bold=True)} {each.message}" for each in impact.conflicts]
    shown = [item for item in impact.items if not _is_of_the_kernel(item)]
    if shown:
        rows = [_row(item) for item in sorted(shown, key=lambda item: -item.severity)]
        lines.append(columns.aligned([["WHAT", "WHERE", "CHANGE", "", "", "RESOURCE"], *rows]))
    if left := len(impact.items) - len(shown):
        lines.append(f"and {left} more that the kernel keeps by itself: routes with addresses, learned neighbours (-o yaml)")
    for change in (impact_pb2.IMPACT_CHANGE_CHANGED, impact_pb2.IMPACT_CHANGE_ADDED, impact_pb2.IMPACT_CHANGE_REMOVED):
        written = [each.name for each in impact.resources if each.change == change]
        if written:
            lines.append(f"resources {_word(change)}: {', '.join(written)}")
    if impact.established_sessions:
        lines.append(f"established TCP sessions of the table's own that break: {impact.established_sessions}")
    if impact.forwarded_sessions or impact.forwarded_sessions_at_least:
        bound = "at least " if impact.forwarded_sessions_at_least else ""
        lines.append(f"established sessions that are forwarded over it and interrupted: {bound}{impact.forwarded_sessions}")
    if impact.carries_own_session:
        lines.append(click.style("the session that you are working in goes over this link", fg="red"))
    lines += [
        click.style(f"{each.service} did not answer, what it would say is missing here: {each.message}", fg="red")
        for each in impact.unanswered
    ]
    return "\n".join(lines)


def agree(question: str, *, yes: bool) -> None:
    """Go on only with consent."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.ClickException("nothing was changed: give --yes if that is wanted")
    if not click.confirm(question, err=True):
        raise click.ClickException("nothing was changed")


def _blocks(conflict: impact_pb2.ImpactConflict) -> str:
    return "refused:" if conflict.blocking else "note:"


def _is_of_the_kernel(item: impact_pb2.ImpactItem) -> bool:
    return not item.resource and item.severity == impact_pb2.IMPACT_SEVERITY_INFO


def _row(item: impact_pb2.ImpactItem) -> list[str]:
    kind = impact_pb2.ImpactKind.Name(item.kind).removeprefix("IMPACT_KIND_").lower().replace("_", " ")
    where = " ".join(filter(None, (names.resource_id(item.route_table), item.link)))
    change = click.style(_word(item.change), fg=_COLOURS.get(item.severity))
    return [kind, where, change, item.object, item.message, item.resource]


def _word(change: impact_pb2.ImpactChange.ValueType) -> str:
    return impact_pb2.ImpactChange.Name(change).removeprefix("IMPACT_CHANGE_").lower()
