"""Changes of routes: ours are told by rtm_protocol, and one of somebody else with the same key is never replaced.

Called by the agent's `operations`.
"""

import errno
import ipaddress
import socket
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from pyroute2.netlink.rtnl import RTM_DELROUTE, RTM_GETROUTE, RTM_NEWROUTE
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from crossns import errors, operation
from services.nsmanager.agent import observe
from services.nsmanager.agent.rtnl import HEADER_SIZE, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Refused, Rtnl, decoded, fault

# linux/rtnetlink.h
_RTN = {"unicast": 1, "blackhole": 6, "unreachable": 7, "prohibit": 8}
_RT_TABLE_COMPAT = 252
# NOWHERE stands for any in a deletion.
_RT_SCOPE_UNIVERSE, _RT_SCOPE_LINK, _RT_SCOPE_NOWHERE = 0, 253, 255
_UNREACHABLE = {errno.ENETUNREACH, errno.EHOSTUNREACH}

# What the kernel makes of an IPv6 route without a metric (IP6_RT_PRIO_USER).
_IPV6_METRIC = 1024

Key = tuple[str, int, int]


def put(rtnl: Rtnl, wanted: operation.PutRoute) -> None:
    by_name = {link.name: link.index for link in observe.links(rtnl)}
    request = _request(wanted.route, by_name)
    try:
        try:
            rtnl.change(RTM_NEWROUTE, request, NLM_F_CREATE | NLM_F_EXCL)
        except Refused as refused:
            if refused.code != errno.EEXIST:
                raise
            _replace(rtnl, wanted.route, by_name)
    except Refused as refused:
        if refused.code in _UNREACHABLE:
            message = f"no link of the table reaches the gateway of {wanted.route.destination}: {refused.explained()}"
            raise errors.PermanentError("GATEWAY_UNREACHABLE", message, destination=wanted.route.destination) from refused
        raise fault(refused, f"add the route {wanted.route.destination}", destination=wanted.route.destination) from refused


def remove(rtnl: Rtnl, wanted: operation.RemoveRoute) -> None:
    # The kernel takes a metric of 0 for any: without this look another route of ours could go.
    by_name = {link.name: link.index for link in observe.links(rtnl)}
    if _own(rtnl, wanted.route, by_name) is None:
        return
    bare = operation.Route(
        destination=wanted.route.destination,
        kernel_table=wanted.route.kernel_table,
        metric=wanted.route.metric,
        kind=wanted.route.kind,
    )
    request = _request(bare, by_name)
    request["scope"] = _RT_SCOPE_NOWHERE
    try:
        # The kernel deletes only what has the request's protocol.
        rtnl.change(RTM_DELROUTE, request)
    except Refused as refused:
        if refused.code != errno.ESRCH:
            raise fault(refused, f"remove the route {bare.destination}", destination=bare.destination) from refused


def of_others(rtnl: Rtnl, wanted: Iterable[operation.Route]) -> tuple[operation.Route, ...]:
    """Those of the wanted that `put` would refuse, because somebody else has a route of the same key and we have none."""
    by_key = {_key(route): route for route in wanted}
    owners: dict[Key, set[int]] = {key: set() for key in by_key}
    for version, table in {(ipaddress.ip_network(key[0]).version, key[1]) for key in by_key}:
        for key, protocol in _seen(rtnl, version, table, {ipaddress.ip_network(each[0]).prefixlen for each in by_key}):
            if key in owners:
                owners[key].add(protocol)
    return tuple(by_key[key] for key, found in owners.items() if found and operation.ROUTE_PROTOCOL not in found)


