"""Writes that are decided and not yet made: several of them become one transaction.

Called by those who change resources of more than one kind at once, such as the move of an interface with its routes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from crossns import store
from crossns.resource import Resource


@dataclass(frozen=True, slots=True)
class Prepared:
    """What must still hold when it is made, what it puts there, and the resource as it will be (None: there is none)."""

    compares: Sequence[store.Compare]
    effects: Sequence[store.Effect]
    resource: Resource | None


async def commit(
    backend: store.Store, writes: Iterable[Prepared], compares: Iterable[store.Compare], effects: Iterable[store.Effect]
) -> int:
    """All or nothing, with `compares` and `effects` of one's own; the revision. Raises Conflict."""
    every = list(writes)
    return await backend.commit(
        list(dict.fromkeys([*compares, *(compare for each in every for compare in each.compares)])),
        [*effects, *(effect for each in every for effect in each.effects)],
    )
