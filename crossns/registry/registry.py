"""The resources of one kind: read, create, update, delete, and at last remove."""

import copy
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import repeat

from google.protobuf import field_mask_pb2

from crossns import errors, names, resource, store, telemetry
from crossns.registry import check
from crossns.registry.keyspace import Keyspace, TakenMeanwhile, View
from crossns.registry.lease import SharedLease
from crossns.registry.options import Options
from crossns.registry.prepared import Prepared
from crossns.resource import Claim, Draft, Kind, Resource

# How often a write starts over when others write the same keys; each time one of the others got on.
ATTEMPTS = 64
PAGE_SIZE_DEFAULT = 100
PAGE_SIZE_MAX = 1000
# A request id is remembered for an hour at least (AIP-155), two at most.
REQUEST_KEPT_S, REQUESTS_SHARE_S = 3600, 3600
# How long a freed claim that rests stays taken: VRRP and routing peers forget an old identity within it.
REST_S, RESTS_SHARE_S = 60, 5

# Looks at the store before a write is decided: may complete what is wanted, or refuse it. (registry, wanted, current)
Admit = Callable[["Registry", Resource, Resource | None], Awaitable[Resource]]
# The entries of those keys that are there.
Read = Callable[[Sequence[str]], Awaitable[Mapping[str, store.Entry]]]


async def _admit_all(_registry: "Registry", wanted: Resource, _current: Resource | None) -> Resource:
    return wanted


async def _nothing(_keys: Sequence[str]) -> Mapping[str, store.Entry]:
    """What is found there by somebody who does not look."""
    return {}


