"""Takes a member out of service and back while a client goes on asking, and counts what the client lost.

Called by `command`. The load never asks twice; it ends when all is done, so that every step falls into it.
"""

import json
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from crossns import errors
from crossns.cli.demo import proof
from crossns.cli.demo.stage import Stage

_TARGET = "203.0.113.10:80"
_OUT, _OTHER = "backend-a", "backend-b"
_LOAD = f"host client-dmz traffic load --target {_TARGET} --connections 4 --rate 200 --rate-new 100 --seconds 60"
_ASK = f"host client-dmz traffic load --target {_TARGET} --connections 0 --rate-new 200 --requests 40"
# Commands, and who may answer new connections behind each.
STEPS = (("crossns service drain web ipv4/a", {_OTHER}), ("crossns service enable web ipv4/a", {_OUT, _OTHER}))
# Less than that would prove little.
KEPT_MIN, NEW_MIN = 100, 50


@dataclass(frozen=True, slots=True)
class Step:
    """A command, and who answered new connections once it had returned."""

    line: str
    by: dict[str, int]
    expected: set[str]

    @property
    def is_right(self) -> bool:
        return set(self.by) == self.expected


@dataclass(frozen=True, slots=True)
class Throughout:
    """What the client got that asked all the time, per second and in all."""

    line: str
    seconds: float
    kept: int
    new: int
    lost: int

    @property
    def is_right(self) -> bool:
        is_loaded = self.kept >= KEPT_MIN * self.seconds and self.new >= NEW_MIN * self.seconds
        return self.lost == 0 and is_loaded


async def maintain(stage: Stage, show: Callable[[Step], None]) -> Throughout:
    """Carry out STEPS, each told to `show`, under load."""
    loading = await stage.start(_LOAD)
    try:
        # Whoever is answered may be taken to be under load.
        await proof.ask(stage, _ASK)
        for line, expected in STEPS:
            await stage.run(line)
            show(Step(line, (await proof.ask(stage, _ASK))["by_backend"], expected))
    finally:
        loading.send_signal(signal.SIGTERM)
        told, _ = await loading.communicate()
    if loading.returncode:
        raise errors.PermanentError("INTERNAL", f"{_LOAD}: {errors.bounded(told.decode(errors='replace'))}")
    seen: dict[str, Any] = json.loads(told)
    kept, new = seen["kept"], seen["new"]
    return Throughout(_LOAD, seen["seconds"], kept["ok"], new["ok"], kept["failed"] + new["failed"])
