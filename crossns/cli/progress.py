"""Waits for what was changed to become real, and shows how far it is: a bar on a terminal, a line per resource elsewhere.

Every changing command ends here unless --no-wait was given. What is in effect but not healthy, such as a vService with members
that are down, is done: that is told, and no failure.
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
# The type of the conditions that speak of others' health; Wait is over with those alone unmet.
_HEALTH = "Healthy"
# What stands beside a bar or spinner stays on its line.
_TEXT_MAX = 80

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
    unhealthy: list[config_pb2.WaitResponse] = []
    status, began = exits.DONE, time.monotonic()
    with _display(len(targets)) as show:

        def tell(response: config_pb2.WaitResponse) -> None:
            if response.done and response.conditions:
                unhealthy.append(response)
            show(response)

        try:
            await _follow(client, targets, missing, tell)
        except TimeoutError:
            status = exits.FAILED
        except errors.DeadlineExceeded:
            status = exits.TIMED_OUT
    if missing:
        _tell_missing(missing, status, client)
    elif sys.stderr.isatty():
        gone_count = sum(each.deleted for each in targets)
        ready = len(targets) - gone_count - len(unhealthy)
        counts = {"ready": ready, "in effect but not healthy": len(unhealthy), "gone": gone_count}
        told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        click.secho(f"{told} after {time.monotonic() - began:.1f} s", fg="green", err=True)
    for response in unhealthy:
        click.echo(f"note: {response.name}: {_why(response)}", err=True)
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
            stuck = all(each.state == status_pb2.STATE_ERROR and not _is_ill(each) for each in missing.values())
            is_hopeless = bool(missing) and stuck
            if not is_hopeless:
                patience.reschedule(None)
            elif patience.when() is None:
                patience.reschedule(loop.time() + _HOPELESS_S)


def _is_ill(response: config_pb2.WaitResponse) -> bool:
    """Whether the state may be that of its members only: what else is missing may still come."""
    return any(each.type == _HEALTH for each in response.conditions)


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
def spinner() -> Iterator[Callable[[str], None]]:
    """Shows on a terminal what is being waited for; elsewhere nothing."""
    if not sys.stderr.isatty():
        yield lambda _text: None
        return
    from rich.console import Console  # noqa: PLC0415 - only a terminal pays for it
    from rich.text import Text  # noqa: PLC0415

    with Console(stderr=True).status("waiting") as shown:
        yield lambda text: shown.update(Text(text[:_TEXT_MAX]))


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
                bar.update(task, description=f"{response.name} {_why(response)}"[:_TEXT_MAX])

        yield show


def _print_line(response: config_pb2.WaitResponse) -> None:
    if response.done:
        click.echo(f"{response.name} is {'gone' if not response.state else columns.state(response.state)}")
