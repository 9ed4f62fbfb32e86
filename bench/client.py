"""What a client asks of the gateway about route tables, and how long it takes: create until READY, delete until gone.

Called by `bench.ground` and `bench.tables`. Everything made here carries a label of its area, by which it is found and deleted.
"""

import asyncio
import time
from collections.abc import Awaitable, Mapping

from grpc import aio

from crossns import rpc
from crossns.layout import Layout
from crossns.v1 import config_pb2, config_pb2_grpc, route_table_pb2, route_table_pb2_grpc

# Of a connection to a gRPC server.
Channel = aio.Channel
GATEWAY = f"unix:{Layout().gateway_socket}"
# How long anything may take before the run is given up.
DEADLINE_S = 60.0


async def timed_ms(work: Awaitable[object]) -> float:
    begun = time.perf_counter()
    await work
    return (time.perf_counter() - begun) * 1e3


async def wait(gateway: Channel, *names: str, deleted: bool = False) -> None:
    """Until all are READY, or gone."""
    targets = [config_pb2.WaitTarget(name=name, deleted=deleted) for name in names]
    with rpc.translated():
        async for _ in config_pb2_grpc.ConfigStub(gateway).Wait(config_pb2.WaitRequest(targets=targets), timeout=DEADLINE_S):
            pass


async def create(gateway: Channel, table: str, labels: Mapping[str, str]) -> None:
    """Until the table is READY."""
    request = route_table_pb2.CreateRouteTableRequest(route_table_id=table, route_table=route_table_pb2.RouteTable(labels=labels))
    with rpc.translated():
        created = await route_table_pb2_grpc.RouteTablesStub(gateway).CreateRouteTable(request, timeout=DEADLINE_S)
    await wait(gateway, created.name)


async def delete(gateway: Channel, *tables: str) -> None:
    """Ask for all at once, and until all are gone."""
    stub = route_table_pb2_grpc.RouteTablesStub(gateway)
    names = [f"routeTables/{table}" for table in tables]
    requests = [route_table_pb2.DeleteRouteTableRequest(name=name) for name in names]
    with rpc.translated():
        await asyncio.gather(*(stub.DeleteRouteTable(request, timeout=DEADLINE_S) for request in requests))
    await wait(gateway, *names, deleted=True)


async def delete_all(gateway: Channel, labels: Mapping[str, str]) -> None:
    """Delete everything that carries `labels`, until it is gone."""
    apply = config_pb2_grpc.ConfigStub(gateway).Apply
    with rpc.translated():
        deleted = [
            answer.name
            async for answer in apply(iter([config_pb2.ApplyRequest(prune_labels=labels)]), timeout=DEADLINE_S)
            if answer.action == config_pb2.ACTION_DELETE
        ]
    await wait(gateway, *deleted, deleted=True)
