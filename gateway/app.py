"""The gateway, wired: forwarded services, events and config of its own, one store, one cache."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from crossns import cache, names, rpc, settings
from crossns.etcd.client import OPERATIONS_MAX, EtcdStore
from crossns.etcd.endpoint import Endpoints
from crossns.v1 import config_pb2_grpc, events_pb2_grpc
from gateway import owner, router
from gateway.config import Config
from gateway.config.wait import Waiting
from gateway.events import Events
from gateway.listener import listening
from gateway.owner import Channels, Owners
from gateway.settings import Settings

# The service that has events of its own beside those of its resources.
TELLER = "nsmanager"

_log = logging.getLogger(__name__)


def build(backend: EtcdStore, snapshot: cache.Cache, keys: names.Keys, channels: Channels) -> Mapping[str, rpc.Service]:
    """Every gRPC service that clients see, but health and reflection, which each server adds."""
    waiting = Waiting(backend, snapshot, keys)
    config = Config(backend, keys, Owners(channels), waiting)
    return {
        **{name: router.service(name, process, channels[process]) for name, process in owner.SERVED_BY.items()},
        "crossns.v1.Config": (config_pb2_grpc.add_ConfigServicer_to_server, config),
        "crossns.v1.Events": (events_pb2_grpc.add_EventsServicer_to_server, Events(backend, keys, {TELLER: channels[TELLER]})),
    }


async def run(shared: settings.Settings, own: Settings) -> None:
    """Serve until cancelled. etcd need not be there: what needs it says so to whoever calls, the rest works."""
    keys = names.Keys(shared.device, "gateway")
    backend = EtcdStore(Endpoints(shared.etcd), OPERATIONS_MAX)
    channels = owner.channels(shared.layout)
    try:
        snapshot = cache.Cache(backend, keys.device_prefix)
        services = build(backend, snapshot, keys, channels)
        async with listening(shared.layout, own, services) as ports, _metrics(own, channels) as metrics:
            _log.info("serving", extra={"socket": str(shared.layout.gateway_socket), "ports": ports, "metrics": metrics})
            await snapshot.run()
    finally:
        await asyncio.gather(*(channel.close(None) for channel in channels.values()))
        await backend.close()


@asynccontextmanager
async def _metrics(own: Settings, channels: Channels) -> AsyncIterator[int | None]:
    """The port where metrics are told; None where nobody wants them."""
    if own.metrics is None:
        yield None
        return
    from gateway import metrics  # noqa: PLC0415 - who does not want them does not pay for them

    async with metrics.serving(own.metrics, own.tls, channels) as port:
        yield port
