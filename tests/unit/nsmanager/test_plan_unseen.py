"""A table whose agent cannot be asked: what is planned, and what is said."""

import msgspec

from crossns import errors, operation
from crossns.v1 import route_table_pb2, status_pb2
from services.nsmanager import plan
from tests.unit.nsmanager.test_plan import LAN, Bench, bench

__all__ = ["bench"]


def test_table_that_cannot_be_seen_says_so_and_nothing_else_of_it_is_spoken_of(bench: Bench) -> None:
    bench.put("interfaces/a-lan", LAN)
    bench.settle("a")
    said = bench.parts["routeTables/a"]
    assert isinstance(said, route_table_pb2.RouteTableStatus)
    seen = bench.device.observe("a")
    assert seen.namespace is not None
    unseen = plan.Observed(msgspec.structs.replace(seen.namespace, agent_restarts=7))
    desired = bench.world.desired("routeTables/a")
    assert plan.plan(desired, unseen) == (plan.At("routeTables/a", "a", operation.Dump()),)
    failure = errors.AgentUnavailable("AGENT_UNAVAILABLE", "the agent is not reached")
    report = plan.report(desired, unseen, {"routeTables/a": failure}, bench.parts)
    assert list(report) == ["routeTables/a"]
    status = report["routeTables/a"]
    assert isinstance(status, route_table_pb2.RouteTableStatus)
    assert (status.state, status.agent_restarts, status.identity) == (status_pb2.STATE_DEGRADED, 7, said.identity)
    assert [(each.type, each.reason) for each in status.conditions] == [("Present", "OK"), ("Observed", "AGENT_UNAVAILABLE")]
    # It is not said twice.
    again = plan.report(desired, unseen, {"routeTables/a": failure}, {"routeTables/a": status})["routeTables/a"]
    assert again == status
    # What nobody wants has no status.
    bench.put("routeTables/a", None)
    assert plan.report(bench.world.desired("routeTables/a"), unseen, {"routeTables/a": failure}, {}) == {}
