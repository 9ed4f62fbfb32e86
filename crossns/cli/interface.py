"""`crossns interface`: network cards and virtual links."""

import click

from crossns.cli import client, description, kinds, options, render
from crossns.cli.client import Client


@click.group()
def interface() -> None:
    """Interfaces: network cards and virtual links, each in one route table."""


@interface.command("list")
@click.option("--table", metavar="TABLE", help="only those in this route table")
@options.output
@client.remote()
async def list_(api: Client, table: str | None, form: str) -> None:
    """List the interfaces."""
    found = [each async for each in api.list(kinds.BY_NAME["Interface"])]
    render.show([each for each in found if table is None or description.concerns(each, f"routeTables/{table}")], form)
