"""`crossns service`: vServices in operation."""

import json
from collections.abc import Callable
from typing import Any, TypeVar

import click

from crossns.cli import client, completion, kinds, member, options, render, statistics
from crossns.cli.client import Client
from crossns.v1 import v_service_pb2

KIND = kinds.BY_NAME["VService"]

F = TypeVar("F", bound=Callable[..., Any])


@click.group()
def service() -> None:
    """vServices: VIPs in some route tables, members in others."""


@service.command("list")
@options.output
@client.remote()
async def list_(api: Client, form: str) -> None:
    """List the vServices.

    FRONTENDS counts those that listen, SERVING the members that take new connections: `1/2` is one of two.
    """
    render.show([each async for each in api.list(KIND)], form)


@service.command()
@click.argument("name", shell_complete=completion.services)
@options.output
@client.remote()
async def show(api: Client, name: str, form: str) -> None:
    """Show the vService NAME with the state of every part and what came through.

    NOW are connections at present, TOTAL all so far; IN is what clients sent, OUT what they were sent.

    With -o json and yaml it is {vService, statistics}: the first as `crossns get service NAME` prints it alone, the second null
    where nothing is counted at present.
    """
    found = await api.get(kinds.full_name(KIND, name))
    assert isinstance(found, v_service_pb2.VService)  # noqa: S101 - by its name
    if form == "name":
        render.show([found], form, single=True)
        return
    counted, why = await statistics.ask(api, found.name)
    if form == "table":
        click.echo(statistics.screen(found, counted, why))
        return
    if counted is None:
        click.echo(f"note: nothing is counted at present: {why}", err=True)
    told = statistics.plain(found, counted)
    click.echo(json.dumps(told, indent=2, ensure_ascii=False) if form == "json" else render.to_yaml([told]).rstrip("\n"))


def _changing(function: F) -> F:
    """Which member, and how."""
    for decorate in (
        options.no_wait,
        click.option("--yes", is_flag=True, help="also where a pool is left without any member that serves"),
        click.argument("name", metavar="MEMBER", shell_complete=completion.members),
        click.argument("v_service", metavar="VSERVICE", shell_complete=completion.services),
    ):
        function = decorate(function)
    return function


@service.command()
@_changing
@click.option("--until-idle", is_flag=True, help="wait until it has no connection left, too; see --timeout")
@client.remote()
async def drain(api: Client, v_service: str, name: str, *, yes: bool, no_wait: bool, until_idle: bool) -> int:
    """Let MEMBER take nothing new; what it has goes on until it ends.

    MEMBER is NAME, in every pool that has it, or POOL/NAME.

    Example: crossns service drain web a1 --until-idle --timeout 600
    """
    if until_idle and no_wait:
        raise click.UsageError("--until-idle waits, --no-wait does not: give one of them")
    change = member.Change(kinds.full_name(KIND, v_service), name, v_service_pb2.MEMBER_STATE_DRAIN, yes)
    return await member.make(api, change, no_wait=no_wait, until_idle=until_idle)


@service.command()
@_changing
@client.remote()
async def enable(api: Client, v_service: str, name: str, *, yes: bool, no_wait: bool) -> int:
    """Let MEMBER take its share again.

    MEMBER is NAME, in every pool that has it, or POOL/NAME.
    """
    change = member.Change(kinds.full_name(KIND, v_service), name, v_service_pb2.MEMBER_STATE_ENABLED, yes)
    return await member.make(api, change, no_wait=no_wait)


@service.command()
@_changing
@client.remote()
async def disable(api: Client, v_service: str, name: str, *, yes: bool, no_wait: bool) -> int:
    """Let MEMBER take nothing new, and end what it has; `drain` is the gentle way.

    MEMBER is NAME, in every pool that has it, or POOL/NAME.
    """
    change = member.Change(kinds.full_name(KIND, v_service), name, v_service_pb2.MEMBER_STATE_DISABLED, yes)
    return await member.make(api, change, no_wait=no_wait)
