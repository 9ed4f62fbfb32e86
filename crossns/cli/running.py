"""What `crossns up` and `down` do: the supervisor with people in front of it.

Called by `device`, and by the demo, which runs the suite inside itself.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import click

from crossns import errors, proc, settings
from crossns.cli import exits
from crossns.layout import Layout
from crossns.supervisor import jail, place, stack, suite
from crossns.testing import sandbox

# Long enough for a slow machine's cold start; then something is wrong, and the log says what.
READY_S = 30
# A second Ctrl-C this soon is the first one's echo: of a finger, or of a group that was signalled as a whole.
_BOUNCE_S = 0.5
_POLL_S = 0.1
_COLOURS = ("cyan", "magenta", "yellow", "green", "blue")


class _Interrupts:
    """SIGINT and SIGTERM: the first asks to stop, a second, later one to stop at once."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.insist: Callable[[], None] = lambda: None
        self._first = 0.0

    def __call__(self) -> None:
        if not self.asked.is_set():
            self._first = time.monotonic()
            self.asked.set()
        elif time.monotonic() - self._first > _BOUNCE_S:
            self.insist()


def enter_sandbox() -> None:
    """Start this command over in a sandbox, unless that has been done."""
    if not sandbox.is_inside():
        os.environ["PYTHONPATH"] = str(jail.CODE)
        sandbox.enter([sys.executable, "-P", "-m", "crossns.cli", *sys.argv[1:]])


@asynccontextmanager
async def suite_on(environ: Mapping[str, str], show: suite.Show) -> AsyncIterator[suite.Suite]:
    """The suite of this device, running; the only one here."""
    config = settings.from_environ(environ)
    wanted = stack.load(config.layout)
    if environ.get("CROSSNS_ETCD"):
        wanted = wanted.without_embedded()
    with place.held(config.layout):
        place.prepare(wanted, config.layout)
        async with suite.running(wanted, config.layout, environ, show) as running:
            yield running


async def wait_until_ready(running: suite.Suite) -> None:
    """DeadlineExceeded names the processes that are not ready in time."""
    try:
        await asyncio.wait_for(running.wait_until_ready(), READY_S)
    except TimeoutError as error:
        missing = ", ".join(running.missing)
        message = f"not ready after {READY_S} s: {missing}; the lines above tell why"
        raise errors.DeadlineExceeded("DEADLINE_EXCEEDED", message) from error


async def up(environ: Mapping[str, str], command: Sequence[str], *, quiet: bool) -> int:
    """Until interrupted, or until `command` has ended; the exit status. UsageError when a process refuses its settings."""
    interrupts = _Interrupts()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, interrupts)
    # A command has the terminal, and so gets its Ctrl-C, of which we take no notice then.
    loop.add_signal_handler(signal.SIGINT, (lambda: None) if command else interrupts)
    said: dict[str, str] = {}

    def show(name: str, line: str) -> None:
        said[name] = line
        if not quiet:
            _show_line(name, line)

    async with suite_on(environ, show) as running:
        interrupts.insist = running.kill
        working = asyncio.create_task(_work(running, environ, command))
        asked = asyncio.create_task(interrupts.asked.wait())
        await asyncio.wait((working, asked, running.refused), return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if interrupts.asked.is_set():
            click.echo("stopping the services; the data plane stays (`crossns down` removes it)", err=True)
        working.cancel()
        status = await _result(working)
    if running.refused.done() and not interrupts.asked.is_set():
        # Only now all that it printed has arrived.
        name = running.refused.result()
        words = errors.bounded(said.get(name, f"exit status {suite.EXIT_SETTINGS}")).removeprefix(f"{name}: ")
        raise click.UsageError(f"{name} refuses its settings: {words}")
    return status


async def _work(running: suite.Suite, environ: Mapping[str, str], command: Sequence[str]) -> int:
    if not command:
        await running.wait_until_ready()
        click.secho("crossns is ready: try `crossns status`, `crossns apply -f FILE`; Ctrl-C stops it", bold=True, err=True)
        await asyncio.Event().wait()
    await wait_until_ready(running)
    # What is said of `crossns` to whoever works in it must be there to be called.
    own = {"PATH": os.pathsep.join((str(Path(sys.executable).parent), environ.get("PATH", os.defpath)))}
    return await proc.foreground(command, environ={**environ, **own})


async def _result(working: asyncio.Task[int]) -> int:
    try:
        return await working
    except asyncio.CancelledError:
        return exits.DONE


async def down(environ: Mapping[str, str], timeout_s: float, *, purge: bool) -> int:
    """Stop a suite that runs, then remove what it left."""
    layout = settings.from_environ(environ).layout
    await asyncio.wait_for(_stop_other(layout), timeout_s)
    with place.held(layout):
        command = [sys.executable, "-P", "-m", "services.nsmanager.launcher", "--down"]
        launcher = next(process for process in stack.load(layout).processes if process.name == "launcher")
        (await proc.run(command, environ=jail.environ(launcher, layout, environ), timeout_s=timeout_s)).check()
        place.remove(layout, purge=purge)
    click.echo("everything of ours is gone" + ("" if purge else f"; what is wanted is kept in {layout.state}"))
    return exits.DONE


async def _stop_other(layout: Layout) -> None:
    """End the supervisor that runs here, if any."""
    while pid := place.holder(layout):
        place.end(pid)
        await asyncio.sleep(_POLL_S)


def _show_line(name: str, line: str) -> None:
    colour = _COLOURS[sum(name.encode()) % len(_COLOURS)]
    # Who read along may go; the suite goes on.
    with suppress(BrokenPipeError):
        click.echo(click.style(f"{name:>9} | ", fg=colour) + line, err=True)
