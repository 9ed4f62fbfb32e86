"""Single fields of a vService: each is checked here, and refused with its path and what to give instead.

Called by `parse`.
"""

import ipaddress
from collections.abc import Mapping
from typing import TypeVar

from google.protobuf import duration_pb2

from crossns import errors
from services.proxy.model.values import PORT_MAX, Address

TIMEOUT_MAX_S = 24 * 3600
_LIMITED_BROADCAST = ipaddress.IPv4Address("255.255.255.255")

_Value = TypeVar("_Value")


def required(field: str, what: str) -> errors.InvalidSpec:
    return errors.InvalidSpec(field, f"is required: give {what}", reason="REQUIRED_FIELD")


def choice(value: int, words: Mapping[str, _Value], field: str, default: str) -> _Value:
    """What the enum's `value` stands for; `words` has its values in the order of their numbers, from 1."""
    if not value:
        return words[default]
    if not 0 < value <= len(words):
        raise errors.InvalidSpec(field, f"{value} is not known here: give {', '.join(words)}", value=value)
    return tuple(words.values())[value - 1]


def whole(value: int, field: str, at_most: int) -> int:
    """0..`at_most`."""
    if not 0 <= value <= at_most:
        raise errors.InvalidSpec(field, f"{value} is out of range: give 0..{at_most}", value=value, max=at_most)
    return value


def port(value: int, field: str) -> int:
    """1..65535."""
    if value == 0:
        raise required(field, f"1..{PORT_MAX}")
    if not 1 <= value <= PORT_MAX:
        raise errors.InvalidSpec(field, f"{value} is not a port: give 1..{PORT_MAX}", value=value)
    return value


def milliseconds(value: duration_pb2.Duration, field: str) -> int:
    """1ms..24h without a rest."""
    try:
        shown = value.ToJsonString()
    except ValueError:
        raise errors.InvalidSpec(field, f"is no duration: give 0.001s..{TIMEOUT_MAX_S}s") from None
    if not 0 < value.ToNanoseconds() <= TIMEOUT_MAX_S * 10**9:
        raise errors.InvalidSpec(field, f"{shown} is out of range: give 0.001s..{TIMEOUT_MAX_S}s", value=shown)
    if value.nanos % 10**6:
        raise errors.InvalidSpec(field, f"{shown} is too fine: give whole milliseconds, such as 0.25s", value=shown)
    return value.ToMilliseconds()


def address(text: str, field: str) -> Address:
    """An address that can be a VIP or a member's: a unicast one that means the same on every link of its table."""
    if not text:
        raise required(field, "an IPv4 or IPv6 address")
    shown = errors.bounded(repr(text))
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        raise errors.InvalidSpec(field, f"{shown} is not an IPv4 or IPv6 address", value=shown) from None
    fault = _fault_of(found)
    if fault:
        raise errors.InvalidSpec(field, f"{shown} {fault}", value=shown)
    return found


def _fault_of(found: Address) -> str:
    """Why `found` will not do, and what to give instead; "" where it will."""
    if found.is_unspecified:
        return "is the unspecified address: give the one to use"
    if found.is_multicast or found == _LIMITED_BROADCAST:
        return "is no unicast address: give one that belongs to one host"
    if found.is_loopback:
        return "is a loopback address, which never leaves its host: give one that the route table's links reach"
    if isinstance(found, ipaddress.IPv4Address):
        return ""
    if found.ipv4_mapped is not None:
        return f"is an IPv4-mapped address: give {found.ipv4_mapped}"
    if int(found) >> 32 == 0:
        # HAProxy writes `::a00:5` as `::10.0.0.5`, and would not be seen to have it.
        return "is an IPv4-compatible address, which nobody routes (RFC 4291): give an IPv4, a global or a unique local one"
    if found.is_link_local or found.scope_id is not None:
        return "is valid on one link only: give a global or unique local address"
    return ""
