"""`python -m gateway`: the process. Exit status 0 stopped, 1 failed, 2 wrong settings."""

import asyncio
import logging
import os
import signal
import sys

import uvloop

from crossns import errors, settings, telemetry
from gateway import app
from gateway.settings import Settings, parse

_log = logging.getLogger("gateway")


def main() -> int:
    try:
        own = parse(sys.argv[1:], os.environ)
        shared = settings.from_environ(os.environ)
    except errors.InvalidSpec as error:
        print(f"gateway: {error.message}", file=sys.stderr)
        return 2
    telemetry.setup_logging("gateway", shared.log_level)
    telemetry.setup("gateway")
    try:
        return uvloop.run(_run(shared, own))
    except OSError as error:
        _log.error("cannot listen: %s", error)
        return 1
    finally:
        telemetry.shutdown()


async def _run(shared: settings.Settings, own: Settings) -> int:
    serving = asyncio.ensure_future(app.run(shared, own))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, serving.cancel)
    try:
        await serving
    except asyncio.CancelledError:
        _log.info("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
