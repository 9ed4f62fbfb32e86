"""`crossns table`: the lifecycle of route tables."""

from typing import Any

import click

from crossns import names
from crossns.cli import client, description, exits, impact, kinds, options, own_session, progress, render, resource
from crossns.cli.client import Client
from crossns.v1 import route_table_pb2, route_table_pb2_grpc

KIND = kinds.BY_NAME["RouteTable"]


@click.group()
def table() -> None:
    """Route tables: isolated network domains of the device."""


@table.command()
@click.argument("name")
@click.option("--display-name", default="", help="a name for people")
@click.option("--description", default="", help="what it is for")
@click.option("--index", type=click.IntRange(1, 65535), default=None, help="[default: the lowest free one]")
@click.option("--forwarding", is_flag=True, help="forward packets between its own interfaces")
@click.option("--protected", is_flag=True, help="refuse deletion")
@options.labels("a label; may be given several times")
@options.no_wait
@client.remote()
async def create(api: Client, name: str, labels: dict[str, str], *, no_wait: bool, **spec: Any) -> int:
    """Create the route table NAME and wait until it is there.

    Example: crossns table create tenant-a --description "Tenant A"
    """
    full = kinds.full_name(KIND, name)
    wanted = route_table_pb2.RouteTable(labels=labels, spec=route_table_pb2.RouteTableSpec(**spec))
    stored = await api.create(KIND, names.resource_id(full), wanted)
    return exits.DONE if no_wait else await progress.wait(api, [progress.target(full, stored.generation)])


@table.command()
@click.argument("name")
@click.option("--display-name", default=None, help="a name for people; NAME itself stays")
@click.option("--description", default=None, help="what it is for")
@click.option("--protected/--unprotected", default=None, help="refuse deletion, or allow it again")
@options.labels("the labels that it has from now on, instead of those that it had; may be given several times")
@options.no_wait
@client.remote()
async def update(api: Client, name: str, labels: dict[str, str], *, no_wait: bool, **spec: Any) -> int:
    """Change what the route table NAME is called and labelled, and whether it may be deleted. Nothing of it is interrupted.

    Example: crossns table update tenant-a --display-name "Tenant A (Bonn)"
    """
    full = kinds.full_name(KIND, name)
    given = {field: value for field, value in spec.items() if value is not None}
    paths = [f"spec.{field}" for field in given] + (["labels"] if labels else [])
    if not paths:
        raise click.UsageError("nothing to change: give --display-name, --description, --protected, --unprotected or --label")
    wanted = route_table_pb2.RouteTable(name=full, labels=labels, spec=route_table_pb2.RouteTableSpec(**given))
    stored = await api.update(wanted, paths)
    return exits.DONE if no_wait else await progress.wait(api, [progress.target(full, stored.generation)])


@table.command("list")
@options.output
@client.remote()
async def list_(api: Client, form: str) -> None:
    """List the route tables."""
    render.show([each async for each in api.list(KIND)], form)


@table.command()
@click.argument("name")
@options.output
@client.remote()
async def show(api: Client, name: str, form: str) -> None:
    """Show the route table NAME with everything that is derived from its index."""
    await description.show(api, kinds.full_name(KIND, name), form)


@table.command()
@click.argument("name")
@click.option("--evacuate", is_flag=True, help="pull network cards back to default, delete the rest of what is in it")
@click.option("--allow-missing", is_flag=True, help="a table that does not exist is as good as deleted")
@click.option("--dry-run", is_flag=True, help="only show what it would touch, or would be refused for")
@options.cut_my_session
@options.no_wait
@client.remote()
async def delete(api: Client, name: str, *, dry_run: bool, no_wait: bool, **how: bool) -> int:
    """Delete the route table NAME: refused while interfaces are assigned or anything refers to it."""
    full = kinds.full_name(KIND, name)
    if dry_run:
        found = own_session.find(api.connection)
        request = route_table_pb2.RouteTablesAnalyzeImpactRequest(name=full, evacuate=how["evacuate"], own_session=found)
        impact.show(await api.call(route_table_pb2_grpc.RouteTablesStub(api.channel).AnalyzeImpact, request))
        return exits.DONE
    return await resource.delete_all(api, [full], no_wait=no_wait, **how)
