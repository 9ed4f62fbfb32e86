"""nsmanager, wired: servicers, world, plan and driver on one store and one loop."""

import time

from crossns import impact_part, operation, parts, rpc
from crossns.chronicle import Chronicle, Events
from crossns.reconcile import Reconciler, Rooms
from crossns.service import App, Context
from crossns.v1 import events_pb2_grpc, interface_pb2_grpc, neighbor_pb2_grpc, route_pb2_grpc, route_table_pb2_grpc, rule_pb2_grpc
from services.nsmanager import driver, model, plan, servicer
from services.nsmanager.plan import isolation


async def build(context: Context) -> App:
    registries = servicer.registries(context.backend, context.keys)
    chronicle = Chronicle()
    device = driver.Device(
        context.settings.layout,
        context.token,
        on_change=lambda unit: loop.trigger(unit),  # noqa: PLW0108 - there is no loop yet
        on_links=lambda: loop.trigger_unsettled(),  # noqa: PLW0108
        on_news=lambda table, told: hear(table, told),  # noqa: PLW0108
        macs=plan.macs(parts.load(context.snapshot.below(context.keys.status("")), context.keys)),
    )
    world = model.World(context.keys)
    rooms = Rooms(world, plan.plan, plan.report, device)
    loop = Reconciler(rooms, context.backend, context.snapshot, context.keys, context.fence, registries)
    standings = model.Standings(context.keys)
    telling = Rooms(standings, plan.standings, lambda *_: {}, driver.Standings(device))
    tellers = Reconciler(telling, context.backend, context.snapshot, context.keys, context.fence, {})

    def hear(table: str, told: plan.Told) -> None:
        chronicle.publish(plan.events(table, told, time.time_ns()))
        # A new agent knows of no vService; where none stands in its table, that is as it should be.
        if isinstance(told, operation.AgentStarted) and standings.desired(unit := f"routeTables/{table}").standings:
            tellers.trigger(unit)

    impacts = servicer.Impacts(registries, device.ask, impact_part.Parts(context.settings.layout, context.keys.service).add)
    examiner = driver.Examiner(device, lambda: isolation.declared(world.links))
    tables = servicer.RouteTables(registries, servicer.Statistics(device, world.units), impacts, examiner)
    await tables.ensure_built_in()
    moves = servicer.Moves(registries, impacts, device.ask)
    services: dict[str, rpc.Service] = {
        "crossns.v1.Events": (events_pb2_grpc.add_EventsServicer_to_server, Events(chronicle)),
        "crossns.v1.RouteTables": (route_table_pb2_grpc.add_RouteTablesServicer_to_server, tables),
        "crossns.v1.Interfaces": (
            interface_pb2_grpc.add_InterfacesServicer_to_server,
            servicer.Interfaces(registries["interfaces"], impacts, moves),
        ),
        "crossns.v1.Routes": (route_pb2_grpc.add_RoutesServicer_to_server, servicer.Routes(registries["routes"])),
        "crossns.v1.Rules": (rule_pb2_grpc.add_RulesServicer_to_server, servicer.Rules(registries["rules"])),
        "crossns.v1.Neighbors": (
            neighbor_pb2_grpc.add_NeighborsServicer_to_server,
            servicer.Neighbors(registries["neighbors"]),
        ),
    }
    return App(services, (device.run, loop.run, moves.run, tellers.run))
