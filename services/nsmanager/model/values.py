"""The values that nsmanager plans with. A table is named by its id here (`tenant-a`), as on the device."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from crossns.budget import Budget

BUILT_IN = "default"


def mark_of(resource: str) -> str:
    """The altname that marks an interface's link: iproute2 refuses a slash in one."""
    return resource.replace("/", ".")


def resource_of(mark: str) -> str:
    """The inverse of `mark_of`."""
    return mark.replace(".", "/", 1)


@dataclass(frozen=True, slots=True)
class Table:
    resource: str
    id: str
    index: int
    forwarding: bool
    generation: int
    # What is asked of every link of the table, by the name of a sysctl of net.ipv4.conf; what is not asked is not in it.
    conf: Mapping[str, int] = field(default_factory=dict)
    budget: Budget | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """`card_name` or `card_mac` select a network card of `default` (kind "physical"). `ports` are those of a bridge or bond."""

    resource: str
    table: str
    name: str
    kind: str
    addresses: tuple[str, ...]
    mtu: int
    up: bool
    generation: int
    card_name: str = ""
    card_mac: str = ""
    parent: str = ""
    ports: tuple[str, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)

    @property
    def mark(self) -> str:
        return mark_of(self.resource)


@dataclass(frozen=True, slots=True)
class Hop:
    gateway: str
    interface: str
    weight: int


@dataclass(frozen=True, slots=True)
class Route:
    resource: str
    table: str
    destination: str
    kernel_table: int
    metric: int
    kind: str
    hops: tuple[Hop, ...]
    generation: int


@dataclass(frozen=True, slots=True)
class Rule:
    """`version` is 4 or 6. What is "" or 0 of `source`, `destination`, `interface` and `mark_mask` selects nothing."""

    resource: str
    table: str
    version: int
    priority: int
    source: str
    destination: str
    interface: str
    mark: int
    mark_mask: int
    action: str
    kernel_table: int
    generation: int


@dataclass(frozen=True, slots=True)
class Neighbor:
    """`mac` is "" where the table answers in its place (`proxy`)."""

    resource: str
    table: str
    address: str
    interface: str
    mac: str
    proxy: bool
    generation: int


@dataclass(frozen=True, slots=True)
class Vip:
    """The address of one frontend of a vService; `prefix` is address/32 or address/128. `siblings`: all its frontends."""

    resource: str
    frontend: str
    table: str
    prefix: str
    generation: int
    siblings: frozenset[str]


@dataclass(frozen=True, slots=True)
class Desired:
    """Everything that one route table should be. `table` None: it should not be there.

    `leaving`: resources of the table that are being deleted; `leaving_vips` the same for frontends; `all_links`: every
    living interface of the device by resource name, this table's included.
    """

    id: str
    table: Table | None
    links: tuple[Link, ...] = ()
    routes: tuple[Route, ...] = ()
    rules: tuple[Rule, ...] = ()
    neighbors: tuple[Neighbor, ...] = ()
    vips: tuple[Vip, ...] = ()
    leaving: frozenset[str] = frozenset()
    leaving_vips: tuple[Vip, ...] = ()
    all_links: Mapping[str, Link] = field(default_factory=dict)

    @property
    def is_built_in(self) -> bool:
        return self.id == BUILT_IN

    def link_of(self, interface: str) -> Link | None:
        """The interface of that name, where it is wanted in this table."""
        link = self.all_links.get(interface)
        return link if link is not None and link.table == self.id else None
