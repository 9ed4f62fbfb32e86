"""The proxy's part of an impact: which frontends and members go by links that leave, or come to lie behind them.

Pure. Called by the servicer. By which link a member is reached is the kernel's answer, asked before.
"""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping

from crossns.v1 import impact_pb2
from services.proxy.model import Address, Desired, Pool, VService, socket

_INFO, _WARNING, _CRITICAL = (
    impact_pb2.IMPACT_SEVERITY_INFO,
    impact_pb2.IMPACT_SEVERITY_WARNING,
    impact_pb2.IMPACT_SEVERITY_CRITICAL,
)
_FRONTEND, _MEMBER = impact_pb2.IMPACT_KIND_FRONTEND, impact_pb2.IMPACT_KIND_MEMBER


def members_in(desired: Desired, table: str) -> tuple[str, ...]:
    """The addresses of all members in a route table, each once."""
    found = {
        str(member.address)
        for vservice in desired.services
        for pool in vservice.pools
        for member in pool.members
        if member.table == table and member.state != "disabled"
    }
    return tuple(sorted(found))


def part(desired: Desired, asked: impact_pb2.AnalyzePartRequest, ways: Mapping[str, str]) -> list[impact_pb2.ImpactItem]:
    """`ways`: by which link each member of the route table is reached."""
    found = [item for vservice in desired.services for item in _of(vservice, asked, ways)]
    return sorted(found, key=lambda item: (item.resource, item.kind, item.object))


def _of(vservice: VService, asked: impact_pb2.AnalyzePartRequest, ways: Mapping[str, str]) -> Iterator[impact_pb2.ImpactItem]:
    for frontend in vservice.frontends:
        end = socket(frontend.address, frontend.port)
        if frontend.table == asked.route_table and _is_within(frontend.address, asked.addresses):
            message = f"clients that come in by {', '.join(asked.links)} reach the frontend {frontend.name} no more"
            yield _item(_FRONTEND, vservice, asked.route_table, end, (_WARNING, message))
        elif frontend.table == asked.target and _is_within(frontend.address, asked.kept_addresses):
            message = f"the frontend {frontend.name} lies in a subnet of the link that comes"
            yield _item(_FRONTEND, vservice, asked.target, end, (_INFO, message))
    for pool in vservice.pools:
        yield from _of_pool(vservice, pool, asked, ways)


def _of_pool(
    vservice: VService, pool: Pool, asked: impact_pb2.AnalyzePartRequest, ways: Mapping[str, str]
) -> Iterator[impact_pb2.ImpactItem]:
    able = [member for member in pool.members if member.state != "disabled"]
    cut = {
        member.name: ways[str(member.address)]
        for member in able
        if member.table == asked.route_table and ways.get(str(member.address), "") in asked.links
    }
    for member in able:
        name, end = f"{pool.name}/{member.name}", socket(member.address, member.port)
        if member.name in cut:
            is_last = len(cut) == len(able)
            message = f"{name} is reached by {cut[member.name]}, by clients' connections and by its check"
            meaning = (_CRITICAL, f"{message}; no member of the pool is left") if is_last else (_WARNING, message)
            yield _item(_MEMBER, vservice, asked.route_table, end, meaning)
        elif member.table == asked.target and _is_within(member.address, asked.kept_addresses):
            message = f"{name} lies in a subnet of the link that comes"
            yield _item(_MEMBER, vservice, asked.target, end, (_INFO, message))


def _is_within(address: Address, prefixes: Iterable[str]) -> bool:
    return any(address in ipaddress.ip_interface(prefix).network for prefix in prefixes)


def _item(
    kind: impact_pb2.ImpactKind.ValueType,
    vservice: VService,
    table: str,
    end: str,
    meaning: tuple[impact_pb2.ImpactSeverity.ValueType, str],
) -> impact_pb2.ImpactItem:
    is_cut = meaning[0] != _INFO
    return impact_pb2.ImpactItem(
        kind=kind,
        change=impact_pb2.IMPACT_CHANGE_INTERRUPTED if is_cut else impact_pb2.IMPACT_CHANGE_CHANGED,
        severity=meaning[0],
        route_table=table,
        object=end,
        resource=vservice.name,
        message=meaning[1],
    )
