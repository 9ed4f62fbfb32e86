"""`crossns watch`: the device's events, as they happen."""

import json
from collections.abc import Sequence

import click

from crossns import errors
from crossns.cli import client, columns, exits, kinds, render
from crossns.cli.client import Client
from crossns.v1 import events_pb2, status_pb2

_COLOURS = {"CREATED": "green", "DELETING": "yellow", "DELETED": "red"}


@click.command()
@click.option(
    "--table", "tables", multiple=True, metavar="TABLE", help="only what concerns this route table; may be given several times"
)
@click.option(
    "--kind",
    "words",
    multiple=True,
    metavar="KIND",
    help="only tables, interfaces, routes, rules, neighbors or services; may be given several times",
)
@click.option("--resume", "resume_token", default="", metavar="TOKEN", help="go on behind the event that carried it")
@click.option(
    "-o", "--output", "form", type=click.Choice(("table", "json")), default="table", show_default=True, help="how to print"
)
@client.remote(timeout_s=None)
async def watch(api: Client, tables: Sequence[str], words: Sequence[str], resume_token: str, form: str) -> int:
    """Print events until interrupted, or for --timeout SECONDS, which ends with exit status 3.

    With -o json each line is an event with its resumeToken, which --resume takes: nothing is missed in between.
    """
    request = events_pb2.WatchRequest(
        resume_token=resume_token,
        route_tables=[f"routeTables/{table}" for table in tables],
        collections=[kinds.find(word).collection for word in words],
    )
    try:
        async for event in api.stream(api.events.Watch, request):
            click.echo(json.dumps(render.fields(event), ensure_ascii=False) if form == "json" else _line(event))
    except errors.DeadlineExceeded:
        return exits.TIMED_OUT
    return exits.DONE


def _line(event: events_pb2.Event) -> str:
    what = events_pb2.EventType.Name(event.type).removeprefix("EVENT_TYPE_")
    time = event.time.ToJsonString()[11:19] if event.HasField("time") else " " * 8
    line = f"{time}  {click.style(f'{what:<8}', fg=_COLOURS.get(what))}  {event.name}"
    if event.type == events_pb2.EVENT_TYPE_STATUS:
        bad = (each for each in event.conditions if each.status == status_pb2.CONDITION_STATUS_FALSE)
        line += f"  {columns.state(event.state)}  {event.service}  " + "; ".join(each.message or each.reason for each in bad)
    return line.rstrip()
