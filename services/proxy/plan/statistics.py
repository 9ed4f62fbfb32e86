"""From what HAProxy counted to what is said about one vService: pure.

`driver.counting` keeps the totals, the servicer asks for them. Invariant: whatever is in the spec is in the answer, with zeros
where HAProxy has nothing of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from google.protobuf import timestamp_pb2

from crossns import names
from crossns.v1 import v_service_pb2
from services.proxy import model, render
from services.proxy.plan.ledger import Counts, Subject, named, pointing


@dataclass(frozen=True, slots=True)
class Totals:
    """`since`: seconds of the epoch from which on everything is counted, None where HAProxy has not been seen."""

    since: float | None = None
    counts: Mapping[Subject, Counts] = field(default_factory=dict)

    def of(self, subject: Subject) -> Counts:
        return self.counts.get(subject, Counts())


def sections(vservice: model.VService) -> tuple[str, ...]:
    """All sections of HAProxy's file that may be the vService's."""
    frontends = [render.frontend_section(vservice.name, each.name) for each in vservice.frontends]
    return (*frontends, *(render.backend_section(vservice.name, each.name) for each in vservice.pools))


def statistics(vservice: model.VService, totals: Totals) -> v_service_pb2.VServiceStatistics:
    """In the order of the spec."""
    result = v_service_pb2.VServiceStatistics(
        name=vservice.name,
        frontends=[_frontend(vservice, each, totals) for each in vservice.frontends],
        pools=[_pool(vservice, each, totals) for each in vservice.pools],
        members=[_member(vservice, pool, each, totals) for pool in vservice.pools for each in pool.members],
    )
    if totals.since is not None:
        result.counted_since.CopyFrom(timestamp_pb2.Timestamp(seconds=int(totals.since)))
    return result


def _frontend(vservice: model.VService, frontend: model.Frontend, totals: Totals) -> v_service_pb2.FrontendStatistics:
    counts = totals.of(Subject(render.frontend_section(vservice.name, frontend.name)))
    return v_service_pb2.FrontendStatistics(
        name=frontend.name,
        route_table=frontend.table,
        traffic=_traffic(counts),
        denied_total=counts.denied,
        request_errors_total=counts.request_errors,
        requests_total=counts.requests if vservice.protocol == "http" else 0,
        responses=_responses(vservice, counts),
    )


def _pool(vservice: model.VService, pool: model.Pool, totals: Totals) -> v_service_pb2.PoolStatistics:
    counts = totals.of(Subject(render.backend_section(vservice.name, pool.name)))
    return v_service_pb2.PoolStatistics(
        name=pool.name,
        traffic=_traffic(counts),
        queued=counts.queued,
        connect_errors_total=counts.connect_errors,
        responses=_responses(vservice, counts),
    )


def _member(vservice: model.VService, pool: model.Pool, member: model.Member, totals: Totals) -> v_service_pb2.MemberStatistics:
    """What the line of its name counted, and what a spare line did that pointed to it."""
    section = render.backend_section(vservice.name, pool.name)
    table = names.resource_id(member.table)
    own, spare = named(section, table, member.name), pointing(section, table, member.socket)
    counts = totals.of(own).plus(totals.of(spare))
    return v_service_pb2.MemberStatistics(
        name=f"{pool.name}/{member.name}",
        route_table=member.table,
        traffic=_traffic(counts),
        queued=counts.queued,
        connect_errors_total=counts.connect_errors,
        retries_total=counts.retries,
        responses=_responses(vservice, counts),
    )


def _traffic(counts: Counts) -> v_service_pb2.Traffic:
    return v_service_pb2.Traffic(
        connections=counts.connections,
        connections_total=counts.connections_total,
        received_bytes_total=counts.received_bytes,
        sent_bytes_total=counts.sent_bytes,
    )


def _responses(vservice: model.VService, counts: Counts) -> v_service_pb2.HttpResponses | None:
    if vservice.protocol != "http":
        return None
    return v_service_pb2.HttpResponses(
        informational_total=counts.informational,
        successful_total=counts.successful,
        redirection_total=counts.redirection,
        client_error_total=counts.client_error,
        server_error_total=counts.server_error,
    )
