"""The values between driver and plan."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from services.proxy import model, render


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why HAProxy did not start with a part of a vService that was of this generation, or would not."""

    words: str
    generation: int
    reason: Literal["ENGINE_REFUSED", "LISTENERS_EXHAUSTED"] = "ENGINE_REFUSED"


@dataclass(frozen=True, slots=True)
class Seen:
    """A server of the running worker: how it is, what it is known by, whether it ever had a connection, and has one now."""

    server: render.Server
    id: int
    was_used: bool = False
    # It changes all the time, and nothing of what is rendered with it.
    is_busy: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """HAProxy as it is at one moment, and the limits that it has on this device.

    `running`: the launcher keeps one; `digest`: of the configuration that it would start with; `structure`, `listeners`,
    `servers` (section -> server name): of its current worker, empty where that does not answer; `namespaces`: those that engines
    can enter; `down`: the members that do not accept connections, with the reason; `unknown`: those that were there when this
    process began, and that it has not judged yet; `refused`: what HAProxy did not start with.
    """

    limits: render.Limits
    running: bool = False
    digest: str = ""
    structure: str = ""
    listeners: frozenset[render.Part] = frozenset()
    servers: Mapping[str, Mapping[str, Seen]] = field(default_factory=dict)
    namespaces: frozenset[str] = frozenset()
    down: Mapping[model.Target, str] = field(default_factory=dict)
    unknown: frozenset[model.Target] = frozenset()
    refused: Mapping[render.Part, Refusal] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StartEngine:
    """Let HAProxy run `config`, whether it runs or not. `ended`: the members whose connections end, those of the workers from
    before, too; `generations`: of the vServices that it is made of."""

    # Not shown: megabytes would end up in logs and spans.
    config: str = field(repr=False)
    ended: frozenset[render.Part] = frozenset()
    generations: Mapping[str, int] = field(default_factory=dict, repr=False)
    resource: str = model.UNIT


@dataclass(frozen=True, slots=True)
class SaveEngine:
    """Keep `config` for HAProxy's next start; the running one is like it already."""

    config: str = field(repr=False)
    resource: str = model.UNIT


@dataclass(frozen=True, slots=True)
class SetServer:
    """Change a server while it runs to be as `wanted`; `before` is how it was. `ended`: whose connections end, of all workers."""

    section: str
    name: str
    before: render.Server
    wanted: render.Server
    resource: str
    ended: frozenset[render.Part] = frozenset()


@dataclass(frozen=True, slots=True)
class StopEngine:
    resource: str = model.UNIT


Operation = StartEngine | SaveEngine | SetServer | StopEngine


def digest(config: str) -> str:
    """SHA-256 in hex, as the launcher gives it."""
    return hashlib.sha256(config.encode()).hexdigest()
