"""One vService on one screen: what is wanted and observed of each part beside what HAProxy has counted of it.

Called by `service show`, and by `member` for how many connections a member has. Where nothing is counted, everything else is
shown all the same. Pure but for `ask`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from crossns import errors
from crossns.cli import columns, part, render
from crossns.cli.client import Client
from crossns.v1 import status_pb2, v_service_pb2, v_service_pb2_grpc

_TRAFFIC = ("NOW", "TOTAL", "IN", "OUT")
_CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx")
_NUMBERS = frozenset((*_TRAFFIC, *_CLASSES, "DENIED", "QUEUED", "ERRORS", "WEIGHT", "REQUESTS", "BAD"))
_UNKNOWN = "-"
_STATES = {"DRAIN": "yellow", "DISABLED": "red"}
_ALGORITHMS = {v_service_pb2.ALGORITHM_UNSPECIFIED: "round robin"}

Counted = v_service_pb2.FrontendStatistics | v_service_pb2.PoolStatistics | v_service_pb2.MemberStatistics


@dataclass(frozen=True, slots=True)
class _Counts:
    """By name. A part that is not counted has none."""

    frontends: Mapping[str, v_service_pb2.FrontendStatistics] = field(default_factory=dict)
    pools: Mapping[str, v_service_pb2.PoolStatistics] = field(default_factory=dict)
    members: Mapping[str, v_service_pb2.MemberStatistics] = field(default_factory=dict)


async def ask(api: Client, name: str) -> tuple[v_service_pb2.VServiceStatistics | None, str]:
    """What is counted of a vService; None, and why, where that cannot be told at present."""
    stub = v_service_pb2_grpc.VServicesStub(api.channel)
    try:
        return await api.call(stub.GetVServiceStatistics, v_service_pb2.GetVServiceStatisticsRequest(name=name)), ""
    except errors.DeadlineExceeded:
        raise
    except (errors.TemporaryError, errors.Unimplemented) as error:
        return None, error.message


def screen(service: v_service_pb2.VService, counted: v_service_pb2.VServiceStatistics | None, why: str) -> str:
    """The whole screen. `why` nothing is counted, where `counted` is None."""
    counts = _Counts() if counted is None else _by_name(counted)
    sections = [
        _head(service, counted, why),
        _section("frontends", _frontends(service, counts)),
        _section("pools", _pools(service, counts)),
        _section("members", _members(service, counts)),
    ]
    if service.spec.protocol == v_service_pb2.PROTOCOL_HTTP:
        sections.append(_section("requests and answers", _http(service, counts)))
    unmet = [each for each in service.status.conditions if each.status != status_pb2.CONDITION_STATUS_TRUE]
    if unmet:
        rows = [[each.type, each.service, each.reason, each.message] for each in unmet]
        sections.append(_section("not as wanted", columns.aligned([["CONDITION", "SERVICE", "REASON", ""], *rows])))
    return "\n".join(sections)


def plain(service: v_service_pb2.VService, counted: v_service_pb2.VServiceStatistics | None) -> dict[str, Any]:
    """For scripts: the resource as `get` prints it, and what is counted, zeros too; None where nothing is."""
    return {"vService": render.to_plain(service), "statistics": None if counted is None else render.with_zeros(counted)}


def connections(counted: v_service_pb2.VServiceStatistics, chosen: Sequence[str]) -> int:
    """How many connections the chosen members have together."""
    return sum(each.traffic.connections for each in counted.members if each.name in chosen)


def size(count_bytes: int) -> str:
    """`0 B`, `1.5 KiB`, `23.0 GiB`."""
    value, unit = float(count_bytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        # What would be rounded to 1024.0 is one of the next.
        if value < 1023.95:
            break
        value, unit = value / 1024, larger
    return f"{count_bytes} B" if unit == "B" else f"{value:,.1f} {unit}"


def _by_name(counted: v_service_pb2.VServiceStatistics) -> _Counts:
    return _Counts(
        {each.name: each for each in counted.frontends},
        {each.name: each for each in counted.pools},
        {each.name: each for each in counted.members},
    )


def _head(service: v_service_pb2.VService, counted: v_service_pb2.VServiceStatistics | None, why: str) -> str:
    title = [click.style(service.name, bold=True), columns.state(service.status.state), columns.protocol(service)]
    lines = ["  ".join(filter(None, title))]
    lines.append(f"  generation {service.generation}, observed {service.status.observed_generation}, etag {service.etag}")
    if counted is None:
        lines.append(click.style(f"  nothing is counted at present: {why}", fg="yellow"))
    elif counted.HasField("counted_since"):
        lines.append(f"  totals since {columns.time(counted.counted_since)} UTC")
    return "\n".join(lines)


def _section(title: str, text: str) -> str:
    return click.style(f"{title}:", bold=True) + "".join(f"\n  {line}" for line in text.splitlines())


def _frontends(service: v_service_pb2.VService, counts: _Counts) -> str:
    rows = [["NAME", "LISTENS ON", "POOL", "STATE", *_TRAFFIC, "DENIED", ""]]
    for front in service.spec.frontends:
        state, why = part.observed(front.name, service.status.frontends)
        counted = counts.frontends.get(front.name)
        told = [columns.endpoint(front), part.pool_of(service, front), columns.state(state)]
        rows.append([front.name, *told, *_traffic(counted), _number(counted and counted.denied_total), why])
    return columns.aligned(rows, _NUMBERS)


def _pools(service: v_service_pb2.VService, counts: _Counts) -> str:
    rows = [["NAME", "ALGORITHM", "SERVING", *_TRAFFIC, "QUEUED", "ERRORS"]]
    serving = part.serving(service)
    for pool in service.spec.pools:
        counted = counts.pools.get(pool.name)
        served = sum(f"{pool.name}/{member.name}" in serving for member in pool.members)
        numbers = [_number(counted and counted.queued), _number(counted and counted.connect_errors_total)]
        rows.append([pool.name, _algorithm(pool), f"{served}/{len(pool.members)}", *_traffic(counted), *numbers])
    return columns.aligned(rows, _NUMBERS)


def _members(service: v_service_pb2.VService, counts: _Counts) -> str:
    rows = [["NAME", "ADDRESS", "WEIGHT", "WANTED", "STATE", *_TRAFFIC, "ERRORS", ""]]
    for name, member in part.members(service):
        state, why = part.observed(name, service.status.members)
        counted = counts.members.get(name)
        wanted = part.word(part.wanted(member))
        told = [columns.endpoint(member), str(member.weight or 1), click.style(wanted, fg=_STATES.get(wanted))]
        failed = _number(counted and counted.connect_errors_total)
        rows.append([name, *told, columns.state(state), *_traffic(counted), failed, why])
    return columns.aligned(rows, _NUMBERS)


def _http(service: v_service_pb2.VService, counts: _Counts) -> str:
    rows = [["PART", "REQUESTS", *_CLASSES, "BAD"]]
    for front in service.spec.frontends:
        counted = counts.frontends.get(front.name)
        requests, bad = _number(counted and counted.requests_total), _number(counted and counted.request_errors_total)
        rows.append([f"frontend {front.name}", requests, *_answers(counted), bad])
    # Of these only the answers are counted.
    rows += [[f"pool {pool.name}", "", *_answers(counts.pools.get(pool.name)), ""] for pool in service.spec.pools]
    rows += [[f"member {name}", "", *_answers(counts.members.get(name)), ""] for name, _ in part.members(service)]
    return columns.aligned(rows, _NUMBERS)


def _traffic(counted: Counted | None) -> list[str]:
    if counted is None:
        return [_UNKNOWN] * len(_TRAFFIC)
    traffic = counted.traffic
    numbers = [_number(traffic.connections), _number(traffic.connections_total)]
    return [*numbers, size(traffic.received_bytes_total), size(traffic.sent_bytes_total)]


def _answers(counted: Counted | None) -> list[str]:
    if counted is None:
        return [_UNKNOWN] * len(_CLASSES)
    by_class = counted.responses
    return [
        _number(by_class.informational_total),
        _number(by_class.successful_total),
        _number(by_class.redirection_total),
        _number(by_class.client_error_total),
        _number(by_class.server_error_total),
    ]


def _number(count: int | None) -> str:
    return _UNKNOWN if count is None else f"{count:,}"


def _algorithm(pool: v_service_pb2.Pool) -> str:
    name = v_service_pb2.Algorithm.Name(pool.algorithm).removeprefix("ALGORITHM_")
    return _ALGORITHMS.get(pool.algorithm) or name.lower().replace("_", " ")
