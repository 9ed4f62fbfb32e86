"""`crossns verify isolation`: tries to break what keeps route tables apart, and shows what came of it, layer by layer."""

import json
import sys
from collections.abc import Sequence

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from crossns import errors, names
from crossns.cli import client, columns, exits, kinds, render
from crossns.cli.client import Client
from crossns.v1 import isolation_pb2, route_table_pb2_grpc

_COLOURS = {"ISOLATED": "green", "ALLOWED": "cyan", "LEAK": "red", "UNPROVEN": "yellow"}
# Of what is no terminal.
_WIDTH = 160
_TABLE = kinds.BY_NAME["RouteTable"]


@click.group()
def verify() -> None:
    """Prove what the device promises."""


@verify.command("isolation")
@click.argument("tables", nargs=-1, metavar="[TABLE]...")
@click.option(
    "-o", "--output", "form", type=click.Choice(("table", "json")), default="table", show_default=True, help="how to print"
)
@client.remote()
async def isolation(api: Client, tables: Sequence[str], form: str) -> int:
    """Try to break what keeps TABLEs apart (all where none is named): interfaces, routing, neighbours, firewall, sockets.

    Everything is tried on throwaway links that are gone afterwards; what exists is only looked at. Exit status 1 where a table
    leaks into another, or where something could not be proven.
    """
    request = isolation_pb2.VerifyIsolationRequest(names=[kinds.full_name(_TABLE, each) for each in tables])
    report = await _report(api, request)
    if form == "json":
        click.echo(json.dumps(render.fields(report), indent=2, ensure_ascii=False))
    else:
        console = Console(width=None if sys.stdout.isatty() else _WIDTH, highlight=False)
        console.print(_table(report))
        console.print(_verdict(report.verdict), f"{len(report.route_tables)} route tables")
    return exits.DONE if report.verdict == isolation_pb2.ISOLATION_VERDICT_ISOLATED else exits.FAILED


async def _report(api: Client, request: isolation_pb2.VerifyIsolationRequest) -> isolation_pb2.IsolationReport:
    stub = route_table_pb2_grpc.RouteTablesStub(api.channel)
    report: isolation_pb2.IsolationReport | None = None
    try:
        async for answer in api.stream(stub.VerifyIsolation, request):
            if answer.HasField("report"):
                report = answer.report
            else:
                _show(f"{answer.progress.number}/{answer.progress.count} {answer.progress.step} ...")
    finally:
        _show("")
    if report is None:
        raise errors.ServiceUnavailable("SERVICE_UNAVAILABLE", "the answer ended before the report: try again")
    return report


def _show(progress: str) -> None:
    """In one line of a terminal, over what stood there."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{progress}", nl=False, err=True)


def _table(report: isolation_pb2.IsolationReport) -> Table:
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for head, ratio in (("LAYER", None), ("VERDICT", None), ("TABLES", 2), ("TRIED", 4), ("EVIDENCE", 6)):
        shown.add_column(head, ratio=ratio, no_wrap=ratio is None, overflow="fold")
    for each in report.findings:
        tables = columns.few([names.resource_id(table) for table in each.route_tables]) or "all"
        shown.add_row(_layer(each), _verdict(each.verdict), tables, escape(each.tried), escape(each.evidence))
    return shown


def _layer(finding: isolation_pb2.IsolationFinding) -> str:
    return isolation_pb2.IsolationLayer.Name(finding.layer).removeprefix("ISOLATION_LAYER_").lower()


def _verdict(verdict: isolation_pb2.IsolationVerdict.ValueType) -> Text:
    name = isolation_pb2.IsolationVerdict.Name(verdict).removeprefix("ISOLATION_VERDICT_")
    return Text(name, _COLOURS[name])
