"""Our values as etcd's messages, and back. Pure; called by `client` and `watch`.

A transaction reads on failure all that it compared, so that the caller learns from the same revision which compares did not hold.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from aetcd import rpc

from crossns import errors, store
from crossns.etcd import failure

# How many of the entries that should not be there a failed EmptyBelow shows.
SHOWN_MAX = 20
_DELETE = 1


def range_end(prefix: str) -> bytes:
    """The first key behind all that begin with `prefix`. (UTF-8 has no byte 255, so its last byte can always be raised.)"""
    key = prefix.encode()
    return key[:-1] + bytes((key[-1] + 1,))


def entry(kv: Any) -> store.Entry:
    return store.Entry(kv.key.decode(), kv.value, kv.create_revision, kv.mod_revision, kv.lease)


def change(event: Any) -> store.Change:
    previous = entry(event.prev_kv) if event.HasField("prev_kv") else None
    now = None if event.type == _DELETE else entry(event.kv)
    return store.Change(event.kv.key.decode(), event.kv.mod_revision, now, previous)


def read(keys: Sequence[str], revision: int = 0) -> Any:
    """A transaction that gets each key, at `revision` (0: now)."""
    return rpc.TxnRequest(success=[_get(key=key.encode(), revision=revision) for key in keys])


def found(response: Any) -> Iterable[store.Entry]:
    """The entries in a transaction's answers."""
    return (entry(kv) for answer in response.responses for kv in answer.response_range.kvs)


@dataclass(frozen=True, slots=True)
class Transaction:
    """Compares without repetition, and effects."""

    compares: tuple[store.Compare, ...]
    effects: tuple[store.Effect, ...]

    def check(self, operations_max: int) -> None:
        """FailedPrecondition for more than etcd takes; InvariantError for what contradicts itself: a key written twice."""
        count = max(len(self.compares), len(self.effects))
        if count > operations_max:
            raise failure.too_many_operations(f"{count} operations, at most {operations_max}")
        written: set[str] = set()
        for effect in self.effects:
            if isinstance(effect, store.Put):
                if effect.key in written:
                    raise errors.InvariantError(f"{effect.key} is put twice in one transaction")
                written.add(effect.key)
        for effect in self.effects:
            if isinstance(effect, store.Delete) and effect.key in written:
                raise errors.InvariantError(f"{effect.key} is put and deleted in one transaction")
            if isinstance(effect, store.DeleteBelow) and any(key.startswith(effect.prefix) for key in written):
                raise errors.InvariantError(f"keys below {effect.prefix} are put and deleted in one transaction")

    def request(self) -> Any:
        return rpc.TxnRequest(
            compare=[_compare(item) for item in self.compares],
            success=[_effect(item) for item in self.effects],
            failure=[_look(item) for item in self.compares],
        )

    def failed(self, response: Any) -> dict[store.Compare, tuple[store.Entry, ...]]:
        """The compares that did not hold, with what was seen instead."""
        seen = [tuple(entry(kv) for kv in answer.response_range.kvs) for answer in response.responses]
        return {item: entries for item, entries in zip(self.compares, seen, strict=True) if not _holds(item, entries)}

    def read_back(self) -> Any:
        """A transaction that looks whether this one was carried out."""
        return rpc.TxnRequest(success=[_trace(effect) for effect in self.effects])

    def revision_if_written(self, response: Any) -> int | None:
        """From the answer to `read_back`: the revision at which this was written; None when it was not, or was overwritten since.

        Puts must stand there together, written later than what was compared; deleted keys must be gone.
        """
        known = {item.key: item.mod_revision for item in self.compares if isinstance(item, store.Unchanged)}
        revisions: set[int] = set()
        for effect, answer in zip(self.effects, response.responses, strict=True):
            kvs = answer.response_range.kvs
            if not isinstance(effect, store.Put):
                if kvs:
                    return None
                continue
            if not kvs or kvs[0].value != effect.value or kvs[0].lease != effect.lease:
                return None
            if kvs[0].mod_revision <= known.get(effect.key, 0):
                return None
            revisions.add(kvs[0].mod_revision)
        if len(revisions) > 1:
            return None
        return revisions.pop() if revisions else int(response.header.revision)


def _get(**fields: Any) -> Any:
    return rpc.RequestOp(request_range=rpc.RangeRequest(**fields))


def _compare(item: store.Compare) -> Any:
    match item:
        case store.Unchanged(key, mod_revision):
            return rpc.Compare(target=rpc.Compare.MOD, result=rpc.Compare.EQUAL, key=key.encode(), mod_revision=mod_revision)
        case store.Present(key):
            return rpc.Compare(target=rpc.Compare.CREATE, result=rpc.Compare.GREATER, key=key.encode(), create_revision=0)
        case store.CreatedAt(key, revision):
            return rpc.Compare(target=rpc.Compare.CREATE, result=rpc.Compare.EQUAL, key=key.encode(), create_revision=revision)
        case store.EmptyBelow(prefix):
            fields = {"key": prefix.encode(), "range_end": range_end(prefix)}
            return rpc.Compare(target=rpc.Compare.CREATE, result=rpc.Compare.EQUAL, create_revision=0, **fields)


def _look(item: store.Compare) -> Any:
    if isinstance(item, store.EmptyBelow):
        return _get(key=item.prefix.encode(), range_end=range_end(item.prefix), limit=SHOWN_MAX)
    return _get(key=item.key.encode())


def _holds(item: store.Compare, entries: tuple[store.Entry, ...]) -> bool:
    match item:
        case store.Unchanged(_, mod_revision):
            return (entries[0].mod_revision if entries else 0) == mod_revision
        case store.Present():
            return bool(entries)
        case store.CreatedAt(_, create_revision):
            return (entries[0].create_revision if entries else 0) == create_revision
        case store.EmptyBelow():
            return not entries


def _effect(effect: store.Effect) -> Any:
    match effect:
        case store.Put(key, value, lease):
            return rpc.RequestOp(request_put=rpc.PutRequest(key=key.encode(), value=value, lease=lease))
        case store.Delete(key):
            return rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=key.encode()))
        case store.DeleteBelow(prefix):
            request = rpc.DeleteRangeRequest(key=prefix.encode(), range_end=range_end(prefix))
            return rpc.RequestOp(request_delete_range=request)


def _trace(effect: store.Effect) -> Any:
    """Reads what `effect` leaves behind."""
    if isinstance(effect, store.DeleteBelow):
        return _get(key=effect.prefix.encode(), range_end=range_end(effect.prefix), limit=1, keys_only=True)
    return _get(key=effect.key.encode())
