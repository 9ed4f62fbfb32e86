"""Changes of neighbours: ours are told by NDA_PROTOCOL.

What somebody else has set for good stays, what the kernel has learned gives way. Called by the agent's `operations`.
"""

import errno
import ipaddress
import socket

from pyroute2.netlink import nlmsg
from pyroute2.netlink.rtnl import RTM_DELNEIGH, RTM_GETNEIGH, RTM_NEWNEIGH
from pyroute2.netlink.rtnl.ndmsg import NTF_PROXY, NUD_PERMANENT, ndmsg

from crossns import entry, errors
from services.nsmanager.agent import entries, links
from services.nsmanager.agent.rtnl import NLM_F_CREATE, NLM_F_REPLACE, Attributes, Refused, Rtnl, fault


def put(rtnl: Rtnl, wanted: entry.PutNeighbor) -> None:
    neighbor = wanted.neighbor
    index = links.required(rtnl, neighbor.link).index
    present = _find(rtnl, neighbor, index)
    if present is not None and not _is_ours(present) and (neighbor.proxy or present["state"] & NUD_PERMANENT):
        message = f"{neighbor.link} has an entry for {neighbor.address} from somebody else: it stays untouched; remove it"
        raise errors.PermanentError("FOREIGN_OBJECT", message, link=neighbor.link, address=neighbor.address)
    if present is not None and _is_ours(present) and entries.neighbor(present, {index: neighbor.link}) == neighbor:
        return
    attributes: Attributes = [("NDA_PROTOCOL", entry.PROTOCOL)]
    if neighbor.mac:
        attributes.append(("NDA_LLADDR", neighbor.mac))
    request = _request(neighbor, index, attributes)
    request["state"] = NUD_PERMANENT
    try:
        rtnl.change(RTM_NEWNEIGH, request, NLM_F_CREATE | NLM_F_REPLACE)
    except Refused as refused:
        what = f"add the neighbour {neighbor.address} on {neighbor.link}"
        raise fault(refused, what, link=neighbor.link, address=neighbor.address) from refused


def remove(rtnl: Rtnl, wanted: entry.RemoveNeighbor) -> None:
    neighbor = wanted.neighbor
    try:
        index = socket.if_nametoindex(neighbor.link)
    except OSError:
        return
    present = _find(rtnl, neighbor, index)
    if present is None or not _is_ours(present):
        return
    try:
        rtnl.change(RTM_DELNEIGH, _request(neighbor, index, []))
    except Refused as refused:
        if refused.code not in {errno.ENOENT, errno.ENODEV}:
            what = f"remove the neighbour {neighbor.address} from {neighbor.link}"
            raise fault(refused, what, link=neighbor.link, address=neighbor.address) from refused


def _find(rtnl: Rtnl, neighbor: entry.Neighbor, index: int) -> nlmsg | None:
    """The kernel's entry for that address on that link, whoever's it is."""
    try:
        found = rtnl.get(RTM_GETNEIGH, _request(neighbor, index, []))
    except Refused as refused:
        if refused.code in {errno.ENOENT, errno.ENODEV}:
            return None
        raise fault(refused, f"look for the neighbour {neighbor.address}", address=neighbor.address) from refused
    return next(iter(found), None)


def _is_ours(message: nlmsg) -> bool:
    return bool(message.get_attr("NDA_PROTOCOL") == entry.PROTOCOL)


def _request(neighbor: entry.Neighbor, index: int, attributes: Attributes) -> ndmsg:
    request = ndmsg()
    request["family"] = socket.AF_INET if ipaddress.ip_address(neighbor.address).version == 4 else socket.AF_INET6
    request["ifindex"] = index
    request["flags"] = NTF_PROXY if neighbor.proxy else 0
    request["attrs"] = [("NDA_DST", neighbor.address), *attributes]
    return request
