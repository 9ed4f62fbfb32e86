"""The life of a service process: reach the store, stand by until it leads, follow the store, serve and reconcile, end cleanly.

Each service's `__main__` calls `main` with its `app.build`. A process that no longer leads ends with EXIT_FENCED, and its
supervisor starts it anew: so nothing that it knew outlives its leadership. An etcd that is out of reach is waited for.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field

import uvloop

from crossns import cache, errors, leader, names, operation, rpc, settings, store, telemetry
from crossns.etcd.client import EtcdStore

# How long a leader that vanished without a trace is waited for: a frozen machine, a network that was cut.
LEASE_S = 10
# Running calls may take this long to end before they are cancelled.
STOP_GRACE_S = 2.0
EXIT_FENCED = 3

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Context:
    """What a service is built on."""

    settings: settings.Settings
    keys: names.Keys
    backend: store.Store
    snapshot: cache.Cache
    token: operation.Token
    fence: store.CreatedAt


@dataclass(frozen=True, slots=True)
class App:
    """What `app.build` makes: gRPC services by full name, the tasks that run while the process leads, and `peers`: what other
    services of the device may call."""

    services: Mapping[str, rpc.Service]
    tasks: Sequence[Callable[[], Coroutine[None, None, None]]]
    peers: Mapping[str, rpc.Service] = field(default_factory=dict)


Build = Callable[[Context], Awaitable[App]]


def main(service: str, build: Build) -> int:
    """Run until SIGTERM or SIGINT (0), or until another process leads (EXIT_FENCED)."""
    try:
        config = settings.from_environ(os.environ)
    except errors.InvalidSpec as error:
        print(f"crossns {service}: {error.message}", file=sys.stderr)
        return 2
    telemetry.setup_logging(service, config.log_level)
    telemetry.setup(service)
    try:
        # A fifth less time for each call than with the loop of the standard library.
        return uvloop.run(_run(service, config, build))
    finally:
        telemetry.shutdown()


async def _run(service: str, config: settings.Settings, build: Build) -> int:
    living = asyncio.ensure_future(_live(service, config, build))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, living.cancel)
    try:
        await living
    except asyncio.CancelledError:
        log.info("stopped")
        return 0
    except BaseExceptionGroup as group:
        if group.split(leader.Fenced)[1] is not None:
            raise
        log.warning("another process leads: ending")
    return EXIT_FENCED


async def _live(service: str, config: settings.Settings, build: Build) -> None:
    keys = names.Keys(config.device, service)
    backend = await _connect(config)
    try:
        await backend.check_limits()
        async with await leader.campaign(backend, keys, LEASE_S) as leadership, asyncio.TaskGroup() as tasks:
            snapshot = cache.Cache(backend, keys.device_prefix)
            tasks.create_task(snapshot.run())
            tasks.create_task(_end_when_lost(leadership))
            context = Context(config, keys, backend, snapshot, leadership.token, leadership.compare())
            await snapshot.wait_until_synced()
            app = await build(context)
            async with _serving(service, config, app, snapshot), asyncio.TaskGroup() as working:
                for task in app.tasks:
                    working.create_task(task())
    finally:
        await backend.close()


async def _end_when_lost(leadership: leader.Leadership) -> None:
    await leadership.lost()
    raise leader.Fenced(leadership.key)


async def _connect(config: settings.Settings) -> EtcdStore:
    while True:
        try:
            return await EtcdStore.connect(config.etcd)
        except errors.StoreUnavailable as error:
            log.warning("waiting for etcd: %s", error.message)


@contextlib.asynccontextmanager
async def _serving(service: str, config: settings.Settings, app: App, snapshot: cache.Cache) -> AsyncIterator[None]:
    async with contextlib.AsyncExitStack() as stack:
        places = [(config.layout.service_socket(service), app.services), (config.layout.peer_socket(service), app.peers)]
        for path, services in places:
            if services:
                server = rpc.Server(f"unix:{path}", services, rpc.by_role, ready=lambda: snapshot.connected)
                await server.start()
                stack.push_async_callback(server.stop, STOP_GRACE_S)
                log.info("serving", extra={"address": f"unix:{path}"})
        yield
