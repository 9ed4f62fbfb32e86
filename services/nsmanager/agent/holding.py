"""What every table of a trial holds at the same time, step by step; what a table does not take is told, not raised.

Called by `trial`. Nothing of it is in anybody's way: addresses and port were found free, routes stand in a kernel table that no
rule of others names, rules select only what comes in over the throwaway link, and so does the firewall.
"""

import errno
import ipaddress
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from pyroute2.netlink.rtnl import RTM_NEWADDR, RTM_NEWNEIGH, RTM_NEWROUTE, RTM_NEWRULE
from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ndmsg import NUD_PERMANENT, ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from crossns import proof
from crossns.proof import Step
from services.nsmanager.agent import addresses, frame, nft, throwaway
from services.nsmanager.agent.nfnl import Nfnl
from services.nsmanager.agent.rtnl import NLM_F_CREATE, NLM_F_EXCL, Refused, Rtnl

# Link-local, so that it is the throwaway link's alone: near and far end.
IPV6 = (ipaddress.IPv6Address("fe80::6372:1"), ipaddress.IPv6Address("fe80::6372:2"))
# A kernel table that nobody else names; a priority among the last.
KERNEL_TABLE, _PRIORITY = 0xC7C7C7C7, 32000
_RT_TABLE_COMPAT, _RTN_UNICAST, _RT_SCOPE_LINK, _FR_ACT_TO_TBL = 252, 1, 253, 1
# Networks for benchmarks (RFC 2544, RFC 5180): a route for each number.
_ROUTES = {4: (ipaddress.ip_address("198.18.0.0"), 0, 32), 6: (ipaddress.ip_address("2001:2::"), 64, 64)}
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_NFT_TABLE, PASSED, DROPPED = "crossns-trial", "passed", "dropped"
_ETH_P_ALL = 0x0003
# Before connection tracking (-200), which shall count no session of it, and whatever filters: linux/netfilter_ipv4.h.
_NFT = """create table inet {table} {{ flags owner; }}
add counter inet {table} passed
add counter inet {table} dropped
add chain inet {table} c {{ type filter hook prerouting priority -450; }}
add rule inet {table} c iifname "{link}" udp dport {port} @th,64,64 0x{payload} counter name passed notrack accept
add rule inet {table} c iifname "{link}" udp dport {port} counter name dropped drop
"""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(slots=True)
class Trial:
    """`sides`: the addresses of near and far end, of each version that the table has; `ruleset`: by the socket that owns it."""

    wanted: proof.BeginTrial
    near: int = 0
    sides: list[tuple[Address, Address]] = field(default_factory=list)
    wire: socket.socket | None = None
    listeners: list[socket.socket] = field(default_factory=list)
    ruleset: Nfnl | None = None
    sent: int = 0

    def close(self) -> None:
        for each in (*self.listeners, *filter(None, (self.wire,))):
            each.close()
        if self.ruleset is not None:
            self.ruleset.close()


def hold(rtnl: Rtnl, trial: Trial) -> Iterator[Step]:
    """Every step that was tried. Where somebody's links are there already the rest is tried on those, too."""
    made = _step("interface", "link pair", partial(throwaway.make, rtnl))
    yield made
    if made.code not in {0, errno.EEXIST}:
        return
    settled = _step("interface", "socket on the far end", partial(_settle, rtnl, trial))
    yield settled
    if settled.code:
        return
    for near, far in trial.sides:
        yield _step("interface", f"address {near}", partial(_add_address, rtnl, trial, near))
        for kind, name in ((socket.SOCK_STREAM, "TCP"), (socket.SOCK_DGRAM, "UDP")):
            what = f"{name} port {trial.wanted.ground.port} of {near}"
            yield _step("socket", what, partial(_bind, trial, near, kind))
        yield _step("neighbor", f"neighbour {far}", partial(_add_neighbor, rtnl, trial, far))
        route = _route_of(near.version, trial.wanted.number)
        yield _step("routing", f"route {route}", partial(_add_route, rtnl, trial, route))
        yield _step("routing", f"rule of IPv{near.version}", partial(_add_rule, rtnl, trial, near.version))
    yield _step("firewall", "rules", partial(_filter, trial))


