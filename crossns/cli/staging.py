"""A copy of one route table's settings under another name, which can stand beside the original. Pure.

Called by `export --as`. What exists once is left out and told: network cards, VIPs, a chosen index, and what stands on any of
these. References among the table's own resources follow, those to others stay. Names that the copy has already, from an earlier
time or because it is itself the original of this one, are taken again: so copying twice changes nothing, and copying back gives
the original, but for names that were too long or taken.
"""

import hashlib
import ipaddress
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from google.protobuf.message import Message

from crossns import names
from crossns.resource import Resource
from crossns.v1 import interface_pb2, route_pb2, route_table_pb2, v_service_pb2

# IFNAMSIZ less its end (linux/if.h).
_LINK_NAME_MAX = 15
# Of what makes a name that was cut one of its own.
_DIGITS = 4


@dataclass(frozen=True, slots=True)
class Copy:
    """`left_out`: what was, and why, a line each."""

    resources: tuple[Resource, ...]
    left_out: tuple[str, ...]


def copied(everything: Iterable[Resource], source: str, target: str, labels: Mapping[str, str]) -> Copy:
    """The table `source` as `target`, both full names, and of what is in it that which carries all of `labels`. `everything`: all
    that is wanted of the device, in order of dependency."""
    known = {each.name: each for each in everything}
    own = {name: each for name, each in known.items() if _is_of(each, source)}
    own.setdefault(source, route_table_pb2.RouteTable(name=source))
    left = {name: why for name, each in known.items() if (why := _only_once(each, source, own))}
    left |= {
        name: "it lacks a label" for name, each in own.items() if name != source and not labels.items() <= each.labels.items()
    }
    while more := {name: why for name, each in own.items() if name not in left and (why := _stands_on(each, own, left))}:
        left |= more
    kept = [each for name, each in own.items() if name not in left]
    renames = _renames(kept, known, source, target)
    links = _link_names(kept, renames, known, source, target)
    lines = [f"{name}: {why}" for name, why in left.items()]
    for each in kept:
        lines += [f"{each.name}: its {path} {text}" for path, text in _items(each.spec) if text in left]
        if isinstance(each, route_table_pb2.RouteTable) and each.spec.index:
            lines.append(f"{each.name}: its index {each.spec.index}, for the copy gets one of its own")
    return Copy(tuple(_copy(each, renames, left, links) for each in kept), tuple(lines))


def _is_of(resource: Resource, table: str) -> bool:
    if isinstance(resource, interface_pb2.Interface):
        return resource.spec.route_table == table
    return table in (resource.name, names.parent(resource.name))


def _only_once(resource: Resource, source: str, own: Mapping[str, Resource]) -> str:
    """Why there can be no second one of it, "" where there can."""
    if isinstance(resource, v_service_pb2.VService):
        vips = sorted({each.address for each in resource.spec.frontends if each.route_table == source})
        if vips:
            return f"its VIP {', '.join(vips)} is in one table only"
    if resource.name not in own:
        return "it is not of this table alone" if source in _texts(resource.spec) else ""
    if isinstance(resource, interface_pb2.Interface) and resource.spec.HasField("physical"):
        return "a network card is in one table only"
    if isinstance(resource, interface_pb2.Interface) and resource.spec.HasField("vlan") and resource.spec.vlan.parent not in own:
        return f"{resource.spec.vlan.parent} has VLAN {resource.spec.vlan.vlan_id} once only"
    return ""


def _stands_on(resource: Resource, own: Mapping[str, Resource], left: Collection[str]) -> str:
    """Why it cannot be without what was left out, "" where it can."""
    in_lists = [text for _, text in _items(resource.spec)]
    missing = [text for text in _texts(resource.spec) if text in left and text not in in_lists]
    if missing:
        return f"it needs {missing[0]}"
    if isinstance(resource, route_pb2.Route):
        kept = [each for name, each in own.items() if name not in left]
        held = [_network(text) for each in kept if isinstance(each, interface_pb2.Interface) for text in each.spec.addresses]
        for hop in resource.spec.gateways:
            if not hop.interface and not any(ipaddress.ip_address(hop.address) in network for network in held):
                return f"its gateway {hop.address} is reached through what was left out"
    return ""


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_interface(text).network


