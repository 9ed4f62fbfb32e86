"""What a route table is to others, derived from its index and nothing else: so it is the same after any absence.

Pure; the report and GetIdentity tell it. An index is a device's own, so whatever has room for 65,535 values is unique on the
device: router id and control sockets. What has less room repeats, and is unique among the tables of a block: VRIDs among 255
indices that follow each other, ports among 1,596. Who of the device shares one is told, for whether that matters is known to
nobody here: a VRID must be unique on one LAN only (RFC 5798 5.2.3), a port only among those who listen at one address.
"""

from collections.abc import Mapping
from dataclasses import dataclass

INDEX_MAX = 65535
# VRRP has 8 bits for a virtual router id, and 0 is not one (RFC 5798 5.2.3).
VRID_COUNT = 255
# Each table has eight ports for what must listen outside of it; all lie below the kernel's ephemeral ones, which begin at 32768
# (Documentation/networking/ip-sysctl, ip_local_port_range), and above those that services are known by.
PORT_FIRST, PORT_COUNT = 20000, 8
_PORT_BLOCKS = (32768 - PORT_FIRST) // PORT_COUNT


@dataclass(frozen=True, slots=True)
class Identity:
    """`vrid_base` 1..255. `router_id`: 32 bits as an IPv4 address, never 0.0.0.0 (RFC 2328 C.1, RFC 6286 2.1), of 0.0.0.0/16,
    which no host has (RFC 1122 3.2.1.3). `control_socket_prefix`: the beginning of file names, at most 7 characters.
    `port_base`: the first of PORT_COUNT ports, 20000..32760."""

    index: int
    vrid_base: int
    router_id: str
    control_socket_prefix: str
    port_base: int


def of(index: int) -> Identity:
    """For an index of 1..INDEX_MAX."""
    return Identity(
        index=index,
        vrid_base=(index - 1) % VRID_COUNT + 1,
        router_id=f"0.0.{index >> 8}.{index & 255}",
        control_socket_prefix=f"rt{index}",
        port_base=PORT_FIRST + (index - 1) % _PORT_BLOCKS * PORT_COUNT,
    )


def sharing(index: int, others: Mapping[int, str], field: str) -> tuple[str, ...]:
    """Who of `others` (index -> name) has the same `field` as the table of `index`, by name; itself left out."""
    own = getattr(of(index), field)
    return tuple(sorted(name for other, name in others.items() if other != index and getattr(of(other), field) == own))
