"""`crossns interface`: network cards and virtual links, and their moves between route tables."""

from typing import Any

import click

from crossns import errors
from crossns.cli import client, description, impact, kinds, options, own_session, render
from crossns.cli.client import Client
from crossns.v1 import interface_pb2, interface_pb2_grpc

KIND = kinds.BY_NAME["Interface"]


@click.group()
def interface() -> None:
    """Interfaces: network cards and virtual links, each in one route table."""


@interface.command("list")
@click.option("--table", metavar="TABLE", help="only those in this route table")
@options.output
@client.remote()
async def list_(api: Client, table: str | None, form: str) -> None:
    """List the interfaces."""
    found = [each async for each in api.list(KIND)]
    render.show([each for each in found if table is None or description.concerns(each, f"routeTables/{table}")], form)


@interface.command()
@click.argument("name")
@options.output
@client.remote()
async def show(api: Client, name: str, form: str) -> None:
    """Show the interface NAME: what is wanted, what is, and who uses it."""
    await description.show(api, kinds.full_name(KIND, name), form)


@interface.command()
@click.argument("name")
@click.argument("table")
@click.option("--drop-addresses", is_flag=True, help="without its addresses, and the routes whose gateway only they reach")
@click.option("--drop-routes", is_flag=True, help="delete the routes, rules and static neighbours that go through it")
@click.option("--dry-run", is_flag=True, help="only show what it would touch")
@click.option("--yes", is_flag=True, help="do not ask")
@options.cut_my_session
@options.output
@client.remote()
async def move(api: Client, name: str, table: str, *, cut_my_session: bool, form: str, **how: bool) -> None:
    """Move the interface NAME to the route table TABLE: shows what that touches, asks, moves, and waits.

    If the device cannot be made so, everything is put back as it was.

    Examples: crossns interface move a-lan tenant-b --dry-run; crossns interface move a-lan tenant-b --yes
    """
    stub = interface_pb2_grpc.InterfacesStub(api.channel)
    is_tried, is_agreed = how.pop("dry_run"), how.pop("yes")
    full, target = kinds.full_name(KIND, name), kinds.full_name(kinds.BY_NAME["RouteTable"], table)
    what: dict[str, Any] = {"name": full, "route_table": target, "own_session": own_session.find(api.connection), **how}
    found = await api.call(stub.AnalyzeImpact, interface_pb2.InterfacesAnalyzeImpactRequest(**what))
    impact.show(found, form)
    if is_tried:
        return
    if blocking := [each for each in found.conflicts if each.blocking]:
        raise errors.FailedPrecondition(blocking[0].reason, f"{full} cannot be moved: {blocking[0].message}", resource=full)
    if found.carries_own_session and not cut_my_session:
        message = f"{full} carries the session that you are working in: give --cut-my-session if it may be cut"
        raise errors.FailedPrecondition("OWN_SESSION", message, resource=full)
    impact.agree(f"Move {full} to {target}?", yes=is_agreed)
    await api.call(stub.Move, interface_pb2.MoveRequest(**what, cut_own_session=cut_my_session))
    click.echo(f"{full} is in {target}", err=True)
