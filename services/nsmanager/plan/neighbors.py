"""Neighbours: the kernel's static entries with our mark against the Neighbor resources of the table.

The kernel drops them all when a link goes down or changes its own MAC address: they are put again then. For IPv6 a link answers
for others only where it is told to (proxy_ndp); that alone answers for nobody, and so is left on.
"""

from crossns import entry, sysctl
from services.nsmanager.model import Desired, Neighbor
from services.nsmanager.plan import links
from services.nsmanager.plan.observed import At, Observed

Key = tuple[str, str, bool]
_FORWARDING = {False: "net.ipv4.ip_forward", True: "net.ipv6.conf.all.forwarding"}


def removed(desired: Desired, observed: Observed) -> tuple[At, ...]:
    wanted = {_key(each) for wish in desired.neighbors if (each := resolved(wish, desired, observed)) is not None}
    return tuple(
        At(f"routeTables/{desired.id}", desired.id, entry.RemoveNeighbor(neighbor=seen))
        for seen in (observed.snapshot.neighbors if observed.snapshot is not None else ())
        if _key(seen) not in wanted
    )


def put(desired: Desired, observed: Observed) -> tuple[At, ...]:
    ops: list[At] = []
    for wish in desired.neighbors:
        wanted = resolved(wish, desired, observed)
        if wanted is None:
            continue
        if wish.proxy and _is_ipv6(wish) and not _answers(wanted.link, observed):
            told = sysctl.SetLinkSysctl(link=wanted.link, name="proxy_ndp", value="1")
            ops.append(At(wish.resource, desired.id, told))
        if observed.snapshot is None or wanted not in observed.snapshot.neighbors:
            ops.append(At(wish.resource, desired.id, entry.PutNeighbor(neighbor=wanted)))
    return tuple(ops)


def is_present(wish: Neighbor, desired: Desired, observed: Observed) -> bool:
    wanted = resolved(wish, desired, observed)
    if observed.snapshot is None or wanted not in observed.snapshot.neighbors:
        return False
    return not (wish.proxy and _is_ipv6(wish)) or _answers(wanted.link, observed)


def is_idle(wish: Neighbor, observed: Observed) -> bool:
    """Whether it is to answer for others in a table that does not forward: the kernel answers for nobody then."""
    sysctls = observed.snapshot.sysctls if observed.snapshot is not None else {}
    return wish.proxy and sysctls.get(_FORWARDING[_is_ipv6(wish)]) == "0"


def resolved(wish: Neighbor, desired: Desired, observed: Observed) -> entry.Neighbor | None:
    """With the link's name instead of the interface; None where that is elsewhere, or its link is missing."""
    link = desired.link_of(wish.interface)
    if link is None or not links.is_expected(link, desired, observed):
        return None
    return entry.Neighbor(link=link.name, address=wish.address, mac=wish.mac, proxy=wish.proxy)


def _answers(link: str, observed: Observed) -> bool:
    seen = observed.links.get(link)
    return seen is not None and seen.sysctls.get("proxy_ndp") == "1"


def _is_ipv6(wish: Neighbor) -> bool:
    return ":" in wish.address


def _key(neighbor: entry.Neighbor) -> Key:
    return neighbor.link, neighbor.address, neighbor.proxy
