"""A vService with two pools, and what may be observed of it: what the tests of `crossns service` look at and change."""

from typing import Any

from crossns.cli import part
from crossns.v1 import status_pb2, v_service_pb2

READY, PENDING, ERROR = status_pb2.STATE_READY, status_pb2.STATE_PENDING, status_pb2.STATE_ERROR
ENABLED, DRAIN = v_service_pb2.MEMBER_STATE_ENABLED, v_service_pb2.MEMBER_STATE_DRAIN
DISABLED, UNSAID = v_service_pb2.MEMBER_STATE_DISABLED, v_service_pb2.MEMBER_STATE_UNSPECIFIED


def web() -> v_service_pb2.VService:
    """Two pools that both have a member `a`; the frontend `office` names no pool of its own."""
    service = v_service_pb2.VService(name="vServices/web", etag="1", generation=1)
    spec = service.spec
    spec.protocol = v_service_pb2.PROTOCOL_HTTP
    spec.frontends.add(name="dmz", route_table="routeTables/dmz", address="203.0.113.10", port=80, pool="main")
    spec.frontends.add(name="office", route_table="routeTables/office", address="2001:db8::10", port=8000, end_port=8099)
    main, spare = spec.pools.add(name="main"), spec.pools.add(name="spare", algorithm=v_service_pb2.ALGORITHM_SOURCE_HASH)
    main.members.add(name="a", route_table="routeTables/a", address="10.0.0.5", port=8080)
    main.members.add(name="b", route_table="routeTables/b", address="10.0.0.5", port=8080, weight=3)
    spare.members.add(name="a", route_table="routeTables/a", address="fd00::5")
    observe(service)
    return service


def observe(service: v_service_pb2.VService, **states: Any) -> None:
    """All is READY, but for what `states` say by `pool_member`."""
    service.status.Clear()
    service.status.observed_generation = service.generation
    service.status.state = READY
    for front in service.spec.frontends:
        for observer in ("proxy", "nsmanager"):
            service.status.frontends.add(name=front.name, state=READY, reason="OK", service=observer)
    for name, _ in part.members(service):
        state, reason, message = states.get(name.replace("/", "_"), (READY, "OK", ""))
        told = {"state": state, "reason": reason, "message": message, "service": "proxy"}
        service.status.members.add(name=name, observed_generation=service.generation, **told)


DOWN = (ERROR, "MEMBER_DOWN", "does not accept connections")
REFUSED = (ERROR, "ENGINE_REFUSED", "left out")
COMING = (PENDING, "IN_PROGRESS", "not yet")


def states(service: v_service_pb2.VService) -> dict[str, str]:
    return {name: part.word(part.wanted(each)) for name, each in part.members(service)}
