"""From messages to values: every bound of v_service.proto, each with the path of the field and what to give instead."""

from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

from crossns import errors, names
from crossns.v1 import v_service_pb2
from services.proxy.model import field as fields
from services.proxy.model.values import (
    COLLECTION,
    PORT_MAX,
    WEIGHT_MAX,
    Algorithm,
    Frontend,
    Limits,
    Member,
    MemberState,
    Pool,
    Protocol,
    Timeouts,
    VService,
    socket,
)

FRONTENDS_MAX = 64
POOLS_MAX = 64
MEMBERS_MAX = 256
PORTS_MAX = 1024
LIMIT_MAX = 1_000_000
# In the order of their numbers in the protos.
_PROTOCOLS: dict[str, Protocol] = {"PROTOCOL_TCP": "tcp", "PROTOCOL_HTTP": "http"}
_DATAPATHS = {"DATAPATH_PROXY": None}
_ALGORITHMS: dict[str, Algorithm] = {
    "ALGORITHM_ROUND_ROBIN": "round robin",
    "ALGORITHM_LEAST_CONNECTIONS": "least connections",
    "ALGORITHM_SOURCE_HASH": "source hash",
    "ALGORITHM_RANDOM": "random",
    "ALGORITHM_FIRST": "first",
}
_PROXY_PROTOCOLS: dict[str, Literal[1, 2]] = {"PROXY_PROTOCOL_V1": 1, "PROXY_PROTOCOL_V2": 2}
_STATES: dict[str, MemberState] = {
    "MEMBER_STATE_ENABLED": "enabled",
    "MEMBER_STATE_DRAIN": "drain",
    "MEMBER_STATE_DISABLED": "disabled",
}
# They end what only HTTP has.
_HTTP_ONLY = ("http_request", "http_keep_alive")

_Message = TypeVar("_Message")
_Part = TypeVar("_Part", Frontend, Pool, Member)


def v_service(message: v_service_pb2.VService) -> VService:
    """The value of `message`; InvalidSpec names the first field that is wrong."""
    names.check(message.name, COLLECTION, "name")
    spec = message.spec
    if not spec.protocol:
        raise fields.required("spec.protocol", f"one of {', '.join(_PROTOCOLS)}")
    protocol = fields.choice(spec.protocol, _PROTOCOLS, "spec.protocol", "PROTOCOL_TCP")
    fields.choice(spec.datapath, _DATAPATHS, "spec.datapath", "DATAPATH_PROXY")
    pools = _parse_each(spec.pools, "spec.pools", POOLS_MAX, _parse_pool)

    def parse_frontend(frontend: v_service_pb2.Frontend, field: str) -> Frontend:
        return _parse_frontend(frontend, field, [pool.name for pool in pools])

    frontends = _parse_each(spec.frontends, "spec.frontends", FRONTENDS_MAX, parse_frontend)
    _check_ports(frontends)
    _check_sockets(frontends)
    return VService(
        name=message.name,
        frontends=frontends,
        pools=pools,
        generation=message.generation,
        protocol=protocol,
        timeouts=_parse_timeouts(spec.timeouts, protocol),
        access_log=spec.access_log,
        # Not by ToNanoseconds: what a client says here is not heard, so it need be no time.
        created_ns=message.create_time.seconds * 10**9 + message.create_time.nanos,
    )


def _parse_frontend(message: v_service_pb2.Frontend, field: str, pools: Sequence[str]) -> Frontend:
    port = fields.port(message.port, f"{field}.port")
    return Frontend(
        name=names.check_id(message.name, f"{field}.name"),
        table=names.check(message.route_table, "routeTables", f"{field}.route_table"),
        address=fields.address(message.address, f"{field}.address"),
        port=port,
        pool=_parse_pool_choice(message.pool, f"{field}.pool", pools),
        end_port=_parse_end_port(message.end_port, f"{field}.end_port", port),
        accept_proxy=message.accept_proxy_protocol,
        limits=_parse_limits(message.limits, f"{field}.limits"),
    )


def _parse_end_port(end_port: int, field: str, port: int) -> int:
    last = min(port + PORTS_MAX - 1, PORT_MAX)
    if end_port and not port <= end_port <= last:
        raise errors.InvalidSpec(field, f"{end_port} does not end a range from {port}: give {port}..{last}", value=end_port)
    return end_port or port


def _parse_limits(message: v_service_pb2.FrontendLimits, field: str) -> Limits:
    return Limits(
        fields.whole(message.max_connections, f"{field}.max_connections", LIMIT_MAX),
        fields.whole(message.max_connections_per_client, f"{field}.max_connections_per_client", LIMIT_MAX),
        fields.whole(message.max_connection_rate, f"{field}.max_connection_rate", LIMIT_MAX),
    )


