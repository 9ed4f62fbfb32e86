"""The command: live on a terminal; elsewhere one table of numbers, whose rates are those of one interval."""

import contextlib
import json
import sys
from collections.abc import AsyncIterator

import click
from google.protobuf.duration_pb2 import Duration

from crossns import errors
from crossns.cli import client, exits, kinds, render
from crossns.cli.client import Client
from crossns.cli.stats import rate, screen
from crossns.cli.stats.rate import Looks
from crossns.v1 import route_table_pb2, route_table_pb2_grpc, statistics_pb2

_BILLION = 10**9
# What the API takes.
_MIN_S, _MAX_S = 0.1, 3600.0


@click.command()
@click.argument("name", metavar="TABLE")
@click.option(
    "--interval",
    "interval_s",
    type=float,
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="between two looks: 0.1 to 3600",
)
@click.option(
    "-o", "--output", "form", type=click.Choice(("table", "json")), default="table", show_default=True, help="how to print"
)
@client.remote(timeout_s=None)
async def stats(api: Client, name: str, interval_s: float, form: str) -> int:
    """What the kernel has counted in the route table TABLE: links, IP, UDP, ICMP, TCP, sockets, connection tracking.

    On a terminal the numbers stay up to date until q or Ctrl-C; elsewhere, and with -o json, they are printed once, after one
    interval that gives the rates. With -o json it is {statistics, seconds, perSecond}.
    """
    request = route_table_pb2.WatchStatisticsRequest(
        name=kinds.full_name(kinds.BY_NAME["RouteTable"], name), interval=_duration(interval_s)
    )
    stub = route_table_pb2_grpc.RouteTablesStub(api.channel)

    def watch() -> AsyncIterator[statistics_pb2.RouteTableStatistics]:
        return api.stream(stub.WatchStatistics, request)

    try:
        if form == "table" and sys.stdout.isatty():
            from crossns.cli.stats import live  # noqa: PLC0415 - only a terminal pays for it

            await live.show(watch)
        else:
            _print(await _looks(watch()), form)
    except errors.DeadlineExceeded:
        return exits.TIMED_OUT
    return exits.DONE


def _duration(seconds: float) -> Duration:
    if not _MIN_S <= seconds <= _MAX_S:
        raise click.UsageError(f"--interval: give {_MIN_S:g} to {_MAX_S:g} seconds")
    nanos = round(seconds * _BILLION)
    return Duration(seconds=nanos // _BILLION, nanos=nanos % _BILLION)


async def _looks(answers: AsyncIterator[statistics_pb2.RouteTableStatistics]) -> Looks:
    async with contextlib.aclosing(answers) as following:  # type: ignore[type-var]
        before = await anext(following)
        return Looks(await anext(following), before)


def _print(looks: Looks, form: str) -> None:
    if form == "json":
        told = {"statistics": render.with_zeros(looks.now), "seconds": looks.seconds, "perSecond": rate.plain(looks)}
        click.echo(json.dumps(told, indent=2, ensure_ascii=False))
    else:
        click.echo(screen.text(looks))
