"""The loop: makes the device what the store says, for any service. There is no other.

The queue holds units (names of what is reconciled in one piece, such as a route table), never events; one unit is worked on by
one task at a time; what is desired is always read anew. A round observes, plans (pure), applies, observes again and reports.
Nothing runs before the first full snapshot, and nothing while the store is out of reach: then nothing on the device changes.
Every write is fenced by the leader key. Drivers never retry; this is the one place that does.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from crossns import cache, errors, names, queue, store, telemetry
from crossns.leader import Fenced
from crossns.parts import Parts
from crossns.registry import Registry
from crossns.resource import Status
from crossns.retry import Backoff
from crossns.v1 import status_pb2

# One slow unit blocks one worker only.
WORKERS = 16
# Even if every event was missed, drift is repaired within this time.
RESYNC_S = 60.0
BACKOFF = Backoff(0.05, 2.0, 10.0)
# Passes of one round before it is put off: more than any plan needs, so what is left then does not take.
PASSES = 4
# A unit that keeps failing is looked at for a change of its world at most this much later.
TRIGGER_MAX_S = 1.0
# Of an operation, in the log.
_SHOWN_MAX = 200
# More links than this say no more about why a round ran.
LINKS_MAX = 8

log = logging.getLogger(__name__)


class Operation(Protocol):
    """What a plan is made of. `resource` is the name of the resource for whose sake it is done, and that it is held against."""

    @property
    def resource(self) -> str: ...


Desired = TypeVar("Desired")
Observed = TypeVar("Observed")
Op = TypeVar("Op", bound=Operation)
Desired_co = TypeVar("Desired_co", covariant=True)
Observed_co = TypeVar("Observed_co", covariant=True)
Op_contra = TypeVar("Op_contra", bound=Operation, contravariant=True)


class World(Protocol[Desired_co]):
    """The desired state of all units, kept from the store's changes. Does no I/O."""

    def change(self, change: store.Change) -> Iterable[str]:
        """Take a changed key in; the units that it concerns."""

    def units(self) -> Iterable[str]: ...

    def desired(self, unit: str) -> Desired_co: ...

    def resources(self, unit: str) -> Iterable[str]:
        """The names of the unit's resources that are not being deleted."""


class Driver(Protocol[Observed_co, Op_contra]):
    async def units(self) -> Iterable[str]:
        """Units that the device has something of."""

    async def observe(self, unit: str) -> Observed_co: ...

    async def apply(self, op: Op_contra) -> None:
        """Idempotent. Raises PermanentError or TemporaryError."""


@dataclass(frozen=True, slots=True)
class Rooms(Generic[Desired, Observed, Op]):
    """What a service brings: its world, its pure rooms, its driver.

    `report(desired, observed, failures, previous)` tells the status of each resource of the unit that it knows, None for one that
    is being deleted and of which the device has nothing left. `previous` has this service's parts as last reported.
    """

    world: World[Desired]
    plan: Callable[[Desired, Observed], tuple[Op, ...]]
    report: Callable[[Desired, Observed, Mapping[str, errors.CrossnsError], Mapping[str, Status]], Mapping[str, Status | None]]
    driver: Driver[Observed, Op]


