"""`crossns apply`, `diff`, `export`: many resources as one declarative unit, from and to files."""

import functools
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from crossns import errors, names
from crossns.cli import client, document, exits, kinds, options, own_session, progress, render, staging
from crossns.cli.client import Client
from crossns.resource import Resource
from crossns.rpc import status
from crossns.v1 import config_pb2

# A message of the stream stays far below the 4 MiB that one may have.
_CHUNK = 200
_SIGNS = {
    config_pb2.ACTION_CREATE: ("+", "create", "green"),
    config_pb2.ACTION_UPDATE: ("~", "update", "yellow"),
    config_pb2.ACTION_DELETE: ("-", "delete", "red"),
}


@dataclass(frozen=True, slots=True)
class Source:
    """The files of a command line, and what pruning by them means."""

    files: tuple[str, ...]
    prune: bool
    labels: Mapping[str, str]

    def request(self) -> config_pb2.DiffRequest:
        """Read the files."""
        resources = read(self.files)
        owned = owning(resources, self.labels) if self.prune else {}
        return config_pb2.DiffRequest(resources=map(wrap, resources), prune_labels=owned)


def _from_files(function: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command's function a Source."""

    @click.argument("more", nargs=-1, metavar="[FILE...]")
    @click.option("-f", "--file", "files", multiple=True, required=True, metavar="FILE", help="YAML or JSON; - is stdin")
    @click.option("--prune", is_flag=True, help="also delete what carries the labels and the files no longer name")
    @options.labels("with --prune: the labels that own; without, those that all resources of the files have in common")
    @functools.wraps(function)
    def run(*arguments: Any, **given: Any) -> Any:
        files = (*given.pop("files"), *given.pop("more"))
        return function(*arguments, source=Source(files, given.pop("prune"), given.pop("labels")), **given)

    return run


@click.command()
@_from_files
@click.option("--dry-run", is_flag=True, help="print the plan, change nothing")
@options.cut_my_session
@options.no_wait
@client.remote()
async def apply(api: Client, source: Source, *, dry_run: bool, cut_my_session: bool, no_wait: bool) -> int:
    """Make the device as the files say.

    Prints the plan, applies it in order of dependency and waits until all is in effect. It is not atomic: on the
    first failure it stops and tells, and repeating it goes on.

    Another name is another resource. To rename one that keeps its card, link name, index or VIP takes two steps: apply the
    files without it and with --prune (or delete it), then apply them with it under its new name.

    Example: crossns apply -f examples/two-tenants.yaml
    """
    wanted = source.request()
    plan: config_pb2.DiffResponse = await api.call(api.config.Diff, wanted)
    _show_plan(plan.changes)
    if dry_run:
        return exits.DONE
    how = {"own_session": own_session.find(api.connection), "cut_own_session": cut_my_session}
    targets = []
    async for response in api.stream(api.config.Apply, _requests(wanted, how)):
        if response.HasField("error"):
            raise named(response.name, status.read(response.error))
        if response.action == config_pb2.ACTION_DELETE:
            targets.append(progress.gone(response.name))
        else:
            targets.append(progress.target(response.name, response.generation))
    if no_wait:
        return exits.DONE
    return await progress.wait(api, targets)


@click.command()
@_from_files
@client.remote()
async def diff(api: Client, source: Source) -> int:
    """Show what `apply` would change.

    Exit status as diff(1) has it: 0 nothing differs, 1 something does, 2 it could not be told, 3 time is up.
    """
    try:
        plan: config_pb2.DiffResponse = await api.call(api.config.Diff, source.request())
    except errors.DeadlineExceeded:
        raise
    except errors.CrossnsError as error:
        exits.complain(error.message)
        return exits.TROUBLE
    _show_plan(plan.changes)
    return exits.DIFFERS if any(change.action in _SIGNS for change in plan.changes) else exits.DONE


@click.command()
@click.option(
    "--table", "tables", multiple=True, metavar="TABLE", help="only what concerns this route table; may be given several times"
)
@click.option("--as", "target", metavar="TABLE", help="as a copy under this name, with one --table; what exists once is left out")
@options.labels("only resources with this label; may be given several times")
@click.option(
    "-o", "--output", "form", type=click.Choice(("yaml", "json")), default="yaml", show_default=True, help="how to print"
)
@client.remote()
async def export(api: Client, tables: Sequence[str], target: str | None, labels: Mapping[str, str], form: str) -> None:
    """Print what is wanted of the device, as a file that `apply` takes back unchanged.

    With --as it is a copy of one table that can stand beside it: virtual links get names of their own. Network cards, VIPs and a
    chosen index are left out, and so is what stands on them; all that was is told on stderr and on top of the file.

    Example: crossns export --table a --as staging | crossns apply -f -
    """
    if target is not None:
        await _export_copy(api, tables, target, labels, form)
        return
    request = config_pb2.ExportRequest(route_tables=[f"routeTables/{table}" for table in tables], labels=labels)
    response: config_pb2.ExportResponse = await api.call(api.config.Export, request)
    click.echo(render.bundle(map(unwrap, response.resources), form), nl=False)


async def _export_copy(api: Client, tables: Sequence[str], target: str, labels: Mapping[str, str], form: str) -> None:
    if len(tables) != 1 or target in (*tables, "default"):
        raise click.UsageError("--as copies one table: give one --table, and another name that is not default")
    source, copy = (kinds.full_name(kinds.BY_NAME["RouteTable"], name) for name in (tables[0], target))
    await api.get(source)
    # All of it: names of the copy must be free on the whole device.
    response: config_pb2.ExportResponse = await api.call(api.config.Export, config_pb2.ExportRequest())
    made = staging.copied(map(unwrap, response.resources), source, copy, labels)
    told = [f"left out {line}" for line in made.left_out]
    for line in told:
        click.echo(line, err=True)
    if form == "yaml":
        click.echo("".join(f"# {line}\n" for line in (f"{source} as {copy}", *told)), nl=False)
    click.echo(render.bundle(made.resources, form), nl=False)


def read(files: Sequence[str]) -> list[Resource]:
    """The resources of all files; `-` is stdin."""
    resources = []
    for file in files:
        try:
            text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise errors.InvalidSpec(file, f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
        resources += document.parse(text, "stdin" if file == "-" else file)
    return resources


def wrap(resource: Resource) -> config_pb2.Resource:
    """As bundles carry it."""
    kind = kinds.BY_COLLECTION[names.collection(resource.name)]
    return config_pb2.Resource(**{kind.field: resource})  # type: ignore[arg-type]


def unwrap(wrapped: config_pb2.Resource) -> Resource:
    resource: Resource = getattr(wrapped, wrapped.WhichOneof("kind") or "")
    return resource


def owning(resources: Sequence[Resource], labels: Mapping[str, str]) -> Mapping[str, str]:
    """The labels by which pruning knows what belongs to the files."""
    shared = set.intersection(*(set(each.labels.items()) for each in resources)) if resources else set()
    owning = labels or dict(shared)
    if not owning:
        message = "--prune needs to know what belongs to the files: give all their resources one label, or name it with --label"
        raise click.UsageError(message)
    return owning


async def _requests(wanted: config_pb2.DiffRequest, how: Mapping[str, Any]) -> AsyncIterator[config_pb2.ApplyRequest]:
    """The bundle in pieces; the options stand in the first."""
    resources, options = wanted.resources, {"request_id": str(uuid.uuid4()), "prune_labels": wanted.prune_labels, **how}
    yield config_pb2.ApplyRequest(resources=resources[:_CHUNK], **options)
    for start in range(_CHUNK, len(resources), _CHUNK):
        yield config_pb2.ApplyRequest(resources=resources[start : start + _CHUNK])


def _show_plan(changes: Sequence[config_pb2.ApplyResponse]) -> None:
    counts = dict.fromkeys(_SIGNS, 0)
    for change in changes:
        if change.action in _SIGNS:
            counts[change.action] += 1
            sign, _, colour = _SIGNS[change.action]
            click.echo(click.style(f"{sign} {change.name}", fg=colour) + f"  {', '.join(change.changed_fields)}".rstrip())
    same = len(changes) - sum(counts.values())
    told = [f"{count} to {_SIGNS[action][1]}" for action, count in counts.items() if count]
    click.echo(", ".join([*told, f"{same} as wanted already"] if same or not told else told))


def named(name: str, error: errors.CrossnsError) -> errors.CrossnsError:
    """The error, saying which resource it is about."""
    if name not in error.message:
        error.message = f"{name}: {error.message}"
    return error
