"""Client of the launcher: makes namespaces, runs engines.

Called by the drivers of nsmanager (namespaces) and proxy (engines); the launcher refuses each what is the other's.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from crossns import errors, session
from crossns.retry import Backoff

_BACKOFF = Backoff(0.05, 2.0, 1.0)

log = logging.getLogger(__name__)


class Launcher(session.Session):
    """`await Launcher.connect(layout.launcher_socket, service, token, on_event)`, then `await launcher.call(operation)`."""

    reason = "LAUNCHER_UNAVAILABLE"
    peer_name = "the launcher"


async def follow(connected: Callable[[], Awaitable[Launcher]], look: Callable[[], Awaitable[None]]) -> None:
    """Have a session all the time, so that every event is heard; `look` behind each break, for what happened meanwhile was not
    told. Until cancelled."""
    attempt = 0
    while True:
        try:
            launcher = await connected()
            await look()
            attempt = 0
            await launcher.wait_until_closed()
        except errors.CrossnsError as error:
            log.info("waiting for the launcher: %s", error.message)
            await asyncio.sleep(_BACKOFF.delay(attempt, random.random()))
            attempt += 1
