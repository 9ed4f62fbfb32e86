"""The values that the proxy plans with. Route tables go by resource name, their namespaces by `<table>.<cookie>`."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

COLLECTION = "vServices"
# What the loop works on in one piece: all vServices share one HAProxy.
UNIT = "engines/haproxy"
PORT_MAX = 65535

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Frontend:
    """`pool` is never empty."""

    name: str
    table: str
    address: Address
    port: int
    pool: str


@dataclass(frozen=True, slots=True)
class Member:
    name: str
    table: str
    address: Address
    port: int


@dataclass(frozen=True, slots=True)
class Pool:
    name: str
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class VService:
    """`name` is the resource name."""

    name: str
    frontends: tuple[Frontend, ...]
    pools: tuple[Pool, ...]
    generation: int = 0


@dataclass(frozen=True, slots=True)
class Desired:
    """What HAProxy should serve. `tables`: the namespace of each route table that has one; `leaving`: vServices being deleted."""

    services: tuple[VService, ...]
    tables: Mapping[str, str]
    leaving: frozenset[str] = frozenset()


def socket_of(part: Frontend | Member) -> str:
    """`10.0.0.5:80`, `[fd00::5]:80`."""
    host = f"[{part.address}]" if part.address.version == 6 else f"{part.address}"
    return f"{host}:{part.port}"
