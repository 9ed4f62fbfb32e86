"""`crossns service`: vServices in operation."""

import click

from crossns.cli import client, description, kinds, options, render
from crossns.cli.client import Client

KIND = kinds.BY_NAME["VService"]


@click.group()
def service() -> None:
    """vServices: VIPs in some route tables, members in others."""


@service.command("list")
@options.output
@client.remote()
async def list_(api: Client, form: str) -> None:
    """List the vServices."""
    render.show([each async for each in api.list(KIND)], form)


@service.command()
@click.argument("name")
@options.output
@client.remote()
async def show(api: Client, name: str, form: str) -> None:
    """Show the vService NAME with the state of every frontend and member."""
    await description.show(api, kinds.full_name(KIND, name), form)
