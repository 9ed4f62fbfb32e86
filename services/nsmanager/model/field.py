"""What many fields have in common: how text, numbers, addresses, prefixes and names of links are checked, and said to be wrong.

Pure. Called by the modules that parse a kind of resource.
"""

import ipaddress
import re

from crossns import errors

# IFNAMSIZ is 16 with the closing NUL (linux/if.h).
LINK_NAME_MAX = 15
# What the kernel (dev_valid_name) and iproute2 both take, less what would need quoting anywhere.
_LINK_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def check_link_name(field: str, name: str) -> str:
    if len(name) > LINK_NAME_MAX:
        raise errors.InvalidSpec(
            field, f"{errors.bounded(repr(name))} has more than {LINK_NAME_MAX} characters: choose a shorter one"
        )
    if not _LINK_NAME.fullmatch(name) or name in ("lo", "all", "default"):
        raise errors.InvalidSpec(
            field,
            f"{name!r} is not a link name: use letters, digits, `_`, `.` and `-`, beginning with none of the last two, "
            "and not lo, all or default",
        )
    return name


def mac_address(field: str, text: str) -> str:
    """In lower case."""
    if not _MAC.fullmatch(text.lower()):
        raise errors.InvalidSpec(field, f"{errors.bounded(repr(text))} is not of the form aa:bb:cc:dd:ee:ff")
    return text.lower()


def prefixed(field: str, text: str) -> str:
    try:
        value = ipaddress.ip_interface(text)
    except ValueError:
        raise errors.InvalidSpec(
            field, f"{errors.bounded(repr(text))} is not an address with prefix length, such as 10.0.0.1/24"
        ) from None
    if "/" not in text:
        raise errors.InvalidSpec(
            field, f"{text!r} lacks the prefix length: write {text}/{24 if value.version == 4 else 64} or what fits"
        )
    if not _is_usable(value.ip) or "%" in text:
        raise errors.InvalidSpec(field, f"{text!r} cannot be given to a link: it is unspecified, loopback, multicast or scoped")
    return str(value)


def address(field: str, text: str) -> Address:
    try:
        value = ipaddress.ip_address(text)
    except ValueError:
        raise errors.InvalidSpec(
            field, f"{errors.bounded(repr(text))} is not an IP address, such as 10.0.0.1 or 2001:db8::1"
        ) from None
    if value.is_unspecified or (isinstance(value, ipaddress.IPv6Address) and value.scope_id):
        raise errors.InvalidSpec(field, f"{text!r} does not name one host")
    return value


def _is_usable(value: Address) -> bool:
    return not (value.is_unspecified or value.is_loopback or value.is_multicast)


def network(field: str, text: str) -> Network:
    if not text:
        raise errors.InvalidSpec(field, "is required: give a prefix such as 192.0.2.0/24 or 0.0.0.0/0", reason="REQUIRED_FIELD")
    try:
        loose = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise errors.InvalidSpec(field, f"{errors.bounded(repr(text))} is not a prefix, such as 192.0.2.0/24") from None
    if "/" not in text or str(loose.network_address) != str(ipaddress.ip_interface(text).ip):
        raise errors.InvalidSpec(field, f"{text!r} has host bits, or no length: write {loose}")
    return loose


def check_text(field: str, text: str, longest: int) -> None:
    if len(text) > longest:
        raise errors.InvalidSpec(field, f"has {len(text)} characters, at most {longest} are taken", max=longest)
    if not text.isprintable():
        raise errors.InvalidSpec(field, "holds characters that cannot be printed: remove line breaks and control characters")


def check_range(field: str, value: int, first: int, last: int) -> None:
    if not first <= value <= last:
        raise errors.InvalidSpec(field, f"{value} is not within {first}..{last}", value=value, min=first, max=last)