def _step(layer: str, what: str, act: Callable[[], None]) -> Step:
    try:
        act()
    except Refused as refused:
        return Step(layer, what, refused.code, refused.explained())
    except nft.Refused as refused:
        return Step(layer, what, errno.EEXIST if refused.is_taken else errno.EOPNOTSUPP, refused.words)
    except OSError as error:
        return Step(layer, what, error.errno or errno.EIO, error.strerror or str(error))
    return Step(layer, what)


def _settle(rtnl: Rtnl, trial: Trial) -> None:
    trial.near, _ = throwaway.find(rtnl)
    first, second = ipaddress.IPv4Network(trial.wanted.ground.network).hosts()
    trial.sides.append((first, second))
    if throwaway.has_ipv6():
        trial.sides.append(IPV6)
    trial.wire = socket.socket(
        socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, socket.htons(_ETH_P_ALL)
    )
    trial.wire.bind((throwaway.FAR, _ETH_P_ALL))


def _add_address(rtnl: Rtnl, trial: Trial, near: Address) -> None:
    length = ipaddress.ip_network(trial.wanted.ground.network).prefixlen if near.version == 4 else 64
    request = addresses.request(trial.near, f"{near}/{length}", proof.TRIAL_PROTOCOL)
    rtnl.change(RTM_NEWADDR, request, NLM_F_CREATE | NLM_F_EXCL)


def _bind(trial: Trial, near: Address, kind: socket.SocketKind) -> None:
    listener = socket.socket(_FAMILIES[near.version], kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    trial.listeners.append(listener)
    where: tuple[str, int] | tuple[str, int, int, int] = (str(near), trial.wanted.ground.port)
    listener.bind((*where, 0, trial.near) if near.version == 6 else where)
    if kind is socket.SOCK_STREAM:
        listener.listen()


def _add_neighbor(rtnl: Rtnl, trial: Trial, far: Address) -> None:
    request = ndmsg()
    request["family"], request["ifindex"], request["state"] = _FAMILIES[far.version], trial.near, NUD_PERMANENT
    mac = frame.numbered_mac(trial.wanted.number).hex(":")
    request["attrs"] = [("NDA_DST", str(far)), ("NDA_LLADDR", mac)]
    rtnl.change(RTM_NEWNEIGH, request, NLM_F_CREATE | NLM_F_EXCL)


def _route_of(version: int, number: int) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    base, shift, length = _ROUTES[version]
    return ipaddress.ip_network((int(base) + (number << shift), length))


def number_of(destination: str) -> int:
    """The inverse of a route's destination."""
    address = ipaddress.ip_address(destination)
    base, shift, _ = _ROUTES[address.version]
    return int(address) - int(base) >> shift


def _add_route(rtnl: Rtnl, trial: Trial, route: ipaddress.IPv4Network | ipaddress.IPv6Network) -> None:
    request = rtmsg()
    request["family"], request["dst_len"], request["type"] = _FAMILIES[route.version], route.prefixlen, _RTN_UNICAST
    request["proto"], request["table"] = proof.TRIAL_PROTOCOL, _RT_TABLE_COMPAT
    request["scope"] = _RT_SCOPE_LINK if route.version == 4 else 0
    request["attrs"] = [("RTA_TABLE", KERNEL_TABLE), ("RTA_DST", str(route.network_address)), ("RTA_OIF", trial.near)]
    rtnl.change(RTM_NEWROUTE, request, NLM_F_CREATE | NLM_F_EXCL)


def _add_rule(rtnl: Rtnl, trial: Trial, version: int) -> None:
    request = fibmsg()
    request["family"], request["action"], request["table"] = _FAMILIES[version], _FR_ACT_TO_TBL, _RT_TABLE_COMPAT
    request["attrs"] = [
        ("FRA_PRIORITY", _PRIORITY),
        ("FRA_PROTOCOL", proof.TRIAL_PROTOCOL),
        ("FRA_IIFNAME", throwaway.NEAR),
        ("FRA_FWMARK", trial.wanted.number),
        ("FRA_FWMASK", 0xFFFFFFFF),
        ("FRA_TABLE", KERNEL_TABLE),
    ]
    rtnl.change(RTM_NEWRULE, request, NLM_F_CREATE | NLM_F_EXCL)


def _filter(trial: Trial) -> None:
    payload = frame.sealed(trial.wanted.seal, trial.wanted.number).hex()
    commands = _NFT.format(table=_NFT_TABLE, link=throwaway.NEAR, port=trial.wanted.ground.port, payload=payload)
    trial.ruleset = Nfnl(_NFT_TABLE, nft.transact(commands))
