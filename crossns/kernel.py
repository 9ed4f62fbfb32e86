"""What the kernel shows of a namespace, and what an agent tells of its changes: links, addresses, routes, neighbours.

Pure values (msgspec), of the closed set that `operation` describes. What an agent tells is numbered and told again until it is
acknowledged, so neither side's restart loses it; what there is no room for is counted, by kind.
"""

from typing import Literal

import msgspec

from crossns.message import Message

Kind = Literal["link", "address", "route", "neighbor"]


class Link(Message, frozen=True):
    """A link as the kernel shows it. `kind` "" is a network card, `mark` the resource whose link it is (`interfaces.a-lan`)."""

    index: int
    name: str
    kind: str = ""
    mac: str = ""
    mtu: int = 0
    up: bool = False
    carrier: bool = False
    mark: str = ""
    was: str = ""
    master: str = ""
    parent_index: int = 0
    # Kind-specific attributes as text: vlan_id, vni, local, remote, port, mode, stp, owner_uid.
    attributes: dict[str, str] = msgspec.field(default_factory=dict)
    # Its own values of `sysctl.LinkName`; those that are 0 are left out.
    sysctls: dict[str, str] = msgspec.field(default_factory=dict)


class Address(Message, frozen=True):
    """`prefix` is address/length; `protocol` is IFA_PROTO (0 where the kernel set none)."""

    link: str
    prefix: str
    protocol: int = 0


class NextHop(msgspec.Struct, frozen=True, omit_defaults=True):
    gateway: str = ""
    link: str = ""
    weight: int = 1


class Route(Message, frozen=True):
    """`destination` is a prefix (`0.0.0.0/0` and `::/0` for the defaults); `kind` is a name of RTN_*."""

    destination: str
    kernel_table: int = 254
    metric: int = 0
    kind: Literal["unicast", "blackhole", "unreachable", "prohibit"] = "unicast"
    next_hops: tuple[NextHop, ...] = ()


class Neighbor(Message, frozen=True):
    """Whom the kernel knows on a link, whoever has told it. `state` is a name of NUD_*, in small letters; `mac` "" where it is
    not known (yet)."""

    link: str
    address: str
    mac: str = ""
    state: str = ""


class Change(Message, frozen=True):
    """One thing came, changed or (`gone`) went; `time_ns`, of the epoch, is when the agent heard of it."""

    subject: Link | Address | Route | Neighbor
    time_ns: int
    gone: bool = False


class Missed(Message, frozen=True):
    """So many changes of a kind (None: nobody knows of which) were not told, between what stands before and behind this."""

    kind: Kind | None
    count: int


class News(Message, frozen=True):
    """Event of an agent: what happened, in order. Told once more after `Subscribe` unless `number` was acknowledged."""

    number: int
    items: tuple[Change | Missed, ...]


class Subscribe(Message, frozen=True):
    """Tell this session what happens, beginning with what nobody has acknowledged. -> None"""


class Acknowledge(Message, frozen=True):
    """The news of this number need not be told again; the next may come. -> None"""

    number: int


Operation = Subscribe | Acknowledge
