"""From messages to values, for the entries of a table that name one interface at most: rules and neighbours.

Pure. Called as `parse` is. Two rules of one table that are equal but for their resources would be one in the kernel, so a rule is
brought into the kernel's own normal form.
"""

from crossns import errors, names
from crossns.v1 import neighbor_pb2, rule_pb2
from services.nsmanager.model import field
from services.nsmanager.model.values import Neighbor, Rule

# Between the kernel's own rules for the tables local and main (net/core/fib_rules.c: 0, 0x7FFE, 0x7FFF).
PRIORITY_MIN, PRIORITY_MAX = 1, 32765
# A mark without a mask is compared in all of its bits (net/core/fib_rules.c).
ALL_BITS = 0xFFFFFFFF
_VERSIONS = {rule_pb2.IP_FAMILY_UNSPECIFIED: 0, rule_pb2.IP_FAMILY_IPV4: 4, rule_pb2.IP_FAMILY_IPV6: 6}
_ACTIONS = {
    rule_pb2.RULE_ACTION_UNSPECIFIED: "lookup",
    rule_pb2.RULE_ACTION_LOOKUP: "lookup",
    rule_pb2.RULE_ACTION_BLACKHOLE: "blackhole",
    rule_pb2.RULE_ACTION_UNREACHABLE: "unreachable",
    rule_pb2.RULE_ACTION_PROHIBIT: "prohibit",
}
_NOBODY = "00:00:00:00:00:00"


def rule(message: rule_pb2.Rule) -> Rule:
    """Raises InvalidSpec."""
    spec = message.spec
    names.check(message.name, "rules", "name")
    if not spec.priority:
        text = f"is required: give a number of {PRIORITY_MIN}..{PRIORITY_MAX}, lower ones are asked first"
        raise errors.InvalidSpec("spec.priority", text, reason="REQUIRED_FIELD")
    field.check_range("spec.priority", spec.priority, PRIORITY_MIN, PRIORITY_MAX)
    source = field.network("spec.source", spec.source) if spec.source else None
    destination = field.network("spec.destination", spec.destination) if spec.destination else None
    if spec.interface:
        names.check(spec.interface, "interfaces", "spec.interface")
    mark, mask = _mark(spec)
    action, kernel_table = _action(spec)
    return Rule(
        resource=message.name,
        table=names.resource_id(names.parent(message.name)),
        version=_version(spec, source, destination),
        priority=spec.priority,
        source=_selecting(source),
        destination=_selecting(destination),
        interface=spec.interface,
        mark=mark,
        mark_mask=mask,
        action=action,
        kernel_table=kernel_table,
        generation=message.generation,
    )


def neighbor(message: neighbor_pb2.Neighbor) -> Neighbor:
    """Raises InvalidSpec."""
    spec = message.spec
    names.check(message.name, "neighbors", "name")
    if not spec.address:
        text = "is required: give an address such as 192.0.2.7 or 2001:db8::7"
        raise errors.InvalidSpec("spec.address", text, reason="REQUIRED_FIELD")
    address = field.address("spec.address", spec.address)
    if address.is_multicast or address.is_loopback:
        raise errors.InvalidSpec("spec.address", f"{spec.address!r} is no neighbour's: it is multicast or loopback")
    return Neighbor(
        resource=message.name,
        table=names.resource_id(names.parent(message.name)),
        address=str(address),
        interface=names.check(spec.interface, "interfaces", "spec.interface"),
        mac=_mac_of(spec),
        proxy=spec.proxy,
        generation=message.generation,
    )


def _version(spec: rule_pb2.RuleSpec, *prefixes: field.Network | None) -> int:
    asked = _VERSIONS.get(spec.family)
    if asked is None:
        raise errors.InvalidSpec("spec.family", "is not a known family: use IPV4 or IPV6")
    versions = {prefix.version for prefix in prefixes if prefix is not None} | ({asked} - {0})
    if len(versions) > 1:
        raise errors.InvalidSpec("spec.family", "does not fit: source, destination and family must be all IPv4 or all IPv6")
    if not versions:
        text = "is required where neither source nor destination tells it: give IPV4 or IPV6"
        raise errors.InvalidSpec("spec.family", text, reason="REQUIRED_FIELD")
    return versions.pop()


def _selecting(prefix: field.Network | None) -> str:
    """A prefix that holds everything selects nothing: the kernel keeps none then."""
    return str(prefix) if prefix is not None and prefix.prefixlen else ""


def _mark(spec: rule_pb2.RuleSpec) -> tuple[int, int]:
    mask = spec.mark_mask or (ALL_BITS if spec.mark else 0)
    if spec.mark & ~mask:
        text = f"{spec.mark:#x} has bits outside mark_mask {mask:#x}, so no packet would fit: widen the mask"
        raise errors.InvalidSpec("spec.mark", text)
    return spec.mark, mask


def _action(spec: rule_pb2.RuleSpec) -> tuple[str, int]:
    action = _ACTIONS.get(spec.action)
    if action is None:
        raise errors.InvalidSpec("spec.action", "is not a known action: use LOOKUP, BLACKHOLE, UNREACHABLE or PROHIBIT")
    if action == "lookup" and not spec.kernel_table:
        text = "is required for LOOKUP: give the kernel table to ask, such as 100 (254 is main)"
        raise errors.InvalidSpec("spec.kernel_table", text, reason="REQUIRED_FIELD")
    if action != "lookup" and spec.kernel_table:
        raise errors.InvalidSpec("spec.kernel_table", f"must be left out for {action.upper()}: no table is asked")
    return action, spec.kernel_table


def _mac_of(spec: neighbor_pb2.NeighborSpec) -> str:
    if spec.proxy and spec.mac_address:
        raise errors.InvalidSpec("spec.mac_address", "must be left out with proxy: the answer tells the interface's own")
    if spec.proxy:
        return ""
    if not spec.mac_address:
        text = "is required: give the neighbour's, or set proxy to answer in its place"
        raise errors.InvalidSpec("spec.mac_address", text, reason="REQUIRED_FIELD")
    mac = field.mac_address("spec.mac_address", spec.mac_address)
    if mac == _NOBODY:
        raise errors.InvalidSpec("spec.mac_address", f"{mac} is nobody's: give the neighbour's")
    return mac
