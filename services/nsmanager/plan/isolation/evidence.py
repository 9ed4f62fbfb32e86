"""The values between driver and judgement. A table is named by its id."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from crossns import examination, proof
from crossns.v1 import isolation_pb2
from services.nsmanager.plan.isolation.declared import Declared


class Layer(Enum):
    INTERFACE = isolation_pb2.ISOLATION_LAYER_INTERFACE
    ROUTING = isolation_pb2.ISOLATION_LAYER_ROUTING
    NEIGHBOR = isolation_pb2.ISOLATION_LAYER_NEIGHBOR
    FIREWALL = isolation_pb2.ISOLATION_LAYER_FIREWALL
    SOCKET = isolation_pb2.ISOLATION_LAYER_SOCKET


class Verdict(Enum):
    ISOLATED = isolation_pb2.ISOLATION_VERDICT_ISOLATED
    LEAK = isolation_pb2.ISOLATION_VERDICT_LEAK
    UNPROVEN = isolation_pb2.ISOLATION_VERDICT_UNPROVEN
    ALLOWED = isolation_pb2.ISOLATION_VERDICT_ALLOWED


@dataclass(frozen=True, slots=True)
class Finding:
    """`tables` () is all of them."""

    layer: Layer
    verdict: Verdict
    tried: str
    evidence: str
    tables: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Played:
    """What became of a trial in one table. `number` is its own in the trial."""

    table: str
    number: int
    held: proof.Held
    traces: proof.Traces


@dataclass(frozen=True, slots=True)
class Evidence:
    """`ways`: by table, what hangs on its links that lead into another one; `declared`: what may lead there; `astray`: the tables
    whose name in /run/netns is another namespace's."""

    tables: tuple[str, ...]
    surveyed: proof.Surveyed
    ways: Mapping[str, examination.Examination]
    ground: proof.Ground
    played: tuple[Played, ...]
    declared: Declared = field(default_factory=dict)
    astray: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Progress:
    step: str
    number: int
    count: int


def full(table: str) -> str:
    return f"routeTables/{table}"


def listed(tables: Iterable[str]) -> str:
    return ", ".join(full(table) for table in tables)
