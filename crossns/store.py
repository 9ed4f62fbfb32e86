"""What the suite asks of its store, as values and one Protocol; `etcd` is the implementation.

A write is one transaction: compares that must all hold, effects that happen all or none. Called by `registry` (what clients
want), `reconcile` (what is), `leader` (who may act) and `cache` (what everybody reads).
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Entry:
    """One key with its value and revisions. `mod_revision` is what an etag is made of; `lease` 0: it stays until deleted."""

    key: str
    value: bytes
    create_revision: int
    mod_revision: int
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The key's mod_revision is this one; 0 says that the key is absent."""

    key: str
    mod_revision: int


@dataclass(frozen=True, slots=True)
class Present:
    key: str


@dataclass(frozen=True, slots=True)
class CreatedAt:
    """The key's create_revision is this one: the same incarnation of it."""

    key: str
    create_revision: int


@dataclass(frozen=True, slots=True)
class EmptyBelow:
    """No key begins with `prefix` (one compare with range_end and create_revision = 0)."""

    prefix: str


Compare = Unchanged | Present | CreatedAt | EmptyBelow


@dataclass(frozen=True, slots=True)
class Put:
    key: str
    value: bytes
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    key: str


@dataclass(frozen=True, slots=True)
class DeleteBelow:
    prefix: str


Effect = Put | Delete | DeleteBelow


class Conflict(Exception):
    """Some compares did not hold; nothing was written. `failed` has, for each of those, what the same transaction saw there:
    the entry, () where there is none; for EmptyBelow the first few entries."""

    def __init__(self, failed: Mapping[Compare, tuple[Entry, ...]]) -> None:
        super().__init__(f"{len(failed)} compares did not hold")
        self.failed = failed


class Compacted(Exception):
    """The store has nothing at, or behind, this revision: compacted, or not reached because the data is another's. List again."""


class LeaseLost(Exception):
    """The lease has expired or was revoked."""


@dataclass(frozen=True, slots=True)
class Listing:
    """Entries by key, all read at `revision` of the cluster. `more`: the limit cut it."""

    entries: tuple[Entry, ...]
    revision: int
    more: bool = False
    cluster_id: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """One key changed. `entry` None: it was deleted. `previous` is what stood there before, where known."""

    key: str
    revision: int
    entry: Entry | None
    previous: Entry | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """All changes up to and including `revision`, which they never split; none for a progress report."""

    changes: tuple[Change, ...]
    revision: int


class Store(Protocol):
    """Linearizable unless said otherwise. Every method raises StoreUnavailable when etcd does not answer in time."""

    async def cluster_id(self) -> int:
        """The cluster's id, asked anew: another one says that the data is another's."""

    async def get(self, key: str) -> Entry | None: ...

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, Entry]:
        """The entries that exist among `keys`, all of one revision."""

    async def list(self, prefix: str, *, after: str = "", limit: int = 0, revision: int = 0) -> Listing:
        """Entries below `prefix` behind the key `after`; at `revision` (0: now) or Compacted."""

    async def commit(self, compares: Sequence[Compare], effects: Sequence[Effect]) -> int:
        """Write all `effects` if all `compares` hold; the new revision. Raises Conflict; FailedPrecondition
        TOO_MANY_REFERENCES for more operations than a transaction takes. An answer that was lost is read back, not repeated."""

    def watch(
        self, prefix: str, revision: int, *, cluster_id: int = 0, with_previous: bool = False
    ) -> AsyncGenerator[Batch, None]:
        """Changes behind `revision`, in order, each once. The first batch, without changes, says that the watch stands. Raises
        Compacted, also when the store is behind `revision` or (where given) another cluster than `cluster_id`;
        StoreUnavailable when the stream breaks or falls silent: the caller resumes at the last revision it saw. Close it
        (`contextlib.aclosing`) to end it at once."""

    async def grant(self, ttl_s: int) -> int:
        """A new lease id."""

    async def keep_alive(self, lease: int, ttl_s: int) -> None:
        """Keep the lease alive until cancelled. Raises LeaseLost. Goes on trying while etcd is unreachable: a lease that
        nobody could expire is not lost."""

    async def revoke(self, lease: int) -> None:
        """Give the lease back; its keys go. Revoking one that is gone is a success."""
