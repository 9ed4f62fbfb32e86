"""From what an agent or the launcher told of a route table to events of the API: pure.

The driver's callbacks are wired to it. What an agent had no room for is told by kind; what an agent that died had not told yet is
told as missed when its successor is there.
"""

from collections.abc import Iterator

from google.protobuf import timestamp_pb2

from crossns import kernel, operation
from crossns.v1 import events_pb2

_KINDS = {
    "link": events_pb2.EVENT_KIND_LINK,
    "address": events_pb2.EVENT_KIND_ADDRESS,
    "route": events_pb2.EVENT_KIND_ROUTE,
    "neighbor": events_pb2.EVENT_KIND_NEIGHBOR,
}
Told = kernel.News | operation.AgentStarted | operation.AgentExited


def events(table: str, told: Told, time_ns: int) -> Iterator[events_pb2.Event]:
    """`table` by its id; `time_ns` is now, for what does not say itself when it was."""
    name = f"routeTables/{table}"
    now = _time(time_ns)
    if isinstance(told, kernel.News):
        for item in told.items:
            yield _change(name, item) if isinstance(item, kernel.Change) else _missed(name, item, now)
        return
    is_start = isinstance(told, operation.AgentStarted)
    restarts = told.restarts if isinstance(told, operation.AgentStarted) else 0
    yield events_pb2.Event(
        type=events_pb2.EVENT_TYPE_STARTED if is_start else events_pb2.EVENT_TYPE_STOPPED,
        kind=events_pb2.EVENT_KIND_AGENT,
        name=name,
        service="nsmanager",
        time=now,
        route_tables=[name],
        agent=events_pb2.AgentChange(pid=told.pid, restarts=restarts),
    )
    if restarts:
        gap = events_pb2.Missed(message="the table's agent was started anew: look at what there is")
        yield _event(name, now, type=events_pb2.EVENT_TYPE_MISSED, missed=gap)


def _time(time_ns: int) -> timestamp_pb2.Timestamp:
    return timestamp_pb2.Timestamp(seconds=time_ns // 10**9, nanos=time_ns % 10**9)


def _event(name: str, time: timestamp_pb2.Timestamp, **fields: object) -> events_pb2.Event:
    return events_pb2.Event(service="nsmanager", time=time, route_tables=[name], **fields)  # type: ignore[arg-type] # by name


def _missed(name: str, missed: kernel.Missed, now: timestamp_pb2.Timestamp) -> events_pb2.Event:
    gap = events_pb2.Missed(count=missed.count, message="more happened than can be told: look at what there is")
    kind = _KINDS[missed.kind] if missed.kind else events_pb2.EVENT_KIND_UNSPECIFIED
    return _event(name, now, type=events_pb2.EVENT_TYPE_MISSED, kind=kind, missed=gap)


def _change(name: str, change: kernel.Change) -> events_pb2.Event:
    kind = events_pb2.EVENT_TYPE_DELETED if change.gone else events_pb2.EVENT_TYPE_UPDATED
    time = _time(change.time_ns)
    match change.subject:
        case kernel.Link() as link:
            return _event(name, time, type=kind, kind=_KINDS["link"], link=_link(link))
        case kernel.Address() as address:
            shown = events_pb2.AddressChange(link=address.link, prefix=address.prefix)
            return _event(name, time, type=kind, kind=_KINDS["address"], address=shown)
        case kernel.Route() as route:
            return _event(name, time, type=kind, kind=_KINDS["route"], route=_route(route))
        case kernel.Neighbor() as known:
            seen = events_pb2.NeighborChange(link=known.link, address=known.address, mac_address=known.mac, state=known.state)
            return _event(name, time, type=kind, kind=_KINDS["neighbor"], neighbor=seen)


def _link(link: kernel.Link) -> events_pb2.LinkChange:
    return events_pb2.LinkChange(
        link=link.name,
        interface=link.mark.replace(".", "/", 1),
        link_kind=link.kind,
        mac_address=link.mac,
        mtu=link.mtu,
        up=link.up,
        carrier=link.carrier,
        master=link.master,
    )


def _route(route: kernel.Route) -> events_pb2.RouteChange:
    return events_pb2.RouteChange(
        destination=route.destination,
        kernel_table=route.kernel_table,
        metric=route.metric,
        route_type=route.kind,
        gateways=[hop.gateway for hop in route.next_hops if hop.gateway],
        links=[hop.link for hop in route.next_hops],
    )
