"""The proxy, wired: servicer, world, plan and driver on one store and one loop."""

import os

from crossns.reconcile import Reconciler, Rooms
from crossns.service import App, Context
from crossns.v1 import v_service_pb2_grpc
from services.proxy import driver, model, plan, servicer, settings


async def build(context: Context) -> App:
    registry = servicer.registry(context.backend, context.keys)
    device = driver.Device(
        context.settings.layout,
        context.token,
        settings.from_environ(os.environ),
        on_change=lambda unit: loop.trigger(unit),  # noqa: PLW0108 - there is no loop yet
    )
    rooms = Rooms(model.World(context.keys), plan.plan, plan.report, device)
    loop = Reconciler(rooms, context.backend, context.snapshot, context.keys, context.fence, {model.COLLECTION: registry})
    services = {
        "crossns.v1.VServices": (v_service_pb2_grpc.add_VServicesServicer_to_server, servicer.VServices(registry)),
    }
    return App(services, (loop.run,))