def _seen(rtnl: Rtnl, version: int, table: int, lengths: Collection[int]) -> Iterator[tuple[Key, int]]:
    """Key and protocol of a table's routes whose prefix is as long; of a million others nothing is decoded."""
    request = rtmsg()
    request["family"] = family = socket.AF_INET if version == 4 else socket.AF_INET6
    request["attrs"] = [("RTA_TABLE", table)]
    # struct rtmsg begins with family, length of the destination, length of the source, TOS.
    heads = {bytes((family, length, 0, 0)) for length in lengths}
    try:
        for received, offset in rtnl.scan(RTM_GETROUTE, request):
            if received[offset + HEADER_SIZE : offset + HEADER_SIZE + 4] in heads:
                message = decoded(RTM_NEWROUTE, received, offset)
                if observe.is_route(message):
                    yield _key(observe.route_of(message, {})), message["proto"]
    except Refused as refused:
        # The kernel has no such table yet.
        if refused.code != errno.ENOENT:
            raise


def _replace(rtnl: Rtnl, route: operation.Route, by_name: dict[str, int]) -> None:
    present = _own(rtnl, route, by_name)
    if present is None:
        message = f"the table has a route {route.destination} from somebody else: it stays; remove it or set another metric"
        raise errors.PermanentError("FOREIGN_OBJECT", message, destination=route.destination)
    if present != route:
        rtnl.change(RTM_NEWROUTE, _request(route, by_name), NLM_F_CREATE | NLM_F_REPLACE)


def _own(rtnl: Rtnl, route: operation.Route, by_name: dict[str, int]) -> operation.Route | None:
    by_index = {index: name for name, index in by_name.items()}
    return next((found for found in observe.routes(rtnl, by_index) if _key(found) == _key(route)), None)


def _key(route: operation.Route) -> Key:
    network = ipaddress.ip_network(route.destination)
    return str(network), route.kernel_table, _metric(route, network.version)


def _metric(route: operation.Route, version: int) -> int:
    return route.metric or (_IPV6_METRIC if version == 6 else 0)


def _request(route: operation.Route, by_name: dict[str, int]) -> rtmsg:
    network = ipaddress.ip_network(route.destination)
    request = rtmsg()
    request["family"] = socket.AF_INET if network.version == 4 else socket.AF_INET6
    request["dst_len"] = network.prefixlen
    request["proto"] = operation.ROUTE_PROTOCOL
    request["type"] = _RTN[route.kind]
    request["table"] = route.kernel_table if route.kernel_table < 256 else _RT_TABLE_COMPAT
    has_gateway = any(hop.gateway for hop in route.next_hops)
    is_on_link = route.kind == "unicast" and bool(route.next_hops) and not has_gateway and network.version == 4
    request["scope"] = _RT_SCOPE_LINK if is_on_link else _RT_SCOPE_UNIVERSE
    request["attrs"] = [("RTA_TABLE", route.kernel_table)]
    if network.prefixlen:
        request["attrs"].append(("RTA_DST", str(network.network_address)))
    metric = _metric(route, network.version)
    if metric:
        request["attrs"].append(("RTA_PRIORITY", metric))
    request["attrs"] += _next_hops(route, by_name)
    return request


def _next_hops(route: operation.Route, by_name: dict[str, int]) -> list[tuple[str, Any]]:
    if len(route.next_hops) > 1:
        return [("RTA_MULTIPATH", [_next_hop(hop, by_name) for hop in route.next_hops])]
    attributes: list[tuple[str, Any]] = []
    for hop in route.next_hops:
        if hop.gateway:
            attributes.append(("RTA_GATEWAY", hop.gateway))
        if hop.link:
            attributes.append(("RTA_OIF", _index(hop.link, by_name)))
    return attributes


def _next_hop(hop: operation.NextHop, by_name: dict[str, int]) -> dict[str, Any]:
    gateway = [("RTA_GATEWAY", hop.gateway)] if hop.gateway else []
    return {"oif": _index(hop.link, by_name) if hop.link else 0, "hops": hop.weight - 1, "attrs": gateway}


def _index(name: str, by_name: dict[str, int]) -> int:
    if name not in by_name:
        raise errors.PermanentError("LINK_MISSING", f"there is no link {name}", link=name)
    return by_name[name]
