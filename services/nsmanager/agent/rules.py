"""Changes of policy routing rules: ours are told by FRA_PROTOCOL, those of others and the kernel's own are never touched.

Called by the agent's `operations`.
"""

import errno
import ipaddress

from pyroute2.netlink.rtnl import RTM_DELRULE, RTM_NEWRULE
from pyroute2.netlink.rtnl.fibmsg import fibmsg

from crossns import entry
from services.nsmanager.agent import entries
from services.nsmanager.agent.rtnl import NLM_F_CREATE, Refused, Rtnl, fault

# The header has one byte for a table, the attribute all of it (linux/rtnetlink.h).
_RT_TABLE_COMPAT = 252


def put(rtnl: Rtnl, wanted: entry.PutRule) -> None:
    """What is there is looked for here: NLM_F_EXCL takes one that selects more for the same, without it the kernel keeps two."""
    if wanted.rule in entries.rules(rtnl):
        return
    try:
        rtnl.change(RTM_NEWRULE, _request(wanted.rule), NLM_F_CREATE)
    except Refused as refused:
        raise fault(refused, f"add the rule at {wanted.rule.priority}", priority=wanted.rule.priority) from refused


def remove(rtnl: Rtnl, wanted: entry.RemoveRule) -> None:
    """The kernel removes the first rule of ours that has all that the request says, and maybe more: such a one is put back. It
    goes to the end of its priority then, so that each turn comes closer."""
    before = entries.rules(rtnl)
    for _ in range(len(before)):
        if wanted.rule not in before:
            return
        try:
            rtnl.change(RTM_DELRULE, _request(wanted.rule))
        except Refused as refused:
            if refused.code != errno.ENOENT:
                raise fault(refused, f"remove the rule at {wanted.rule.priority}", priority=wanted.rule.priority) from refused
            return
        after = entries.rules(rtnl)
        for rule in before:
            if rule not in after and rule != wanted.rule:
                put(rtnl, entry.PutRule(rule=rule))
        before = entries.rules(rtnl)


def _request(rule: entry.Rule) -> fibmsg:
    request = fibmsg()
    request["family"] = entries.FAMILIES[rule.family]
    request["action"] = entries.ACTIONS[rule.action]
    request["table"] = rule.kernel_table if rule.kernel_table < 256 else _RT_TABLE_COMPAT
    attributes: list[tuple[str, int | str]] = [("FRA_PRIORITY", rule.priority), ("FRA_PROTOCOL", entry.PROTOCOL)]
    for prefix, length, attribute in ((rule.source, "src_len", "FRA_SRC"), (rule.destination, "dst_len", "FRA_DST")):
        if prefix:
            network = ipaddress.ip_network(prefix)
            request[length] = network.prefixlen
            attributes.append((attribute, str(network.network_address)))
    if rule.link:
        attributes.append(("FRA_IIFNAME", rule.link))
    if rule.mark_mask:
        attributes += [("FRA_FWMARK", rule.mark), ("FRA_FWMASK", rule.mark_mask)]
    if rule.kernel_table:
        attributes.append(("FRA_TABLE", rule.kernel_table))
    request["attrs"] = attributes
    return request
