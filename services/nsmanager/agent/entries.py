"""Rules and neighbours with our mark, as the kernel shows them: what others have and what the kernel has learned is passed over.

Called by `observe` for a snapshot, and by `rules` and `neighbors` before each change. The kernel filters neither by protocol:
among thousands of others ours are found by the bytes of their mark, and nothing else is decoded.
"""

import errno
import ipaddress
import socket
import struct
from typing import Any

from pyroute2.netlink import nlmsg
from pyroute2.netlink.rtnl import RTM_GETNEIGH, RTM_GETRULE
from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ndmsg import NTF_PROXY, NUD_PERMANENT, ndmsg

from crossns import entry
from services.nsmanager.agent.rtnl import Refused, Rtnl

# linux/fib_rules.h, linux/neighbour.h
FRA_PROTOCOL, NDA_PROTOCOL = 21, 12
FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}
FAMILY_NAMES = {number: name for name, number in FAMILIES.items()}
ACTIONS = {"lookup": 1, "blackhole": 6, "unreachable": 7, "prohibit": 8}
_ACTION_NAMES = {number: name for name, number in ACTIONS.items()}


def marked(attribute: int, protocol: int) -> bytes:
    """An attribute of one byte that holds that mark."""
    return struct.pack("HHB", 5, attribute, protocol)


_MARKED_RULE, _MARKED_NEIGHBOR = marked(FRA_PROTOCOL, entry.PROTOCOL), marked(NDA_PROTOCOL, entry.PROTOCOL)


def rules(rtnl: Rtnl) -> list[entry.Rule]:
    """In the order in which the kernel asks them."""
    try:
        found = rtnl.dump(RTM_GETRULE, fibmsg(), _MARKED_RULE)
    except Refused as refused:
        # A kernel that was built without policy routing has none.
        if refused.code != errno.EOPNOTSUPP:
            raise
        return []
    return [_rule(message) for message in found if message.get_attr("FRA_PROTOCOL") == entry.PROTOCOL and _is_known(message)]


def _is_known(message: nlmsg) -> bool:
    return message["family"] in FAMILY_NAMES and message["action"] in _ACTION_NAMES


def _rule(message: nlmsg) -> entry.Rule:
    family: Any = FAMILY_NAMES[message["family"]]
    action: Any = _ACTION_NAMES[message["action"]]
    return entry.Rule(
        family=family,
        priority=message.get_attr("FRA_PRIORITY") or 0,
        source=_prefix(message.get_attr("FRA_SRC"), message["src_len"]),
        destination=_prefix(message.get_attr("FRA_DST"), message["dst_len"]),
        link=message.get_attr("FRA_IIFNAME") or "",
        mark=message.get_attr("FRA_FWMARK") or 0,
        mark_mask=message.get_attr("FRA_FWMASK") or 0,
        action=action,
        kernel_table=(message.get_attr("FRA_TABLE") or message["table"]) if action == "lookup" else 0,
    )


def _prefix(address: str | None, length: int) -> str:
    return f"{ipaddress.ip_address(address)}/{length}" if address and length else ""


def neighbors(rtnl: Rtnl, by_index: dict[int, str]) -> list[entry.Neighbor]:
    """Static ones and those that are answered for."""
    request = ndmsg()
    proxies = ndmsg()
    proxies["flags"] = NTF_PROXY
    found = [message for each in (request, proxies) for message in rtnl.dump(RTM_GETNEIGH, each, _MARKED_NEIGHBOR)]
    return [
        neighbor(message, by_index)
        for message in found
        if message.get_attr("NDA_PROTOCOL") == entry.PROTOCOL
        if message["family"] in FAMILY_NAMES and message["ifindex"] in by_index
    ]


def neighbor(message: nlmsg, by_index: dict[int, str]) -> entry.Neighbor:
    """As ours, whoever's it is."""
    is_proxy = bool(message["flags"] & NTF_PROXY)
    return entry.Neighbor(
        link=by_index[message["ifindex"]],
        address=str(ipaddress.ip_address(message.get_attr("NDA_DST"))),
        mac="" if is_proxy else message.get_attr("NDA_LLADDR") or "",
        proxy=is_proxy,
        permanent=is_proxy or bool(message["state"] & NUD_PERMANENT),
    )
