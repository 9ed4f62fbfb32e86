"""What a trial puts into a table, and how it goes away again: a pair of links whose both ends are here, and what hangs on it.

Called by `trial`, and by whoever starts in a namespace in which somebody may have been killed (`sweep`). Addresses, neighbours
and routes go with the links; rules do not, and carry a protocol of their own.
"""

import errno
from pathlib import Path

from pyroute2.netlink.rtnl import RTM_DELRULE, RTM_GETRULE, RTM_NEWLINK
from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from crossns import proof
from services.nsmanager.agent import entries, links, observe
from services.nsmanager.agent.rtnl import NLM_F_CREATE, NLM_F_EXCL, Attributes, Refused, Rtnl

NEAR, FAR = (f"{proof.PROVISIONAL_PREFIX}trial-{end}" for end in "ab")
# Locally administered, the same in all tables.
NEAR_MAC, FAR_MAC = "02:63:72:00:00:01", "02:63:72:00:00:02"
_CONF = Path("/proc/sys/net/ipv6/conf")
# Documentation/networking/ip-sysctl.rst: no address of the kernel's choice, nothing taken from a router.
_NEAR_IPV6 = {"addr_gen_mode": "1", "accept_ra": "0"}


def make(rtnl: Rtnl) -> None:
    """The pair, up. Raises Refused: EEXIST where one is there already."""
    peer: Attributes = [("IFLA_IFNAME", FAR), ("IFLA_ADDRESS", FAR_MAC)]
    request = ifinfmsg()
    content = {"attrs": [("VETH_INFO_PEER", {"attrs": peer})]}
    information: Attributes = [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", content)]
    request["attrs"] = [("IFLA_IFNAME", NEAR), ("IFLA_ADDRESS", NEAR_MAC), ("IFLA_LINKINFO", {"attrs": information})]
    rtnl.change(RTM_NEWLINK, request, NLM_F_CREATE | NLM_F_EXCL)
    if has_ipv6():
        (_CONF / FAR / "disable_ipv6").write_text("1", encoding="ascii")
        for name, value in _NEAR_IPV6.items():
            (_CONF / NEAR / name).write_text(value, encoding="ascii")
    # The far end last: what it sends shall find the near one ready.
    for index in find(rtnl):
        links.change(rtnl, index, [], up=True)


def find(rtnl: Rtnl) -> tuple[int, int]:
    """The indices of both ends; raises Refused where they have gone."""
    by_name = {link.name: link.index for link in observe.links(rtnl)}
    if not {NEAR, FAR} <= by_name.keys():
        raise Refused(errno.ENODEV, "")
    return by_name[NEAR], by_name[FAR]


def has_ipv6() -> bool:
    """Whether the near end speaks it: a table may have it switched off."""
    try:
        return (_CONF / NEAR / "disable_ipv6").read_text(encoding="ascii").strip() == "0"
    except FileNotFoundError:
        return False


def shown(rtnl: Rtnl) -> tuple[str, ...]:
    """Every throwaway link of the namespace that looks like one of these."""
    return tuple(link.name for link in observe.links(rtnl) if link.name in (NEAR, FAR) or link.mac in (NEAR_MAC, FAR_MAC))


def rules(rtnl: Rtnl) -> list[fibmsg]:
    """Those of trials, whoever's."""
    held = entries.marked(entries.FRA_PROTOCOL, proof.TRIAL_PROTOCOL)
    try:
        found = rtnl.dump(RTM_GETRULE, fibmsg(), held)
    except Refused:
        return []
    return [each for each in found if each.get_attr("FRA_PROTOCOL") == proof.TRIAL_PROTOCOL]


def sweep(rtnl: Rtnl) -> None:
    """Delete what operations and trials have left that were killed in the middle."""
    links.sweep(rtnl)
    for rule in rules(rtnl):
        request = fibmsg()
        request["family"], request["action"], request["table"] = rule["family"], rule["action"], rule["table"]
        named = ("FRA_PRIORITY", "FRA_PROTOCOL", "FRA_IIFNAME", "FRA_FWMARK", "FRA_FWMASK", "FRA_TABLE")
        request["attrs"] = [(name, value) for name in named if (value := rule.get_attr(name)) is not None]
        rtnl.change(RTM_DELRULE, request)
