"""From messages to values: every bound of v_service.proto, each with the path of the field and what to give instead."""

import ipaddress
from collections.abc import Callable, Sequence
from typing import TypeVar

from crossns import errors, names
from crossns.v1 import v_service_pb2
from services.proxy.model.values import COLLECTION, PORT_MAX, Address, Frontend, Member, Pool, VService, socket_of

FRONTENDS_MAX = 64
POOLS_MAX = 64
MEMBERS_MAX = 256
_LIMITED_BROADCAST = ipaddress.IPv4Address("255.255.255.255")

_Message = TypeVar("_Message")
_Part = TypeVar("_Part", Frontend, Pool, Member)


def v_service(message: v_service_pb2.VService) -> VService:
    """The value of `message`; InvalidSpec names the first field that is wrong."""
    names.check(message.name, COLLECTION, "name")
    spec = message.spec
    if not spec.protocol:
        raise errors.InvalidSpec("spec.protocol", "is required: give PROTOCOL_TCP", reason="REQUIRED_FIELD")
    _check_choice(spec.protocol, v_service_pb2.PROTOCOL_TCP, "spec.protocol", "PROTOCOL_TCP")
    _check_choice(spec.datapath, v_service_pb2.DATAPATH_PROXY, "spec.datapath", "DATAPATH_PROXY")
    pools = _parse_each(spec.pools, "spec.pools", POOLS_MAX, _parse_pool)

    def parse_frontend(frontend: v_service_pb2.Frontend, field: str) -> Frontend:
        return _parse_frontend(frontend, field, [pool.name for pool in pools])

    frontends = _parse_each(spec.frontends, "spec.frontends", FRONTENDS_MAX, parse_frontend)
    _check_sockets(frontends)
    return VService(message.name, frontends, pools, message.generation)


def _parse_frontend(message: v_service_pb2.Frontend, field: str, pools: Sequence[str]) -> Frontend:
    return Frontend(
        name=names.check_id(message.name, f"{field}.name"),
        table=names.check(message.route_table, "routeTables", f"{field}.route_table"),
        address=_parse_address(message.address, f"{field}.address"),
        port=_parse_port(message.port, f"{field}.port"),
        pool=_parse_pool_choice(message.pool, f"{field}.pool", pools),
    )


def _parse_pool(message: v_service_pb2.Pool, field: str) -> Pool:
    name = names.check_id(message.name, f"{field}.name")
    _check_choice(message.algorithm, v_service_pb2.ALGORITHM_ROUND_ROBIN, f"{field}.algorithm", "ALGORITHM_ROUND_ROBIN")
    return Pool(name, _parse_each(message.members, f"{field}.members", MEMBERS_MAX, _parse_member))


def _parse_member(message: v_service_pb2.Member, field: str) -> Member:
    return Member(
        name=names.check_id(message.name, f"{field}.name"),
        table=names.check(message.route_table, "routeTables", f"{field}.route_table"),
        address=_parse_address(message.address, f"{field}.address"),
        port=_parse_port(message.port, f"{field}.port"),
    )


def _parse_each(
    messages: Sequence[_Message], field: str, at_most: int, parse_one: Callable[[_Message, str], _Part]
) -> tuple[_Part, ...]:
    """1..`at_most` parts with different names."""
    if not messages:
        raise errors.InvalidSpec(field, f"is required: give 1..{at_most}", reason="REQUIRED_FIELD")
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


def _parse_address(text: str, field: str) -> Address:
    """An address that can be a VIP or a member's: a unicast one that means the same on every link of its table."""
    if not text:
        raise errors.InvalidSpec(field, "is required: give an IPv4 or IPv6 address", reason="REQUIRED_FIELD")
    shown = errors.bounded(repr(text))
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise errors.InvalidSpec(field, f"{shown} is not an IPv4 or IPv6 address", value=shown) from None
    fault = _fault_of(address)
    if fault:
        raise errors.InvalidSpec(field, f"{shown} {fault}", value=shown)
    return address


def _fault_of(address: Address) -> str:
    """Why `address` will not do, and what to give instead; "" where it will."""
    if address.is_unspecified:
        return "is the unspecified address: give the one to use"
    if address.is_multicast or address == _LIMITED_BROADCAST:
        return "is no unicast address: give one that belongs to one host"
    if address.is_loopback:
        return "is a loopback address, which never leaves its host: give one that the route table's links reach"
    if isinstance(address, ipaddress.IPv4Address):
        return ""
    if address.ipv4_mapped is not None:
        return f"is an IPv4-mapped address: give {address.ipv4_mapped}"
    if address.is_link_local or address.scope_id is not None:
        return "is valid on one link only: give a global or unique local address"
    return ""


def _parse_port(port: int, field: str) -> int:
    if port == 0:
        raise errors.InvalidSpec(field, f"is required: give 1..{PORT_MAX}", reason="REQUIRED_FIELD")
    if not 1 <= port <= PORT_MAX:
        raise errors.InvalidSpec(field, f"{port} is not a port: give 1..{PORT_MAX}", value=port)
    return port


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


def _check_choice(value: int, only: int, field: str, shown: str) -> None:
    """`value` is the one there is, or left open."""
    if value not in (0, only):
        raise errors.InvalidSpec(field, f"{value} is not known here: give {shown}", value=value)


def _check_sockets(frontends: Sequence[Frontend]) -> None:
    """Two frontends cannot listen on one port of one VIP in one table."""
    seen: dict[tuple[str, Address, int], str] = {}
    for index, frontend in enumerate(frontends):
        key = (frontend.table, frontend.address, frontend.port)
        if key in seen:
            message = f"{seen[key]} listens on {socket_of(frontend)} in {frontend.table} already: give another address or port"
            raise errors.InvalidSpec(f"spec.frontends[{index}]", message)
        seen[key] = frontend.name