def _parse_pool(message: v_service_pb2.Pool, field: str) -> Pool:
    name = names.check_id(message.name, f"{field}.name")
    algorithm = fields.choice(message.algorithm, _ALGORITHMS, f"{field}.algorithm", "ALGORITHM_ROUND_ROBIN")
    send_proxy: Literal[0, 1, 2] = 0
    if message.proxy_protocol:
        send_proxy = fields.choice(message.proxy_protocol, _PROXY_PROTOCOLS, f"{field}.proxy_protocol", "PROXY_PROTOCOL_V2")
    members = _parse_each(message.members, f"{field}.members", MEMBERS_MAX, _parse_member)
    _check_members(members, f"{field}.members")
    return Pool(name, members, algorithm, send_proxy)


def _parse_member(message: v_service_pb2.Member, field: str) -> Member:
    return Member(
        name=names.check_id(message.name, f"{field}.name"),
        table=names.check(message.route_table, "routeTables", f"{field}.route_table"),
        address=fields.address(message.address, f"{field}.address"),
        port=fields.whole(message.port, f"{field}.port", PORT_MAX),
        weight=fields.whole(message.weight, f"{field}.weight", WEIGHT_MAX) or 1,
        state=fields.choice(message.state, _STATES, f"{field}.state", "MEMBER_STATE_ENABLED"),
        max_connections=fields.whole(message.max_connections, f"{field}.max_connections", LIMIT_MAX),
    )


def _parse_timeouts(message: v_service_pb2.Timeouts, protocol: Protocol) -> Timeouts:
    given: dict[str, int] = {}
    for descriptor, value in message.ListFields():
        field = f"spec.timeouts.{descriptor.name}"
        if descriptor.name in _HTTP_ONLY and protocol != "http":
            raise errors.InvalidSpec(field, "is of no use but with PROTOCOL_HTTP: leave it out")
        given[f"{descriptor.name}_ms"] = fields.milliseconds(value, field)
    return Timeouts(**given)


def _parse_each(
    messages: Sequence[_Message], field: str, at_most: int, parse_one: Callable[[_Message, str], _Part]
) -> tuple[_Part, ...]:
    """1..`at_most` parts with different names."""
    if not messages:
        raise fields.required(field, f"1..{at_most}")
    if len(messages) > at_most:
        raise errors.InvalidSpec(field, f"{len(messages)} are too many: give at most {at_most}", count=len(messages), max=at_most)
    parts: dict[str, _Part] = {}
    for index, message in enumerate(messages):
        part = parse_one(message, f"{field}[{index}]")
        if part.name in parts:
            where = f"{field}[{list(parts).index(part.name)}]"
            fault = f"{part.name} is the name of {where} already: give another one"
            raise errors.InvalidSpec(f"{field}[{index}].name", fault, value=part.name)
        parts[part.name] = part
    return tuple(parts.values())


def _parse_pool_choice(pool: str, field: str, pools: Sequence[str]) -> str:
    if not pool and len(pools) == 1:
        return pools[0]
    choice = errors.bounded(", ".join(pools))
    if not pool:
        raise errors.InvalidSpec(field, f"is required with several pools: give one of {choice}", reason="REQUIRED_FIELD")
    if pool not in pools:
        shown = errors.bounded(repr(pool))
        raise errors.InvalidSpec(field, f"{shown} is not one of spec.pools: give one of {choice}", value=shown)
    return pool


def _check_ports(frontends: Sequence[Frontend]) -> None:
    """Each is a listener, of which the device has only so many."""
    count = sum(frontend.ports for frontend in frontends)
    if count > PORTS_MAX:
        message = f"{count} ports in all are too many: give ranges with at most {PORTS_MAX}, or another vService some of them"
        raise errors.InvalidSpec("spec.frontends", message, count=count, max=PORTS_MAX)


def _check_sockets(frontends: Sequence[Frontend]) -> None:
    """Two frontends cannot listen on one port of one VIP in one table."""
    seen: dict[tuple[str, str], str] = {}
    for index, frontend in enumerate(frontends):
        for each in frontend.sockets:
            first = seen.setdefault((frontend.table, each), frontend.name)
            if first != frontend.name:
                message = f"{first} listens on {each} in {frontend.table} already: give another address or port"
                raise errors.InvalidSpec(f"spec.frontends[{index}]", message)


def _check_members(members: Sequence[Member], field: str) -> None:
    """A backend is one member of a pool."""
    seen: dict[tuple[str, str], str] = {}
    for index, member in enumerate(members):
        first = seen.setdefault((member.table, member.socket), member.name)
        if first != member.name:
            shown = socket(member.address, member.port)
            message = f"{first} is {shown} in {member.table} already: give another one, or that one more weight"
            raise errors.InvalidSpec(f"{field}[{index}]", message)
