"""The values that the proxy plans with. Route tables go by resource name, their namespaces by `<table>.<cookie>`."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

COLLECTION = "vServices"
# What the loop works on in one piece: all vServices share one HAProxy.
UNIT = "engines/haproxy"
PORT_MAX = 65535
WEIGHT_MAX = 256

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Protocol = Literal["tcp", "http"]
Algorithm = Literal["round robin", "least connections", "source hash", "random", "first"]
MemberState = Literal["enabled", "drain", "disabled"]


@dataclass(frozen=True, slots=True)
class Timeouts:
    """In milliseconds; None for the default of the protocol."""

    connect_ms: int | None = None
    client_idle_ms: int | None = None
    member_idle_ms: int | None = None
    queue_ms: int | None = None
    http_request_ms: int | None = None
    http_keep_alive_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """Of a frontend; 0 for none."""

    connections: int = 0
    connections_per_client: int = 0
    connection_rate: int = 0


@dataclass(frozen=True)
class Frontend:
    """`pool` is never empty; `end_port` is the last port, `port` where it is the only one."""

    name: str
    table: str
    address: Address
    port: int
    pool: str
    end_port: int
    accept_proxy: bool = False
    limits: Limits = field(default_factory=Limits)

    @property
    def ports(self) -> int:
        return self.end_port - self.port + 1

    @cached_property
    def sockets(self) -> tuple[str, ...]:
        """`10.0.0.5:80`, `[fd00::5]:80`; one for each port."""
        return tuple(socket(self.address, port) for port in range(self.port, self.end_port + 1))


@dataclass(frozen=True)
class Member:
    """`port` 0 is the port at which the client arrived; `max_connections` 0 is no limit."""

    name: str
    table: str
    address: Address
    port: int
    weight: int = 1
    state: MemberState = "enabled"
    max_connections: int = 0

    @cached_property
    def socket(self) -> str:
        return socket(self.address, self.port)


@dataclass(frozen=True, slots=True)
class Pool:
    """`send_proxy`: the version of the PROXY protocol that members are spoken to with, 0 for none."""

    name: str
    members: tuple[Member, ...]
    algorithm: Algorithm = "round robin"
    send_proxy: Literal[0, 1, 2] = 0


@dataclass(frozen=True, slots=True)
class VService:
    """`name` is the resource name, `created_ns` is in nanoseconds of the epoch. `memo`, which is no part of the value, keeps what
    was last made of it."""

    name: str
    frontends: tuple[Frontend, ...]
    pools: tuple[Pool, ...]
    generation: int = 0
    protocol: Protocol = "tcp"
    timeouts: Timeouts = field(default_factory=Timeouts)
    access_log: bool = False
    created_ns: int = 0
    memo: dict[str, tuple[object, object]] = field(default_factory=dict, init=False, compare=False, repr=False)

    @property
    def tables(self) -> frozenset[str]:
        """Those that it stands in, with a frontend or a member."""
        members = {member.table for pool in self.pools for member in pool.members}
        return frozenset(members | {frontend.table for frontend in self.frontends})


@dataclass(frozen=True, slots=True)
class Invalid:
    """A stored vService that is none any more: another release took it. `reason` and `message` say what is wrong with it."""

    name: str
    generation: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True, eq=False)
class Desired:
    """What HAProxy should serve at one moment. `tables`: the namespace of each route table that has one; `leaving`: vServices
    being deleted; `invalid`: those that cannot be served."""

    services: tuple[VService, ...]
    tables: Mapping[str, str]
    leaving: frozenset[str] = frozenset()
    invalid: tuple[Invalid, ...] = ()


def socket(address: Address, port: int) -> str:
    """`10.0.0.5:80`, `[fd00::5]:80`."""
    host = f"[{address}]" if address.version == 6 else f"{address}"
    return f"{host}:{port}"
