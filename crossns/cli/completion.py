"""`crossns completion`: the script that teaches a shell our commands and options."""

import click
from click.shell_completion import get_completion_class

from crossns.cli import root

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
