"""Addresses: those of interfaces, and the VIPs of vServices, told apart by IFA_PROTO.

A VIP goes as /32 or /128 on the link whose prefix holds it, else on `lo`; it is there once, however many frontends use it. What
carries neither of our two protocol numbers is somebody else's and stays; an address that is there already serves as it is.
"""

import ipaddress
from collections.abc import Iterable

from crossns import operation
from services.nsmanager.model import Desired, Vip
from services.nsmanager.plan import links
from services.nsmanager.plan.observed import At, Observed

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def removed(desired: Desired, observed: Observed) -> tuple[At, ...]:
    wanted = _wanted(desired, observed)
    return tuple(
        At(_owner(address, desired, observed), desired.id, _removal(address))
        for address in (observed.snapshot.addresses if observed.snapshot is not None else ())
        if address.protocol in (operation.ADDRESS_PROTOCOL, operation.VIP_PROTOCOL)
        if (address.link, address.prefix, address.protocol) not in wanted
    )


def added(desired: Desired, observed: Observed) -> tuple[At, ...]:
    present = {
        (address.link, address.prefix) for address in (observed.snapshot.addresses if observed.snapshot is not None else ())
    }
    return tuple(
        At(resource, desired.id, operation.AddAddress(link=link, prefix=prefix, protocol=protocol))
        for (link, prefix, protocol), resource in _wanted(desired, observed).items()
        if (link, prefix) not in present
    )


def vip_link(vip: Vip, prefixes: Iterable[tuple[_Network, str]]) -> str:
    """Where a VIP goes: the name of the link whose prefix holds it (the longest such), else `lo`."""
    address = ipaddress.ip_interface(vip.prefix).ip
    holding = [(network.prefixlen, link) for network, link in prefixes if address in network]
    return max(holding)[1] if holding else "lo"


def hosts(observed: Observed) -> frozenset[str]:
    """All addresses that any link has, with whatever prefix length and from whomever."""
    seen = observed.snapshot.addresses if observed.snapshot is not None else ()
    return frozenset(address.prefix.split("/")[0] for address in seen)


def _wanted(desired: Desired, observed: Observed) -> dict[tuple[str, str, int], str]:
    """(link, prefix, protocol) -> the resource that wants it; links only where they are, or are about to be."""
    own = {
        (link.name, prefix, operation.ADDRESS_PROTOCOL): link.resource
        for link in desired.links
        if links.is_expected(link, desired, observed)
        for prefix in link.addresses
    }
    taken = {prefix.split("/")[0] for _, prefix, _ in own}
    prefixes = [(ipaddress.ip_interface(text).network, link.name) for link in desired.links for text in link.addresses]
    vips = {
        (vip_link(vip, prefixes), vip.prefix, operation.VIP_PROTOCOL): vip.resource
        for vip in desired.vips
        if vip.prefix.split("/")[0] not in taken
    }
    return {**own, **vips}


def _removal(address: operation.Address) -> operation.RemoveAddress:
    return operation.RemoveAddress(link=address.link, prefix=address.prefix, protocol=address.protocol)


def _owner(address: operation.Address, desired: Desired, observed: Observed) -> str:
    """For whose sake an address goes: its interface, or the table."""
    link = observed.links.get(address.link)
    by_mark = {each.mark: each.resource for each in desired.links}
    return by_mark.get(link.mark if link is not None else "", f"routeTables/{desired.id}")