class Reconciler(Generic[Desired, Observed, Op]):
    def __init__(
        self,
        rooms: Rooms[Desired, Observed, Op],
        backend: store.Store,
        snapshot: cache.Cache,
        keys: names.Keys,
        fence: store.CreatedAt,
        registries: Mapping[str, Registry],
    ) -> None:
        """`registries` by collection: those of the resources that this service owns."""
        self._rooms = rooms
        self._store = backend
        self._cache = snapshot
        self._keys = keys
        self._fence = fence
        self._registries = registries
        self._queue = queue.Queue()
        self._parts = Parts(backend, keys, fence)
        self._attempts: dict[str, int] = {}
        # Units whose last round did not end with everything as wanted: any change of the world may be what they wait for.
        self._unsettled: set[str] = set()
        # Resources that have left us and wait for another service to clear its part -> the unit that takes them out then.
        self._departing: dict[str, str] = {}
        # Unit -> trace contexts of the writes that wake it: the next round links to them.
        self._causes: dict[str, dict[str, str]] = {}

    def trigger(self, unit: str) -> None:
        """Something in the world of `unit` changed. What a round does that does not take is such a change, too: so a unit that
        failed is looked at again ever later."""
        attempt = self._attempts.get(unit, 0)
        if attempt:
            self._queue.add_after(unit, min(BACKOFF.delay(attempt - 1), TRIGGER_MAX_S))
        else:
            self._queue.add(unit)

    def trigger_unsettled(self) -> None:
        """Something changed that a unit which lacks something may be waiting for, such as a card that came back."""
        for unit in self._unsettled:
            self.trigger(unit)

    async def run(self) -> None:
        """Work until cancelled. Raises Fenced when another process leads."""
        await self._cache.wait_until_synced()
        self._parts.adopt(self._cache.below(self._keys.status("")))
        self._cache.subscribe(self._take)
        self._take(
            tuple(store.Change(entry.key, entry.mod_revision, entry) for entry in self._cache.below(self._keys.device_prefix))
        )
        await self._add_all()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._resync())
            for _ in range(WORKERS):
                tasks.create_task(self._work())

    def _take(self, changes: tuple[store.Change, ...]) -> None:
        own_status = self._keys.status("")
        for change in changes:
            if change.key.startswith(own_status):
                continue
            parsed = self._keys.parse(change.key)
            if parsed is not None and parsed[1] == "status" and parsed[2] in self._departing:
                self._queue.add(self._departing[parsed[2]])
            cause = self._cause(change)
            for unit in self._rooms.world.change(change):
                self._queue.add(unit)
                if cause:
                    self._causes.setdefault(unit, {})[change.key] = cause

    def _cause(self, change: store.Change) -> str:
        """The trace context that was stored beside a desired value."""
        parsed = self._keys.parse(change.key)
        if parsed is None or parsed[1] != "desired":
            return ""
        entry = self._cache.get(self._keys.of(parsed[0]).trace(parsed[2]))
        return entry.value.decode() if entry is not None else ""

    async def _resync(self) -> None:
        while True:
            await asyncio.sleep(RESYNC_S * random.uniform(0.8, 1.2))
            await self._add_all()

    async def _add_all(self) -> None:
        """Every unit that is wanted or there; what is there must be known, or what nobody wants would stay."""
        attempt = 0
        while True:
            try:
                present = await self._rooms.driver.units()
                break
            except errors.TemporaryError as error:
                log.info("cannot tell what there is: %s", error.message, extra={"reason": error.reason})
                await asyncio.sleep(BACKOFF.delay(attempt, random.random()))
                attempt += 1
        for unit in {*self._rooms.world.units(), *present}:
            self._queue.add(unit)

    async def _work(self) -> None:
        while True:
            unit = await self._queue.take()
            try:
                await self._cache.wait_until_connected()
                causes = list(self._causes.pop(unit, {}).values())
                with telemetry.span("reconcile", links=causes[-LINKS_MAX:], unit=unit):
                    await self._round(unit)
            except errors.TemporaryError as error:
                self._again(unit, error)
            except errors.CrossnsError as error:
                if error.reason == "FENCED":
                    raise Fenced(unit) from error
                log.exception("round failed: %s", error.message, extra={"unit": unit})
                self._again(unit, error)
            finally:
                self._queue.done(unit)

    def _again(self, unit: str, error: errors.CrossnsError) -> None:
        attempt = self._failed(unit)
        delay_s = BACKOFF.delay(attempt, random.random())
        log.info("again in %.2f s: %s", delay_s, error.message, extra={"unit": unit, "reason": error.reason})
        self._queue.add_after(unit, delay_s)

    def _failed(self, unit: str) -> int:
        """Count a round that did not get through; how many did not before it."""
        attempt = self._attempts.get(unit, 0)
        self._attempts[unit] = attempt + 1
        self._unsettled.add(unit)
        return attempt

    async def _round(self, unit: str) -> None:
        """One round. What can be seen only when something else is there takes another pass."""
        rooms = self._rooms
        failures: dict[str, errors.CrossnsError] = {}
        desired, observed = await self._look(unit)
        ops = rooms.plan(desired, observed)
        passes = 0
        while ops and not failures and passes < PASSES:
            passes += 1
            await self._parts.announce(rooms.world.resources(unit))
            failures = await self._apply(unit, ops)
            desired, observed = await self._look(unit)
            ops = rooms.plan(desired, observed)
        report = rooms.report(desired, observed, failures, self._parts.said)
        await self._write(unit, report)
        if ops and not failures:
            raise errors.Aborted("IN_PROGRESS", f"{unit}: {len(ops)} operations are left, the first is {ops[0]!r}")
        for failure in failures.values():
            if isinstance(failure, errors.TemporaryError) or failure.reason == "FENCED":
                raise failure
        if failures:
            self._failed(unit)
            return
        self._attempts.pop(unit, None)
        if all(status is None or status.state == status_pb2.STATE_READY for status in report.values()):
            self._unsettled.discard(unit)
        else:
            self._unsettled.add(unit)

    async def _look(self, unit: str) -> tuple[Desired, Observed]:
        """What there is, and what is wanted by then: so all that is planned and said next is of one moment."""
        observed = await self._rooms.driver.observe(unit)
        return self._rooms.world.desired(unit), observed

    async def _apply(self, unit: str, ops: tuple[Op, ...]) -> dict[str, errors.CrossnsError]:
        """Apply in order. After a failure the other operations for the same resource are left out, those for others go on."""
        failures: dict[str, errors.CrossnsError] = {}
        for op in ops:
            if op.resource in failures:
                continue
            try:
                with telemetry.span(f"apply {type(op).__name__}", resource=op.resource, op=repr(op)):
                    await self._rooms.driver.apply(op)
            except errors.CrossnsError as error:
                failures[op.resource] = error
                log.warning("%r failed: %s", op, error.message, extra={"unit": unit, "reason": error.reason})
        what = {"unit": unit, "operations": len(ops), "first": repr(ops[0])[:_SHOWN_MAX]}
        log.info("applied %d operations, %d failed", len(ops), len(failures), extra=what)
        return failures

    async def _write(self, unit: str, report: Mapping[str, Status | None]) -> None:
        """Say what changed; take out for good what is cleared."""
        cleared = {name for name, status in report.items() if status is None and names.collection(name) in self._registries}
        await self._parts.say({name: status for name, status in report.items() if name not in cleared})
        for name in cleared:
            await self._remove(unit, name, self._registries[names.collection(name)])

    async def _seen(self, keys: Sequence[str]) -> Mapping[str, store.Entry]:
        return {key: entry for key in keys if (entry := self._cache.get(key)) is not None}

    async def _remove(self, unit: str, name: str, registry: Registry) -> None:
        # Before it is tried: the other service may clear its part meanwhile.
        self._departing[name] = unit
        try:
            if await registry.remove(name, self._fence, self._seen):
                self._parts.forget(name)
                del self._departing[name]
        except store.Conflict as conflict:
            raise Fenced(name) from conflict
