"""How commands end: their exit statuses, on which scripts rely, and the one line that says what went wrong."""

import click

DONE = 0
FAILED = 1
USAGE = 2
TIMED_OUT = 3
# What a shell has for a command that SIGINT ended.
INTERRUPTED = 130

# `crossns diff`, as diff(1).
DIFFERS = 1
TROUBLE = 2


def complain(message: str) -> None:
    """What is wrong and what to do, on stderr."""
    click.echo(click.style("error: ", fg="red", bold=True) + message, err=True)
