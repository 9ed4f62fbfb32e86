"""The proxy, wired: servicer, world, plan and driver on one store and one loop."""

from crossns.reconcile import Reconciler, Rooms
from crossns.service import App, Context
from crossns.v1 import impact_pb2_grpc, v_service_pb2_grpc
from services.proxy import driver, model, plan, servicer


async def build(context: Context) -> App:
    registry = servicer.registry(context.backend, context.keys)
    world = model.World(context.keys)

    def wake(unit: str = model.UNIT) -> None:
        loop.trigger(unit)

    async def end(pids: tuple[int, ...]) -> None:
        await device.end_workers(pids)

    layout = context.settings.layout
    counting, access_log = driver.Counting(layout), driver.AccessLog(layout)
    checker = driver.Checker(layout, context.token, world.targets, wake)
    retirement = driver.Retirement(layout, end, counting)
    beside = driver.Beside(lambda: checker.down, lambda: checker.unknown, retirement.shut, retirement.wake, wake)
    device = driver.Device(layout, context.token, beside)
    rooms = Rooms(world, plan.plan, plan.report, device)
    loop = Reconciler(rooms, context.backend, context.snapshot, context.keys, context.fence, {model.COLLECTION: registry})
    services = {
        "crossns.v1.VServices": (v_service_pb2_grpc.add_VServicesServicer_to_server, servicer.VServices(registry, counting.read)),
    }
    peers = {
        "crossns.v1.ImpactParts": (
            impact_pb2_grpc.add_ImpactPartsServicer_to_server,
            servicer.ImpactParts(lambda: world.desired(model.UNIT), checker.ways),
        )
    }
    return App(services, (loop.run, device.run, checker.run, retirement.run, access_log.run), peers)
