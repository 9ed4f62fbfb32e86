"""Tries to find a fault: is every client served by both tenants, and can anything reach what it must not?

Each check is a command line that was run, what came of it, and whether that is as it should be.
"""

import asyncio
import json
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from crossns import errors
from crossns.cli.demo.stage import ACTORS, PORT, Actor, Stage

T = TypeVar("T")

REQUESTS = 100
_RATE = 200


@dataclass(frozen=True, slots=True)
class Served:
    """What one client got at one VIP. `by` counts answers by backend."""

    client: Actor
    target: str
    line: str
    answered: int
    lost: int
    by: dict[str, int]

    @property
    def is_right(self) -> bool:
        backends = {actor.name for actor in ACTORS if not actor.targets}
        return self.answered == REQUESTS and self.lost == 0 and set(self.by) == backends


@dataclass(frozen=True, slots=True)
class Reached:
    """Whom one place reaches: by actor, whether anything answered, and what was said where nothing did."""

    place: str
    table: str
    line: str
    answers: dict[str, bool]
    whys: dict[str, str]

    @property
    def is_right(self) -> bool:
        """Its own network's host, which shows that the attempt can succeed, and nobody else's."""
        return all(self.answers[actor.name] == (actor.table == self.table) for actor in ACTORS)


async def all_of(awaitables: Sequence[Awaitable[T]]) -> list[T]:
    """Run at the same time; the results in order."""

    async def one(awaitable: Awaitable[T]) -> T:
        return await awaitable

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(each)) for each in awaitables]
    return [task.result() for task in tasks]


async def serve(stage: Stage) -> list[Served]:
    """Every client asks each of its VIPs, on a new connection each time; one after the other, so that the turns can be seen."""
    return [await _ask(stage, actor, target) for actor in ACTORS for target in actor.targets]


async def _ask(stage: Stage, client: Actor, target: str) -> Served:
    options = f"--connections 0 --rate-new {_RATE} --requests {REQUESTS}"
    line = f"host {client.name} traffic load --target {target} {options}"
    counts = await ask(stage, line)
    return Served(client, target, line, counts["new"]["ok"], counts["new"]["failed"], counts["by_backend"])


async def ask(stage: Stage, line: str) -> dict[str, Any]:
    """What a client counted that ended by itself."""
    (counts,) = await _json_lines(stage, line, 1)
    return dict(counts)


async def isolate(stage: Stage) -> list[Reached]:
    """From every host and every route table, by ICMP and by TCP, to every host's own address."""
    hosts = [_reach(stage, actor.name, actor.table, f"host {actor.name}") for actor in ACTORS]
    tables = [_reach(stage, f"routeTables/{actor.table}", actor.table, f"crossns exec {actor.table} --") for actor in ACTORS]
    return await all_of([*hosts, *tables])


async def _reach(stage: Stage, place: str, table: str, prefix: str) -> Reached:
    targets = [target for actor in ACTORS for target in (actor.own, f"{actor.own}:{PORT}")]
    line = f"{prefix} traffic reach {' '.join(targets)}"
    outcomes = await _json_lines(stage, line, len(targets))
    pairs = list(zip(ACTORS, outcomes[::2], outcomes[1::2], strict=True))
    answers = {actor.name: icmp["reached"] or tcp["reached"] for actor, icmp, tcp in pairs}
    whys = {actor.name: tcp["why"] for actor, _, tcp in pairs}
    return Reached(place, table, line, answers, whys)


async def _json_lines(stage: Stage, line: str, number: int) -> list[Any]:
    """What a program of the lab printed; PermanentError with its words where it failed instead."""
    completed = await stage.run(line)
    with suppress(json.JSONDecodeError):
        told = [json.loads(text) for text in completed.stdout.splitlines()]
        if len(told) == number:
            return told
    words = errors.bounded(completed.stderr or completed.stdout)
    raise errors.PermanentError("INTERNAL", f"{line}: {words}")
