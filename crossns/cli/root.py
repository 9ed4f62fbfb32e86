"""The top of the command line: which commands there are, and what becomes of their errors.

A command's module is imported when the command is called; the list of commands is made from the table here alone.
"""

import importlib
import sys
from collections.abc import Sequence

import click

from crossns import errors
from crossns.cli import exits, options

# Command -> (module, function, what it does in one line).
_COMMANDS = {
    "up": ("device", "up", "run the whole suite on this device, in the foreground"),
    "down": ("device", "down", "remove everything that is ours from this device"),
    "demo": ("demo", "demo", "two tenants with the same addresses behind one vService, with the proof"),
    "apply": ("bundle", "apply", "make the device as the files say, and wait until it is"),
    "diff": ("bundle", "diff", "show what apply would change"),
    "export": ("bundle", "export", "print what is wanted of the device as a file"),
    "get": ("resource", "get", "print resources of one kind, or one resource"),
    "describe": ("resource", "describe", "everything about one resource: spec, status, who uses it"),
    "delete": ("resource", "delete", "delete resources, and wait until they are gone"),
    "table": ("table", "table", "route tables: create, update, list, show, delete"),
    "interface": ("interface", "interface", "interfaces: list, show, move"),
    "service": ("service", "service", "vServices: list, show, drain, enable, disable"),
    "verify": ("verify", "verify", "isolation: try to break what keeps route tables apart, and show the evidence"),
    "exec": ("device", "enter", "run a command inside a route table (root, on the device)"),
    "watch": ("watch", "watch", "print what happens as it happens"),
    "stats": ("stats", "stats", "what a route table's links, IP, TCP, UDP and sockets have counted, with rates"),
    "status": ("status", "status", "is all well? services, processes, memory, resources"),
    "completion": ("completion", "completion", "print the shell's completion script"),
}


class _Commands(click.Group):
    """Commands that are imported when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        module, function, _ = _COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"crossns.cli.{module}"), function)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in _COMMANDS.items()])


@click.group(cls=_Commands, name="crossns", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@options.connection
def cli(**given: object) -> None:
    """Many isolated route tables on one device, and vServices that cross between them on purpose.

    Begin with `crossns demo`, or with `crossns up` in one terminal and `crossns apply -f FILE` in another. Exit status: 0 done,
    1 failed, 2 wrong usage, 3 time is up.
    """
    click.get_current_context().obj = given


def run(argv: Sequence[str]) -> int:
    """Run one command line; its exit status."""
    try:
        status = cli.main(list(argv), prog_name="crossns", standalone_mode=False)
    except click.UsageError as error:
        error.show()
        return exits.USAGE
    except click.ClickException as error:
        return _failed(error.format_message())
    except (click.Abort, KeyboardInterrupt):
        return exits.INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough; Python must not find out again when it flushes at its end.
        sys.stdout = None
        return exits.DONE
    except (errors.CrossnsError, ExceptionGroup) as error:
        known = _first_known(error)
        return _failed(known.message, exits.TIMED_OUT if isinstance(known, errors.DeadlineExceeded) else exits.FAILED)
    return status if isinstance(status, int) else exits.DONE


def _first_known(error: errors.CrossnsError | ExceptionGroup[Exception]) -> errors.CrossnsError:
    """The error itself, or the first one of tasks that failed together; a bug of ours goes on as it came."""
    if isinstance(error, errors.CrossnsError):
        return error
    for each in error.exceptions:
        if isinstance(each, errors.CrossnsError | ExceptionGroup):
            return _first_known(each)
    raise error


def _failed(message: str, status: int = exits.FAILED) -> int:
    exits.complain(message)
    return status
