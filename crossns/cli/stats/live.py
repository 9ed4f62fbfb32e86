"""Statistics on a terminal, again and again in the same place, until q or Ctrl-C.

Keys are read one by one where the input is a terminal, too; it is as before afterwards, however it ends.
"""

import asyncio
import contextlib
import os
import signal
import sys
import termios
import tty
from collections.abc import AsyncIterator, Callable, Iterator

from rich.console import Console
from rich.live import Live
from rich.text import Text

from crossns import errors
from crossns.cli.stats import screen
from crossns.cli.stats.rate import Looks
from crossns.v1 import statistics_pb2

# Until an agent that did not answer is asked again.
_AGAIN_S = 1.0
_HINT = "q ends"
Watch = Callable[[], AsyncIterator[statistics_pb2.RouteTableStatistics]]


async def show(watch: Watch) -> None:
    """Until somebody ends it; raises what `watch` raises, but waits for an agent or service that does not answer."""
    with Live(console=Console(), auto_refresh=False, vertical_overflow="crop") as shown:
        following = asyncio.ensure_future(_follow(watch, lambda text: shown.update(Text.from_ansi(text), refresh=True)))
        with _ending(following.cancel):
            await _ended(following)


async def _ended(following: asyncio.Future[None]) -> None:
    """Returns where somebody ended it, and not ourselves."""
    task = asyncio.current_task()
    try:
        await following
    except asyncio.CancelledError:
        if task is None or task.cancelling():
            raise


async def _follow(watch: Watch, draw: Callable[[str], None]) -> None:
    looks: Looks | None = None
    while True:
        try:
            async for now in watch():
                looks = Looks(now, looks.now if looks is not None else None)
                draw(screen.text(looks, _HINT))
        except (errors.AgentUnavailable, errors.ServiceUnavailable) as error:
            # Without metadata it is the gateway that does not answer: nothing is left to wait for.
            if not error.metadata and isinstance(error, errors.ServiceUnavailable):
                raise
            draw(screen.text(looks, error.message) if looks is not None else error.message)
            await asyncio.sleep(_AGAIN_S)


@contextlib.contextmanager
def _ending(end: Callable[[], object]) -> Iterator[None]:
    """Calls `end` on q and on Ctrl-C."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, end)
    try:
        with _keys(lambda key: end() if key in ("q", "Q") else None):
            yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)


@contextlib.contextmanager
def _keys(pressed: Callable[[str], object]) -> Iterator[None]:
    if not sys.stdin.isatty():
        yield
        return
    loop, fd = asyncio.get_running_loop(), sys.stdin.fileno()

    def read() -> None:
        for key in os.read(fd, 64).decode(errors="replace"):
            pressed(key)

    before = termios.tcgetattr(fd)
    tty.setcbreak(fd)
    loop.add_reader(fd, read)
    try:
        yield
    finally:
        loop.remove_reader(fd)
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
