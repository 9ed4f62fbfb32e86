"""The values between driver and plan."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from services.proxy import model, render


@dataclass(frozen=True, slots=True)
class Trial:
    """What is left out because HAProxy did not start with it: `refused`, with the words against each part, for good as far as we
    know; `postponed`, group by group, until the rest has been tried: HAProxy did not start with the last group in its place."""

    refused: Mapping[render.Part, str] = field(default_factory=dict)
    postponed: tuple[tuple[render.Part, ...], ...] = ()

    @property
    def left_out(self) -> frozenset[render.Part]:
        return frozenset(self.refused).union(*self.postponed)


@dataclass(frozen=True, slots=True)
class Observed:
    """HAProxy as it is, and the limits that it has on this device.

    `running`: the launcher keeps one; `digest`: of the configuration that it took last, "" where it does not answer; `serving`:
    the parts that its current worker has; `namespaces`: those that engines can enter.
    """

    limits: render.Limits
    running: bool = False
    digest: str = ""
    serving: frozenset[render.Part] = frozenset()
    namespaces: frozenset[str] = frozenset()
    trial: Trial = field(default_factory=Trial)


@dataclass(frozen=True, slots=True)
class StartEngine:
    """Let HAProxy run `config`, whether it runs or not. `new` are the listeners in it that it does not have yet."""

    # Not shown: megabytes would end up in logs and spans.
    config: str = field(repr=False)
    new: frozenset[render.Part] = field(default=frozenset(), repr=False)
    resource: str = model.UNIT


@dataclass(frozen=True, slots=True)
class StopEngine:
    resource: str = model.UNIT


Operation = StartEngine | StopEngine


def digest(config: str) -> str:
    """SHA-256 in hex, as the launcher gives it."""
    return hashlib.sha256(config.encode()).hexdigest()
