"""`crossns get`, `describe`, `delete`: on any resource."""

from collections.abc import Sequence
from typing import Any

import click

from crossns import errors, names
from crossns.cli import bundle, client, description, exits, kinds, options, own_session, progress, render
from crossns.cli.client import Client
from crossns.resource import Resource
from crossns.v1 import config_pb2, route_table_pb2

# What refers to others goes before what is referred to.
_DELETION_ORDER = ("vServices", "neighbors", "rules", "routes", "interfaces", "routeTables")


@click.command()
@click.argument("kind")
@click.argument("name", required=False)
@click.option("--table", metavar="TABLE", help="only what is in this route table")
@options.labels("only resources with this label; may be given several times")
@options.output
@client.remote()
async def get(api: Client, kind: str, name: str | None, table: str | None, labels: dict[str, str], form: str) -> None:
    """Print all resources of a KIND (tables, interfaces, routes, rules, neighbors, services), or the one called NAME.

    NAME is an id, TABLE/ID for a route, rule or neighbor, or a full name; a full name may also stand alone.

    Examples: crossns get tables; crossns get service web -o yaml; crossns get routes --table dmz
    """
    if name is not None or "/" in kind:
        full = kind if name is None else kinds.full_name(kinds.find(kind), name)
        render.show([await api.get(full)], form, single=True)
        return
    found = [each async for each in api.list(kinds.find(kind), table or "-") if labels.items() <= each.labels.items()]
    if table is not None:
        found = [each for each in found if description.concerns(each, f"routeTables/{table}")]
    render.show(found, form)


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="[KIND] NAME")
@client.remote()
async def describe(api: Client, words: Sequence[str]) -> None:
    """Everything about one resource: what is wanted, what is, and who uses it.

    Examples: crossns describe vServices/web; crossns describe table dmz
    """
    if len(words) > 2:
        raise click.UsageError("describes one resource: give its full name, or KIND and NAME")
    name = words[0] if len(words) == 1 else kinds.full_name(kinds.find(words[0]), words[1])
    click.echo(await description.of(api, await api.get(name)))


@click.command()
@click.argument("given", nargs=-1, metavar="NAME...")
@click.option("-f", "--file", "files", multiple=True, metavar="FILE", help="delete what the file names; - is stdin")
@click.option(
    "--evacuate", is_flag=True, help="route tables: pull network cards back to default, delete the rest of what is in them"
)
@click.option("--allow-missing", is_flag=True, help="what does not exist is as good as deleted")
@options.cut_my_session
@options.no_wait
@client.remote()
async def delete(api: Client, given: Sequence[str], files: Sequence[str], *, no_wait: bool, **how: bool) -> int:
    """Delete resources by their full names, and wait until every service has cleared its part of them.

    Examples: crossns delete vServices/web; crossns delete -f examples/two-tenants.yaml
    """
    backwards = [resource.name for resource in reversed(bundle.read(files))]
    in_files = sorted(backwards, key=lambda name: _DELETION_ORDER.index(names.collection(name)))
    wanted = [*given, *in_files]
    if not wanted:
        raise click.UsageError("nothing to delete: give full names such as vServices/web, or -f FILE")
    if how["evacuate"] and any(names.collection(name) != "routeTables" for name in wanted):
        raise click.UsageError("--evacuate is for route tables only")
    return await delete_all(api, wanted, no_wait=no_wait, **how)


async def delete_all(api: Client, wanted: Sequence[str], *, no_wait: bool, cut_my_session: bool, **how: Any) -> int:
    """Delete in this order, and wait until all are gone. What still refers to the next one because it is going itself is
    waited for in between, also with `no_wait`. `how`: fields of Delete requests; not every kind's has them."""
    for name in wanted:
        kinds.of_name(name)
    how |= {"own_session": own_session.find(api.connection), "cut_own_session": cut_my_session}
    going: list[config_pb2.WaitTarget] = []
    for name in wanted:
        try:
            _tell_evacuated(await api.delete(name, **how))
        except errors.FailedPrecondition:
            if not going:
                raise
            if status := await progress.wait(api, going):
                return status
            going = []
            _tell_evacuated(await api.delete(name, **how))
        going.append(progress.gone(name))
    return exits.DONE if no_wait else await progress.wait(api, going)


def _tell_evacuated(deleted: Resource) -> None:
    """What network cards had that went back to `default`: nobody keeps it but whoever reads this."""
    for card in deleted.status.evacuated if isinstance(deleted, route_table_pb2.RouteTable) else ():
        had = ", ".join((*card.addresses, *card.routes))
        click.echo(f"{card.interface} is {card.link_name} in routeTables/default" + (f"; it had {had}" if had else ""))
