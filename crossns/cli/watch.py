"""`crossns watch`: the device's events, as they happen."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from crossns import errors
from crossns.cli import client, columns, exits, kinds, render
from crossns.cli.client import Client
from crossns.v1 import events_pb2, status_pb2

_COLOURS = {"CREATED": "green", "DELETING": "yellow", "DELETED": "red", "STOPPED": "red", "MISSED": "yellow"}


_KINDS = {name.removeprefix("EVENT_KIND_").lower(): number for name, number in events_pb2.EventKind.items() if number}


@click.command()
@click.option(
    "--table", "tables", multiple=True, metavar="TABLE", help="only what concerns this route table; may be given several times"
)
@click.option(
    "--kind",
    "words",
    multiple=True,
    type=click.Choice(tuple(_KINDS)),
    help="only what is wanted of resources (config) or observed of them (status), what the kernel tells, or agents that come and "
    "go; may be given several times",
)
@click.option(
    "--resource",
    "resources",
    multiple=True,
    metavar="KIND",
    help="only what happens to tables, interfaces, routes, rules, neighbors or services; may be given several times",
)
@click.option("--resume", "resume_token", default="", metavar="TOKEN", help="go on behind the event that carried it")
@click.option(
    "-o", "--output", "form", type=click.Choice(("table", "json")), default="table", show_default=True, help="how to print"
)
@client.remote(timeout_s=None)
async def watch(
    api: Client, tables: Sequence[str], words: Sequence[str], resources: Sequence[str], resume_token: str, form: str
) -> int:
    """Print events until interrupted, or for --timeout SECONDS, which ends with exit status 3.

    With -o json each line is an event with its resumeToken, which --resume takes: nothing is missed in between. What happens
    faster than it can be told is MISSED, with how much it was.
    """
    for table in tables:
        try:
            await api.get(f"routeTables/{table}")
        except errors.NotFound:
            click.echo(f"routeTables/{table} does not exist (yet): nothing happens before it does", err=True)
    request = events_pb2.WatchRequest(
        resume_token=resume_token,
        route_tables=[f"routeTables/{table}" for table in tables],
        collections=[kinds.find(word).collection for word in resources],
        kinds=[_KINDS[word] for word in words],
    )
    try:
        async for event in api.stream(api.events.Watch, request):
            click.echo(json.dumps(render.fields(event), ensure_ascii=False) if form == "json" else line(event))
    except errors.DeadlineExceeded:
        return exits.TIMED_OUT
    return exits.DONE


def line(event: events_pb2.Event) -> str:
    what = events_pb2.EventType.Name(event.type).removeprefix("EVENT_TYPE_")
    time = event.time.ToJsonString()[11:19] if event.HasField("time") else " " * 8
    change = event.WhichOneof("change")
    text = f"{time}  {click.style(f'{what:<8}', fg=_COLOURS.get(what))}  {event.name or ' '.join(event.route_tables)}"
    if event.type == events_pb2.EVENT_TYPE_STATUS:
        bad = (each for each in event.conditions if each.status == status_pb2.CONDITION_STATUS_FALSE)
        text += f"  {columns.state(event.state)}  {event.service}  " + "; ".join(each.message or each.reason for each in bad)
    elif change is not None:
        text += f"  {_SHOWN[change](getattr(event, change))}"
    if event.type == events_pb2.EVENT_TYPE_MISSED and event.kind:
        text += f" ({events_pb2.EventKind.Name(event.kind).removeprefix('EVENT_KIND_').lower()})"
    return text.rstrip()


def _link(link: events_pb2.LinkChange) -> str:
    words = ["up" if link.up else "down", *(["carrier"] if link.carrier else []), f"mtu {link.mtu}", link.mac_address]
    return " ".join(("link", link.link, *filter(None, words), *([f"({link.interface})"] if link.interface else [])))


def _route(route: events_pb2.RouteChange) -> str:
    hops = [*(["via", *route.gateways] if route.gateways else []), *(["dev", *route.links] if any(route.links) else [])]
    return " ".join(("route", route.destination, *([route.route_type] if route.route_type != "unicast" else []), *hops))


def _missed(missed: events_pb2.Missed) -> str:
    return f"{missed.count or 'some'} events: {missed.message}"


_SHOWN: Mapping[str, Callable[[Any], str]] = {
    "link": _link,
    "address": lambda address: f"address {address.prefix} dev {address.link}",
    "route": _route,
    "neighbor": lambda each: f"neighbor {each.address} dev {each.link} {each.mac_address} {each.state}".replace("  ", " "),
    "agent": lambda agent: f"agent (pid {agent.pid})" + (f", {agent.restarts} restarts" if agent.restarts else ""),
    "missed": _missed,
}
