"""Kinds of links: attributes as text on our side, IFLA_INFO_DATA on the kernel's. One table for both directions.

Pure. `tap` is absent from what is encoded: the kernel makes it by an ioctl (`tap`), and calls it `tun`.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pyroute2.netlink import nlmsg

from services.nsmanager.agent.rtnl import Attributes

# linux/if_tun.h: IFLA_TUN_TYPE of a tap.
_IFF_TAP = 2
_NO_UID = 0xFFFFFFFF


class _Field(NamedTuple):
    attribute: str
    encode: Callable[[str], Any]
    decode: Callable[[Any], str]
    # What it is where the kernel does not show it; None leaves it out.
    absent: str | None = None


def _number(attribute: str) -> _Field:
    return _Field(attribute, int, str)


def _address(family: str) -> _Field:
    return _Field(family, str, str)


# linux/if_link.h, MACVLAN_MODE_*
_MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
_MACVLAN_NAMES = {number: name for name, number in _MACVLAN_MODES.items()}


def _macvlan_mode(number: int) -> str:
    return _MACVLAN_NAMES.get(number, str(number))


_FIELDS: dict[str, dict[str, tuple[_Field, ...]]] = {
    "bridge": {"stp": (_number("IFLA_BR_STP_STATE"),)},
    "macvlan": {"mode": (_Field("IFLA_MACVLAN_MODE", _MACVLAN_MODES.__getitem__, _macvlan_mode),)},
    "vlan": {"vlan_id": (_number("IFLA_VLAN_ID"),)},
    "vxlan": {
        "vni": (_number("IFLA_VXLAN_ID"),),
        # For IPv4 and for IPv6; remotes may be multicast groups, as the kernel's name says.
        "local": (_address("IFLA_VXLAN_LOCAL"), _address("IFLA_VXLAN_LOCAL6")),
        "remote": (_address("IFLA_VXLAN_GROUP"), _address("IFLA_VXLAN_GROUP6")),
        "port": (_number("IFLA_VXLAN_PORT"),),
    },
    "bond": {"mode": (_number("IFLA_BOND_MODE"),)},
    "dummy": {},
    "tun": {"owner_uid": (_Field("IFLA_TUN_OWNER", int, lambda uid: "0" if uid == _NO_UID else str(uid), absent="0"),)},
}


def named(kernel_kind: str, content: nlmsg | None) -> str:
    """The kind as our messages name it."""
    is_tap = kernel_kind == "tun" and content is not None and content.get_attr("IFLA_TUN_TYPE") == _IFF_TAP
    return "tap" if is_tap else kernel_kind


def observed(kernel_kind: str, content: nlmsg) -> dict[str, str]:
    """What the kernel shows of a link's own attributes; those it does not show are left out."""
    found: dict[str, str] = {}
    for name, fields in _FIELDS.get(kernel_kind, {}).items():
        for field in fields:
            value = content.get_attr(field.attribute)
            if value is not None:
                found[name] = field.decode(value)
            elif field.absent is not None:
                found[name] = field.absent
    return found


def encoded(kind: str, attributes: Mapping[str, str]) -> Attributes:
    """IFLA_LINKINFO for `attributes`; ValueError or KeyError for one that the kind does not have."""
    fields = [(_fitting(kind, name, text), text) for name, text in attributes.items()]
    content = [(field.attribute, field.encode(text)) for field, text in fields]
    information: Attributes = [("IFLA_INFO_KIND", kind)]
    if content:
        information.append(("IFLA_INFO_DATA", {"attrs": content}))
    return [("IFLA_LINKINFO", {"attrs": information})]


def _fitting(kind: str, name: str, text: str) -> _Field:
    fields = _FIELDS[kind][name]
    return fields[-1] if ":" in text else fields[0]
