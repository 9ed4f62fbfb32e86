"""The gateway's Config and Events on a real etcd, with the services' real servicers, and the tests in the place of their loops.

What services would observe is written by `observe`; what they would clear away, by `clear`.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from grpc import aio

from crossns import names, rpc, store
from crossns.cache import Cache
from crossns.chronicle import Chronicle, Events
from crossns.etcd.client import EtcdStore
from crossns.registry import Registry
from crossns.resource import MESSAGES
from crossns.testing import etcd
from crossns.v1 import (
    config_pb2,
    config_pb2_grpc,
    events_pb2_grpc,
    interface_pb2_grpc,
    neighbor_pb2_grpc,
    route_pb2_grpc,
    route_table_pb2_grpc,
    rule_pb2_grpc,
    status_pb2,
    v_service_pb2_grpc,
)
from gateway import app
from services.nsmanager import servicer as nsmanager
from services.proxy import servicer as proxy
from tests import absent

WITHIN_S = 20.0
# Events that nsmanager keeps of what it tells by itself: soon too few for who does not read.
KEPT = 128


@dataclass(frozen=True, slots=True)
class Stage:
    member: etcd.Member
    backend: EtcdStore
    snapshot: Cache
    channel: aio.Channel
    owners: dict[str, rpc.Server]
    registries: dict[str, Registry]
    # What nsmanager tells by itself.
    chronicle: Chronicle

    @property
    def config(self) -> "config_pb2_grpc.ConfigAsyncStub":
        return config_pb2_grpc.ConfigStub(self.channel)

    @property
    def events(self) -> "events_pb2_grpc.EventsAsyncStub":
        return events_pb2_grpc.EventsStub(self.channel)

    async def apply(self, *resources: config_pb2.Resource, **options: object) -> list[config_pb2.ApplyResponse]:
        request = config_pb2.ApplyRequest(resources=resources, **options)  # type: ignore[arg-type]
        with rpc.translated():
            return [answer async for answer in self.config.Apply(iter([request]), timeout=WITHIN_S)]

    async def observe(self, name: str, generation: int = 1, state: status_pb2.State.ValueType = status_pb2.STATE_READY) -> None:
        """Every observer of `name` says that it is in `state`."""
        for service in names.OBSERVERS[names.collection(name)]:
            await self.observe_by(service, name, generation, state)

    async def observe_by(self, service: str, name: str, generation: int, state: status_pb2.State.ValueType) -> None:
        message = MESSAGES[names.collection(name)]()
        message.status.observed_generation, message.status.state = generation, state
        await self.backend.commit([], [store.Put(_keys(service).status(name), message.status.SerializeToString())])

    async def clear(self, name: str) -> None:
        """Everybody clears his part, its owner last."""
        await self.backend.commit([], [store.Delete(_keys(service).status(name)) for service in names.SERVICES])
        leader = _keys(names.owner(name)).leader
        await self.backend.commit([], [store.Delete(leader)])
        revision = await self.backend.commit([store.Unchanged(leader, 0)], [store.Put(leader, b"")])
        assert await self.registries[names.collection(name)].remove(name, store.CreatedAt(leader, revision))


def _keys(service: str) -> names.Keys:
    return names.Keys("local", service)


@asynccontextmanager
async def running(directory: Path) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        member = await stack.enter_async_context(etcd.embedded_member(directory / "etcd"))
        backend = await EtcdStore.connect(member.settings)
        stack.push_async_callback(backend.close)
        registries = {
            **nsmanager.registries(backend, _keys("nsmanager")),
            "vServices": proxy.registry(backend, _keys("proxy")),
        }
        chronicle = Chronicle(KEPT)
        owners = {
            process: rpc.Server(f"unix:{directory}/{process}", services, rpc.by_role, lambda: True)
            for process, services in _services(registries, chronicle).items()
        }
        for server in owners.values():
            await server.start()
            stack.push_async_callback(server.stop, 0)
        channels = {process: rpc.channel(f"unix:{directory}/{process}") for process in names.SERVICES}
        for channel in channels.values():
            stack.push_async_callback(channel.close, None)
        snapshot = Cache(backend, _keys("gateway").device_prefix)
        following = asyncio.create_task(snapshot.run())
        stack.callback(following.cancel)
        services = app.build(backend, snapshot, _keys("gateway"), channels)
        who = rpc.Identity("test", "admin")
        gateway = rpc.Server(f"unix:{directory}/g", services, rpc.by_role, lambda: True, identify=lambda _context: who)
        await gateway.start()
        stack.push_async_callback(gateway.stop, 0)
        channel = await stack.enter_async_context(rpc.channel(f"unix:{directory}/g"))
        yield Stage(member, backend, snapshot, channel, owners, registries, chronicle)


def _services(registries: dict[str, Registry], chronicle: Chronicle) -> dict[str, dict[str, rpc.Service]]:
    impacts = nsmanager.Impacts(registries, absent.ask, absent.add_parts)
    tables = nsmanager.RouteTables(registries, absent.statistics(), impacts, absent.Examiner())
    links = nsmanager.Interfaces(registries["interfaces"], impacts, nsmanager.Moves(registries, impacts, absent.ask))
    routes, v_services = nsmanager.Routes(registries["routes"]), proxy.VServices(registries["vServices"])
    return {
        "nsmanager": {
            "crossns.v1.Events": (events_pb2_grpc.add_EventsServicer_to_server, Events(chronicle)),
            "crossns.v1.RouteTables": (route_table_pb2_grpc.add_RouteTablesServicer_to_server, tables),
            "crossns.v1.Interfaces": (interface_pb2_grpc.add_InterfacesServicer_to_server, links),
            "crossns.v1.Routes": (route_pb2_grpc.add_RoutesServicer_to_server, routes),
            "crossns.v1.Rules": (rule_pb2_grpc.add_RulesServicer_to_server, nsmanager.Rules(registries["rules"])),
            "crossns.v1.Neighbors": (
                neighbor_pb2_grpc.add_NeighborsServicer_to_server,
                nsmanager.Neighbors(registries["neighbors"]),
            ),
        },
        "proxy": {"crossns.v1.VServices": (v_service_pb2_grpc.add_VServicesServicer_to_server, v_services)},
    }