class Registry:
    def __init__(self, backend: store.Store, keys: names.Keys, kind: Kind, admit: Admit = _admit_all) -> None:
        self.store = backend
        self.keys = keys
        self.kind = kind
        self._space = Keyspace(keys)
        self._admit = admit
        self._requests = SharedLease(backend, REQUEST_KEPT_S, REQUESTS_SHARE_S)
        self._rests = SharedLease(backend, REST_S, RESTS_SHARE_S)

    async def get(self, name: str) -> Resource:
        """The resource with its merged status, read linearizably; NotFound."""
        found = await self.store.get_many([self.keys.desired(name), *self._space.status_keys(name)])
        if self.keys.desired(name) not in found:
            raise check.not_found(name)
        return self._merged(found[self.keys.desired(name)], found)

    async def page(self, prefix: str, page_size: int, page_token: str) -> tuple[list[Resource], str]:
        """One page of the resources whose names begin with `prefix`, by name, and the token of the next (AIP-158)."""
        if page_size < 0:
            raise errors.InvalidSpec("page_size", "must not be negative", value=page_size)
        if page_token and not page_token.startswith(prefix):
            raise errors.InvalidSpec("page_token", "belongs to another request: begin without one", reason="INVALID_PAGE_TOKEN")
        size = min(page_size or PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)
        after = self.keys.desired(page_token) if page_token else ""
        own: list[store.Entry] = []
        more = True
        while more and len(own) < size:
            # Children lie between their parents: a page of keys may hold other kinds, too.
            listing = await self.store.list(self.keys.desired(prefix), after=after, limit=size - len(own))
            own += [entry for entry in listing.entries if names.collection(self._name(entry)) == self.kind.collection]
            more, after = listing.more, listing.entries[-1].key if listing.entries else after
        statuses = await self.store.get_many([key for entry in own for key in self._space.status_keys(self._name(entry))])
        token = after.removeprefix(self.keys.desired("")) if more else ""
        return [self._merged(entry, statuses) for entry in own], token

    async def create(self, wanted: Resource, options: Options) -> Resource:
        """Store a new resource; AlreadyExists, or Aborted BEING_DELETED while an older one of the name is going."""

        def decide(current: Resource | None) -> Resource:
            if current is not None:
                check.alive(current)
                raise errors.AlreadyExists(
                    "ALREADY_EXISTS", f"{wanted.name} exists already: update it instead", resource=wanted.name
                )
            return wanted

        return await self._write(wanted.name, decide, options)

    async def update(self, wanted: Resource, mask: field_mask_pb2.FieldMask, options: Options) -> Resource:
        """Change the fields that `mask` names; StaleEtag where `wanted.etag` is set and not the current one."""

        def decide(current: Resource | None) -> Resource:
            if current is None:
                if not options.allow_missing:
                    raise check.not_found(wanted.name)
                return wanted
            check.alive(current)
            check.etag(wanted.etag, current)
            changed = resource.masked(current, wanted, mask)
            resource.check_immutable(self.kind, current, changed)
            return changed

        return await self._write(wanted.name, decide, options)

    async def delete(self, name: str, options: Options) -> Resource | None:
        """Ask for the deletion (architecture, section 2): refused while others refer to it. None where missing is allowed."""
        repeated = await self._is_repeated(options)
        for _ in range(ATTEMPTS):
            view, current = await self._current(name)
            if current is None:
                if options.allow_missing or repeated:
                    return None
                raise check.not_found(name)
            if current.HasField("delete_time"):
                return await self.get(name)
            prepared = await self._deletion(view, current, options)
            try:
                revision = await self.store.commit(prepared.compares, [] if options.validate_only else prepared.effects)
            except store.Conflict as conflict:
                check.unreferenced(name, conflict)
                continue
            except store.LeaseLost:
                self._forget_leases()
                continue
            return self._merged(store.Entry(self.keys.desired(name), _stored(current), 0, revision), {})
        raise check.contention(name)

    async def _deletion(self, view: View, current: Resource, options: Options) -> Prepared:
        check.etag(options.etag, current)
        self.kind.check_deletion(current)
        name, draft = current.name, self.kind.draft(current)
        current.delete_time.GetCurrentTime()
        compares = [
            *view.unchanged([self.keys.desired(name)]),
            *self._space.unreferenced(name),
            *self._unrepeated(options),
        ]
        effects = [
            *await self._record(current, options),
            store.Put(self.keys.claim("deleting", name), b""),
            *(store.Delete(self.keys.ref(target, name)) for target in self._space.own_targets(draft)),
        ]
        return Prepared(compares, effects, current)

    async def remove(self, name: str, fence: store.CreatedAt, seen: Read = _nothing) -> bool:
        """Take a deleted resource out for good: desired, own status, claims, references. False while another service has a
        part of it, or when it is not being deleted. Fenced: raises Conflict for a reconciler that is no longer the one. What
        the caller has `seen` is tried first: the transaction says whether it still holds."""
        for read in (seen, *repeat(self.store.get_many, ATTEMPTS)):
            view, current = await self._current(name, read)
            if current is None or not current.HasField("delete_time"):
                if read != seen:
                    return False
                continue
            draft = self.kind.draft(current)
            view = view.with_entries(await read(self._space.claim_keys(draft)))
            others = self._space.cleared_by_others(name)
            effects = [
                *self._space.released(view, draft.claims, name, await self._rest_leases(draft.claims)),
                *(store.Delete(self.keys.ref(target, name)) for target in draft.targets),
                *(store.Delete(key) for key in (self.keys.desired(name), self.keys.status(name), self.keys.trace(name))),
                store.Delete(self.keys.claim("deleting", name)),
            ]
            try:
                unchanged = view.unchanged([self.keys.desired(name), *self._space.claim_keys(draft)])
                await self.store.commit([fence, *unchanged, *others], effects)
            except store.Conflict as conflict:
                if fence in conflict.failed:
                    raise
                if any(other in conflict.failed for other in others):
                    return False
                continue
            except store.LeaseLost:
                self._forget_leases()
                continue
            return True
        raise check.contention(name)

    async def _write(self, name: str, decide: Callable[[Resource | None], Resource], options: Options) -> Resource:
        try:
            if not await self._is_repeated(options):
                return await self._write_anew(name, decide, options)
        except errors.AlreadyExists:
            # By this very request, sent twice at once?
            if not await self._is_repeated(options):
                raise
        return await self.get(name)

    async def _write_anew(self, name: str, decide: Callable[[Resource | None], Resource], options: Options) -> Resource:
        for attempt in range(ATTEMPTS):
            view, current = await self._current(name)
            wanted = await self._completed(decide(current), current, self._admit)
            if current is not None and _is_same(current, wanted):
                return await self.get(name)
            try:
                # The claims of what is new are taken for free at first: the transaction says whether they are.
                read = self.store.get_many if attempt or current is not None else _nothing
                prepared = await self._written(view, current, wanted, options, read)
                revision = await self.store.commit(prepared.compares, [] if options.validate_only else prepared.effects)
            except (store.Conflict, TakenMeanwhile):
                continue
            except store.LeaseLost:
                self._forget_leases()
                continue
            statuses = await self.store.get_many(self._space.status_keys(name)) if current is not None else {}
            return self._merged(store.Entry(self.keys.desired(name), _stored(wanted), 0, revision), statuses)
        raise check.contention(name)

    async def _written(self, view: View, current: Resource | None, wanted: Resource, options: Options, read: Read) -> Prepared:
        before = self.kind.draft(current) if current is not None else Draft()
        after, name = self.kind.draft(wanted), wanted.name
        if targets := self._space.target_keys(after):
            # Nobody may guess what another resource is.
            read = self.store.get_many
        view = view.with_entries(await read([*self._space.claim_keys(before, after), *targets]))
        self._check_targets(view, after)
        compares = [
            *view.unchanged([self.keys.desired(name), *self._space.claim_keys(before, after)]),
            *self._space.alive(after),
            *self._unrepeated(options),
        ]
        effects = [
            *await self._record(wanted, options),
            *self._space.taken(view, after, name),
            *await self._given_back(view, before, after, name),
            *self._space.references(before, after, name),
        ]
        return Prepared(compares, effects, wanted)

    async def prepared(self, wanted: Resource, options: Options) -> Prepared:
        """One of several writes of one transaction: a resource that comes, or becomes another. It is not admitted: what admission
        looks at may change in this very transaction, so whoever writes several has looked himself."""
        view, current = await self._current(wanted.name)
        if current is not None:
            check.alive(current)
            resource.check_immutable(self.kind, current, wanted)
        completed = await self._completed(wanted, current, _admit_all)
        return await self._written(view, current, completed, options, self.store.get_many)

    async def prepared_deletion(self, name: str) -> Prepared:
        """One of several writes of one transaction: a deletion that is asked for."""
        view, current = await self._current(name)
        if current is None or current.HasField("delete_time"):
            return Prepared(view.unchanged([self.keys.desired(name)]), [], current)
        return await self._deletion(view, current, Options())

    async def repeated(self, options: Options) -> bool:
        """Whether the very request of `options` was carried out before."""
        return await self._is_repeated(options)

    async def _completed(self, wanted: Resource, current: Resource | None, admit: Admit) -> Resource:
        """What will be stored: checked, admitted, without output-only fields that clients sent, with times and generation."""
        result = self.kind.message(name=wanted.name, labels=wanted.labels)
        resource.overwrite(result.spec, wanted.spec)
        if current is not None and current.HasField("status"):
            resource.overwrite(result.status, current.status)
        resource.check_labels(result.labels)
        self.kind.draft(result)
        result = await admit(self, result, current)
        result.update_time.GetCurrentTime()
        result.create_time.CopyFrom(current.create_time if current is not None else result.update_time)
        result.generation = current.generation if current is not None else 0
        if current is None or current.spec != result.spec:
            result.generation += 1
        return result

    def _name(self, entry: store.Entry) -> str:
        return entry.key.removeprefix(self.keys.desired(""))

    async def _current(self, name: str, read: Read | None = None) -> tuple[View, Resource | None]:
        key = self.keys.desired(name)
        view = View(await (read or self.store.get_many)([key]))
        if key not in view.entries:
            return view, None
        current = resource.load(self.kind.collection, view.value(key))
        current.etag = resource.etag_of(view.entries[key].mod_revision)
        return view, current

    def _merged(self, entry: store.Entry, statuses: Mapping[str, store.Entry]) -> Resource:
        message = resource.load(self.kind.collection, entry.value)
        parts = {
            service: resource.load_status(self.kind.collection, statuses[key].value)
            for service in names.SERVICES
            if (key := self.keys.of(service).status(message.name)) in statuses
        }
        return resource.merged(message, entry.mod_revision, parts)

    def _check_targets(self, view: View, draft: Draft) -> None:
        missing = frozenset(target for target in draft.targets if self._space.target(target) not in view.entries)
        leaving = frozenset(target for target in draft.targets if self._space.target_leaving(target) in view.entries)
        check.targets(draft, missing, leaving)

    async def _record(self, wanted: Resource, options: Options) -> list[store.Effect]:
        trace = telemetry.traceparent()
        effects: list[store.Effect] = [
            store.Put(self.keys.desired(wanted.name), _stored(wanted)),
            store.Put(self.keys.trace(wanted.name), trace.encode()) if trace else store.Delete(self.keys.trace(wanted.name)),
        ]
        if options.request_id and not options.validate_only:
            request = self.keys.request(options.request_id)
            effects.append(store.Put(request, options.fingerprint.encode(), await self._requests.id()))
        return effects

    async def _given_back(self, view: View, before: Draft, after: Draft, name: str) -> list[store.Effect]:
        kept = set(self._space.claim_keys(after))
        gone = [claim for claim in before.claims if self._space.claim_key(claim) not in kept]
        return self._space.released(view, gone, name, await self._rest_leases(gone))

    async def _rest_leases(self, claims: Sequence[Claim]) -> Mapping[str, int]:
        kinds = {claim.kind for claim in claims} & self.kind.resting
        return {kind: await self._rests.id() for kind in kinds}

    def _forget_leases(self) -> None:
        self._requests.forget()
        self._rests.forget()

    async def _is_repeated(self, options: Options) -> bool:
        """Whether this very request was carried out before."""
        if not options.request_id:
            return False
        entry = await self.store.get(self.keys.request(options.request_id))
        if entry is not None and entry.value.decode() != options.fingerprint:
            message = "was used for another request within the hour: give each request an id of its own"
            raise errors.InvalidSpec("request_id", message, reason="REQUEST_ID_REUSED", value=errors.bounded(options.request_id))
        return entry is not None

    def _unrepeated(self, options: Options) -> list[store.Compare]:
        return [store.Unchanged(self.keys.request(options.request_id), 0)] if options.request_id else []


def _stored(wanted: Resource) -> bytes:
    """What is stored of it: no etag, for that is the revision."""
    record = copy.deepcopy(wanted)
    record.ClearField("etag")
    return record.SerializeToString(deterministic=True)


def _is_same(current: Resource, wanted: Resource) -> bool:
    return current.spec == wanted.spec and dict(current.labels) == dict(wanted.labels)