def _renames(kept: Iterable[Resource], known: Mapping[str, Resource], source: str, target: str) -> dict[str, str]:
    """Old name -> new name."""
    renames: dict[str, str] = {}
    identifiers = {name: names.resource_id(name) for name, each in known.items() if isinstance(each, interface_pb2.Interface)}
    there = {text for name, text in identifiers.items() if _is_of(known[name], target)}
    taken = set(identifiers.values()) - there
    for each in kept:
        if isinstance(each, interface_pb2.Interface):
            wanted = _follows(identifiers[each.name], source, target, there.__contains__)
            free = _free(wanted, names.ID_MAX, taken.__contains__)
            renames[each.name] = f"interfaces/{free}"
            taken.add(free)
        else:
            renames[each.name] = target + each.name.removeprefix(source)
    return renames


def _link_names(
    kept: Iterable[Resource], renames: Mapping[str, str], known: Mapping[str, Resource], source: str, target: str
) -> dict[str, str]:
    """Old name of an interface -> the copy's link name, "" where that follows from its id."""
    links: dict[str, str] = {}
    copies = set(renames.values())
    interfaces = {name: each for name, each in known.items() if isinstance(each, interface_pb2.Interface)}
    taken = {_link_name(each) for name, each in interfaces.items() if _is_of(each, target) and name not in copies}
    for each in kept:
        if isinstance(each, interface_pb2.Interface):
            there = interfaces.get(renames[each.name])
            identifier = names.resource_id(renames[each.name])
            if there is not None:
                links[each.name] = there.spec.link_name
            elif not each.spec.link_name and len(identifier) <= _LINK_NAME_MAX and identifier not in taken:
                links[each.name] = ""
            else:
                wanted = _follows(_link_name(each), source, target, lambda _: False)
                links[each.name] = _free(wanted, _LINK_NAME_MAX, taken.__contains__)
            taken.add(links[each.name] or identifier)
    return links


def _link_name(interface: interface_pb2.Interface) -> str:
    return interface.spec.link_name or names.resource_id(interface.name)


def _follows(text: str, source: str, target: str, is_original: Callable[[str], bool]) -> str:
    """The name for the copy of what is called `text`: it speaks of the new table where it spoke of the old one, or has the new
    one's id behind it; of what is a copy itself the name of its original."""
    old, new = names.resource_id(source), names.resource_id(target)
    bare = text.removesuffix(f"-{old}")
    if bare != text and is_original(bare):
        return bare
    changed = re.sub(rf"(?<![A-Za-z0-9]){re.escape(old)}(?![A-Za-z0-9])", new, text, count=1)
    return changed if changed != text else f"{text}-{new}"


def _free(wanted: str, longest: int, is_taken: Callable[[str], bool]) -> str:
    """`wanted`, or where that is too long or taken its beginning with digits that make it one of its own."""
    candidate, attempt = wanted, 0
    while len(candidate) > longest or is_taken(candidate):
        digits = hashlib.sha256(f"{wanted} {attempt}".encode()).hexdigest()[:_DIGITS]
        candidate = f"{wanted[: longest - _DIGITS - 1].rstrip('-')}-{digits}"
        attempt += 1
    return candidate


def _copy(resource: Resource, renames: Mapping[str, str], left: Collection[str], links: Mapping[str, str]) -> Resource:
    result = type(resource)()
    result.CopyFrom(resource)  # type: ignore[arg-type]
    _rewrite(result.spec, renames, left)
    result.name = renames[resource.name]
    if isinstance(result, route_table_pb2.RouteTable):
        result.spec.index = 0
    if isinstance(result, interface_pb2.Interface):
        result.spec.link_name = links[resource.name]
    return result


def _rewrite(message: Message, renames: Mapping[str, str], left: Collection[str]) -> None:
    for field, value in message.ListFields():
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for each in value if field.is_repeated else (value,):
                _rewrite(each, renames, left)
        elif field.type == field.TYPE_STRING and field.is_repeated:
            value[:] = [renames.get(text, text) for text in value if text not in left]
        elif field.type == field.TYPE_STRING:
            setattr(message, field.name, renames.get(value, value))


def _texts(message: Message) -> Iterator[str]:
    """Every text of a spec, whatever field it is in."""
    for field, value in message.ListFields():
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for each in value if field.is_repeated else (value,):
                yield from _texts(each)
        elif field.type == field.TYPE_STRING:
            yield from value if field.is_repeated else (value,)


def _items(message: Message, above: str = "") -> Iterator[tuple[str, str]]:
    """The texts that stand in lists, such as the ports of a bridge: (path, text). A list does without one of them."""
    for field, value in message.ListFields():
        path = f"{above}{field.camelcase_name}"
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for each in value if field.is_repeated else (value,):
                yield from _items(each, f"{path}.")
        elif field.type == field.TYPE_STRING and field.is_repeated:
            yield from ((path, text) for text in value)
