"""Waits for what was changed to become real, and shows how far it is: a bar on a terminal, a line per resource elsewhere.

Every changing command ends here unless --no-wait was given.
"""

import asyncio
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import click

from crossns import errors
from crossns.cli import columns, exits
from crossns.cli.client import Client
from crossns.v1 import config_pb2, status_pb2

# When all that is missing has been in ERROR for so long, more time will not help.
_HOPELESS_S = 2.0

Show = Callable[[config_pb2.WaitResponse], None]


def target(name: str, generation: int = 0) -> config_pb2.WaitTarget:
    return config_pb2.WaitTarget(name=name, generation=generation)


def gone(name: str) -> config_pb2.WaitTarget:
    return config_pb2.WaitTarget(name=name, deleted=True)


async def wait(client: Client, targets: Sequence[config_pb2.WaitTarget]) -> int:
    """Until all targets are reached, the time is up, or what is missing cannot become so; the exit status."""
    if not targets:
        return exits.DONE
    missing = {each.name: config_pb2.WaitResponse(name=each.name) for each in targets}
    status, began = exits.DONE, time.monotonic()
    with _display(len(targets)) as show:
        try:
            await _follow(client, targets, missing, show)
        except TimeoutError:
            status = exits.FAILED
        except errors.DeadlineExceeded:
            status = exits.TIMED_OUT
    if missing:
        _tell_missing(missing, status, client)
    elif sys.stderr.isatty():
        gone_count = sum(each.deleted for each in targets)
        counts = {"ready": len(targets) - gone_count, "gone": gone_count}
        told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        click.secho(f"{told} after {time.monotonic() - began:.1f} s", fg="green", err=True)
    return status


async def _follow(
    client: Client, targets: Sequence[config_pb2.WaitTarget], missing: dict[str, config_pb2.WaitResponse], show: Show
) -> None:
    """Takes out of `missing` what is reached. Raises TimeoutError when the rest is hopeless."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as patience:
        async for response in client.stream(client.config.Wait, config_pb2.WaitRequest(targets=targets)):
            show(response)
            missing[response.name] = response
            if response.done:
                del missing[response.name]
            is_hopeless = bool(missing) and all(each.state == status_pb2.STATE_ERROR for each in missing.values())
            if not is_hopeless:
                patience.reschedule(None)
            elif patience.when() is None:
                patience.reschedule(loop.time() + _HOPELESS_S)


def _tell_missing(missing: dict[str, config_pb2.WaitResponse], status: int, client: Client) -> None:
    after = f" after {client.connection.timeout_s:g} s" if status == exits.TIMED_OUT and client.connection.timeout_s else ""
    click.secho(f"not as wanted{after}:", fg="red", err=True)
    for response in missing.values():
        click.echo(f"  {response.name}  {columns.state(response.state)}  {_why(response)}", err=True)
    click.echo("`crossns describe NAME` tells more; what is stored goes on being worked on", err=True)


def _why(response: config_pb2.WaitResponse) -> str:
    texts = (each.message or each.reason for each in response.conditions if each.status != status_pb2.CONDITION_STATUS_TRUE)
    return next(texts, "")


@contextmanager
def _display(total: int) -> Iterator[Show]:
    if not sys.stderr.isatty():
        yield _print_line
        return
    from rich import progress  # noqa: PLC0415 - only a terminal pays for it
    from rich.console import Console  # noqa: PLC0415

    parts = (
        progress.SpinnerColumn(),
        progress.MofNCompleteColumn(),
        progress.BarColumn(30),
        # What the API says is no markup, though an IPv6 address may look like it.
        progress.TextColumn("{task.description}", markup=False),
    )
    done: set[str] = set()
    with progress.Progress(*parts, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("waiting", total=total)

        def show(response: config_pb2.WaitResponse) -> None:
            (done.add if response.done else done.discard)(response.name)
            bar.update(task, completed=len(done))
            if not response.done:
                bar.update(task, description=f"{response.name} {_why(response)}"[:80])

        yield show


def _print_line(response: config_pb2.WaitResponse) -> None:
    if response.done:
        click.echo(f"{response.name} is {'gone' if not response.state else columns.state(response.state)}")
