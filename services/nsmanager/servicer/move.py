"""Moves an interface to another route table so that it is there with everything that goes along, or all is as it was.

Called by Interfaces. Two transactions: the first moves the interface and puts its routes, rules and neighbours into the target
beside the old ones; when the loop has made the device so, the second takes the old ones away. If the device cannot be made so,
another transaction takes the first one back, and what others had on the link is given back behind it. What is open stands in the
store from the first transaction to the last thing that is given back: whoever leads after a crash brings it to its end.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import msgspec

from crossns import errors, names, resource, store
from crossns.registry import ATTEMPTS, Options, Prepared, Registry, check, commit, contention, options_of
from crossns.resource import Resource
from crossns.v1 import impact_pb2, interface_pb2, status_pb2
from services.nsmanager import plan
from services.nsmanager.servicer import keepsake, own_session
from services.nsmanager.servicer.impact import Ask, Impacts, Outlook

# For the loop to make the device so. What takes longer than this on a healthy device does not come about.
PATIENCE_S = 10.0
# An error that stays for so long is none that the next round repairs.
HOPELESS_S = 1.0
_LOOK_S = 0.02
# For a link that was put back and is not there: its card may be unplugged.
_SLOW_LOOK_S = 1.0
_KIND = "move"

log = logging.getLogger(__name__)


class Journal(msgspec.Struct, frozen=True):
    """A move that is on its way. Resources are kept as they are stored; `awaited` by name, with the generation to be reached;
    `returning`: the generation of the interface that is put back, 0 while it is not."""

    interface: str
    before: bytes
    source: str
    target: str
    awaited: dict[str, int]
    created: tuple[str, ...]
    reduced: tuple[bytes, ...]
    deleted: tuple[str, ...]
    kept: keepsake.Kept = keepsake.Kept()
    returning: int = 0

    @property
    def coming_back(self) -> dict[str, int]:
        return {self.interface: self.returning}


class Moves:
    def __init__(self, registries: Mapping[str, Registry], impacts: Impacts, ask: Ask) -> None:
        self._registries = registries
        self._interfaces = registries["interfaces"]
        self._store = self._interfaces.store
        self._keys = self._interfaces.keys
        self._impacts = impacts
        self._ask = ask
        self._opened: asyncio.Queue[tuple[Journal, int, asyncio.Future[None]]] = asyncio.Queue()

    async def run(self) -> None:
        """Bring to their end the moves that are open, those of a predecessor first, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            async for journal, revision in self._left_open():
                log.info("goes on with the move of %s to %s", journal.interface, journal.target)
                tasks.create_task(self._end(journal, revision, asyncio.get_running_loop().create_future()))
            while True:
                tasks.create_task(self._end(*await self._opened.get()))

    async def move(self, request: Any) -> Resource:
        options = options_of(request)
        if await self._interfaces.repeated(options):
            return await self._interfaces.get(request.name)
        for _ in range(ATTEMPTS):
            outlook = await self._impacts.of_move(request)
            _check_admissible(outlook.impact, request)
            try:
                journal, revision = await self._begin(outlook, options, request.route_table)
            except store.Conflict:
                await self._check_not_moving(request.name)
                continue
            if not options.validate_only:
                ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._opened.put_nowait((journal, revision, ended))
                # Whoever gives up waiting does not end the move.
                await asyncio.shield(ended)
            return await self._interfaces.get(request.name)
        raise contention(request.name)

    async def _check_not_moving(self, name: str) -> None:
        if await self._store.get(self._keys.claim(_KIND, name)) is not None:
            raise errors.Aborted("IN_PROGRESS", f"{name} is being moved at this moment: wait until that is over", resource=name)

    async def _begin(self, outlook: Outlook, options: Options, target: str) -> tuple[Journal, int]:
        relocation, state = outlook.relocation, outlook.state
        moved, *reduced = relocation.changed
        before = state.stored[moved.name]
        if options.etag and options.etag != resource.etag_of(state.revisions[moved.name]):
            check.etag(options.etag, await self._interfaces.get(moved.name))
        writes = [await self._interfaces.prepared(moved, options)]
        writes += [await self._of(each.name).prepared(each, Options()) for each in relocation.created]
        journal = Journal(
            interface=moved.name,
            before=before.SerializeToString(deterministic=True),
            source=before.spec.route_table,  # type: ignore[union-attr] # it is an interface
            target=target,
            awaited=await self._awaited(relocation, writes),
            created=tuple(each.name for each in relocation.created),
            reduced=tuple(each.SerializeToString(deterministic=True) for each in reduced),
            deleted=relocation.deleted,
            kept=await keepsake.keep(self._ask, outlook.links),
        )
        key = self._keys.claim(_KIND, moved.name)
        decided_on = [
            store.Unchanged(self._keys.desired(name), state.revisions[name])
            for name in (*(each.name for each in reduced), *relocation.deleted, moved.name, target)
        ]
        effects = [] if options.validate_only else [store.Put(key, msgspec.json.encode(journal))]
        if options.validate_only:
            writes = [Prepared(each.compares, [], each.resource) for each in writes]
        return journal, await commit(self._store, writes, [store.Unchanged(key, 0), *decided_on], effects)

    async def _awaited(self, relocation: plan.Relocation, writes: Sequence[Prepared]) -> dict[str, int]:
        """What was in effect before must be so in the target: the interface, and those copies whose originals are."""
        olds = {names.resource_id(name) + names.collection(name): name for name in relocation.deleted}
        awaited: dict[str, int] = {}
        for write in writes:
            assert write.resource is not None  # noqa: S101 - nothing was deleted
            name = write.resource.name
            old = olds.get(names.resource_id(name) + names.collection(name), name)
            if (await self._of(old).get(old)).status.state in _GOOD:
                awaited[name] = write.resource.generation
        return awaited

    async def _end(self, journal: Journal, revision: int, ended: "asyncio.Future[None]") -> None:
        """`revision`: at which the journal stands in the store. The outcome goes to `ended`; store errors are waited out."""
        if not journal.returning:
            why = await self._outcome(journal.awaited)
            if why is None:
                await self._write(journal, revision, self._finished)
                _settle(ended, None)
                return
            log.warning("the move of %s to %s is taken back: %s", journal.interface, journal.target, why[1])
            journal, revision = await self._write(journal, revision, self._taken_back)
        else:
            why = ("ABORTED", "nsmanager was restarted meanwhile")
        now = "everything is as it was"
        if journal.returning and (left := await self._outcome(journal.coming_back)) is not None:
            now = f"it is put back, which takes its time: {left[1]}"
            _settle(ended, _failure(journal, why, now))
            await self._wait_until_back(journal)
        if journal.returning:
            lost = await self._give_back(journal)
            now = f"everything is as it was, but for {'; '.join(lost)}" if lost else now
            await self._write(journal, revision, _nothing)
        _settle(ended, _failure(journal, why, now))

    async def _finished(self, journal: Journal) -> tuple[list[Prepared], int]:
        routes = self._registries["routes"]
        writes = [await routes.prepared(resource.load("routes", each), Options()) for each in journal.reduced]
        return [*writes, *[await self._of(name).prepared_deletion(name) for name in journal.deleted]], 0

    async def _taken_back(self, journal: Journal) -> tuple[list[Prepared], int]:
        """The interface as it was, unless somebody has changed it since: then it is as he wants it."""
        before = resource.load("interfaces", journal.before)
        writes = [await self._of(name).prepared_deletion(name) for name in journal.created]
        try:
            current = await self._interfaces.get(journal.interface)
        except errors.NotFound:
            return writes, 0
        if current.HasField("delete_time") or current.generation != before.generation + 1:
            return writes, 0
        back = await self._interfaces.prepared(before, Options())
        return [*writes, back], back.resource.generation if back.resource is not None else 0

    async def _wait_until_back(self, journal: Journal) -> None:
        """Or until somebody wants the interface elsewhere, or not at all."""
        while await self._is_awaited(journal):
            if await self._outcome(journal.coming_back) is None:
                return
            await asyncio.sleep(_SLOW_LOOK_S)

    async def _is_awaited(self, journal: Journal) -> bool:
        while True:
            try:
                found = await self._interfaces.get(journal.interface)
            except errors.NotFound:
                return False
            except errors.StoreUnavailable:
                await asyncio.sleep(_SLOW_LOOK_S)
                continue
            assert isinstance(found, interface_pb2.Interface)  # noqa: S101 - by its name
            return found.spec.route_table == journal.source and not found.HasField("delete_time")

    async def _give_back(self, journal: Journal) -> tuple[str, ...]:
        """What others had on the link, or elsewhere by it, and lost when it left; in words what did not come back."""
        lost = await keepsake.give_back(self._ask, journal.kept) if await self._is_awaited(journal) else ()
        for words in lost:
            log.warning("not given back with %s: %s", journal.interface, words)
        return lost

    async def _write(self, journal: Journal, revision: int, prepare: Any) -> tuple[Journal, int]:
        """The transaction that `prepare` makes, once, whoever comes first. The journal ends with it, unless an interface is put
        back: then it goes on, as it says from then on, at the new revision."""
        key = self._keys.claim(_KIND, journal.interface)
        while True:
            try:
                writes, returning = await prepare(journal)
                left = msgspec.structs.replace(journal, returning=returning)
                effect = store.Put(key, msgspec.json.encode(left)) if returning else store.Delete(key)
                return left, await commit(self._store, writes, [store.Unchanged(key, revision)], [effect])
            except store.Conflict as conflict:
                if any(isinstance(each, store.Unchanged) and each.key == key for each in conflict.failed):
                    return msgspec.structs.replace(journal, returning=0), 0
            except errors.StoreUnavailable as error:
                log.info("waiting to end the move of %s: %s", journal.interface, error.message)
            except errors.RequestError as error:
                # Somebody has deleted, or needs, what it would write: that is his, and stays.
                log.warning("the move of %s ends without its last step: %s", journal.interface, error.message)
                prepare = _nothing
            await asyncio.sleep(_LOOK_S)

    async def _outcome(self, awaited: Mapping[str, int]) -> tuple[str, str] | None:
        """None when the device is so; else reason and words of what stands in the way for good, or for too long."""
        loop = asyncio.get_running_loop()
        begun = bad_since = loop.time()
        while True:
            try:
                found = [await self._said(name, generation) for name, generation in awaited.items()]
            except errors.StoreUnavailable as error:
                # Nothing can be decided meanwhile, and nothing moves.
                log.info("waiting to see the end of a move: %s", error.message)
                begun = bad_since = loop.time()
                found = [(status_pb2.STATE_PENDING, "STORE_UNAVAILABLE", "")]
            if all(state in _GOOD for state, _, _ in found):
                return None
            worst = next((each for each in found if each[0] == status_pb2.STATE_ERROR), None)
            bad_since = bad_since if worst is not None else loop.time()
            if worst is not None and loop.time() - bad_since > HOPELESS_S:
                return worst[1:]
            if loop.time() - begun > PATIENCE_S:
                return next(
                    (reason, f"{words or reason} after {PATIENCE_S:g} s") for state, reason, words in found if state not in _GOOD
                )
            await asyncio.sleep(_LOOK_S)

    async def _said(self, name: str, generation: int) -> tuple[status_pb2.State.ValueType, str, str]:
        """What the loop says of a resource at that generation, or a later one: state, reason, words."""
        try:
            found = await self._of(name).get(name)
        except errors.NotFound:
            return status_pb2.STATE_ERROR, "NOT_FOUND", f"{name} was deleted meanwhile"
        if found.status.observed_generation < generation:
            return status_pb2.STATE_PENDING, "IN_PROGRESS", f"{name} is not taken up"
        condition = next(iter(found.status.conditions), status_pb2.Condition(reason="IN_PROGRESS"))
        return found.status.state, condition.reason, f"{name}: {condition.message or condition.reason}"

    async def _left_open(self) -> AsyncIterator[tuple[Journal, int]]:
        listing = await self._store.list(self._keys.claim(_KIND, ""))
        for entry in listing.entries:
            yield msgspec.json.decode(entry.value, type=Journal), entry.mod_revision

    def _of(self, name: str) -> Registry:
        return self._registries[names.collection(name)]


_GOOD = (status_pb2.STATE_READY, status_pb2.STATE_DEGRADED)


def _check_admissible(impact: impact_pb2.Impact, request: Any) -> None:
    blocking = [each for each in impact.conflicts if each.blocking]
    if blocking:
        message = "; ".join(each.message for each in blocking)
        raise errors.FailedPrecondition(blocking[0].reason, message, resource=request.name)
    own_session.check(impact.carries_own_session, request.name, request)


async def _nothing(_journal: Journal) -> tuple[list[Prepared], int]:
    return [], 0


def _failure(journal: Journal, why: tuple[str, str], now: str) -> errors.CrossnsError:
    message = f"{journal.interface} was not moved to {journal.target}: {why[1]}; {now}"
    return errors.PermanentError(why[0], message, resource=journal.interface, route_table=journal.target)


def _settle(ended: "asyncio.Future[None]", failure: errors.CrossnsError | None) -> None:
    """The first word counts."""
    if ended.done():
        return
    if failure is None:
        ended.set_result(None)
    else:
        ended.set_exception(failure)
        # Nobody may be waiting any more: then it was logged.
        ended.exception()
