"""`crossns completion`: the script that teaches a shell our commands and options, and the names that stand for arguments.

Names come from the device that the command line so far would speak to. Where it does not answer soon there are none: a shell
must not hang because somebody pressed the tab key.
"""

import asyncio
from collections.abc import Iterable

import click
from click.shell_completion import get_completion_class

from crossns import errors, rpc
from crossns.cli import client, kinds, options, part, root
from crossns.v1 import v_service_pb2

_TIMEOUT_S = 2.0
# The variable by which click knows that the shell asks; the script sets it.
_VARIABLE = "_CROSSNS_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def completion(shell: str) -> None:
    """Print the completion script for SHELL.

    Bash: add `eval "$(crossns completion bash)"` to ~/.bashrc; zsh likewise; fish: `crossns completion fish | source`.
    """
    made = get_completion_class(shell)
    if made is None:
        raise click.UsageError(f"no completion for {shell}")
    click.echo(made(root.cli, {}, "crossns", _VARIABLE).source())


def services(context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """The ids of vServices that begin so."""
    return _beginning(begun, (kinds.short_name(each.name) for each in _found(context)))


def members(context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """The members of the vService that the command names: each by its own name and by `pool/member`."""
    given = context.params.get("v_service") or ""
    found = [each for each in _found(context) if given in (each.name, kinds.short_name(each.name))]
    full = [name for each in found for name, _ in part.members(each)]
    return _beginning(begun, [*(name.partition("/")[2] for name in full), *full])


def _beginning(begun: str, words: Iterable[str]) -> list[str]:
    return [word for word in dict.fromkeys(words) if word.startswith(begun)]


def _found(context: click.Context) -> list[v_service_pb2.VService]:
    above = context.find_root().params
    given = {name: context.params.get(name) or above.get(name) for name in options.CONNECTION}
    try:
        return asyncio.run(_ask(client.connection_of({**given, "timeout_s": _TIMEOUT_S})))
    except (errors.CrossnsError, click.UsageError):
        return []


async def _ask(connection: client.Connection) -> list[v_service_pb2.VService]:
    async with rpc.channel(connection.target, connection.tls) as channel:
        listed = client.Client(channel, connection).list(kinds.BY_NAME["VService"])
        return [each async for each in listed if isinstance(each, v_service_pb2.VService)]
