"""The keys around a resource: its claims, its references and what it refers to; and what a write compares and puts there.

Pure: it works on a view, the entries that were read at one revision.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from crossns import errors, names, resource, store
from crossns.resource import Claim, Draft


class TakenMeanwhile(Exception):
    """Somebody took what admission had chosen: it must choose again."""


@dataclass(frozen=True, slots=True)
class View:
    """What a write decides on."""

    entries: Mapping[str, store.Entry]

    def with_entries(self, more: Mapping[str, store.Entry]) -> "View":
        return View({**more, **self.entries})

    def value(self, key: str) -> bytes:
        return self.entries[key].value if key in self.entries else b""

    def unchanged(self, keys: Iterable[str]) -> list[store.Unchanged]:
        """That these keys are still as in the view, absence included."""
        return [store.Unchanged(key, self.entries[key].mod_revision if key in self.entries else 0) for key in dict.fromkeys(keys)]


@dataclass(frozen=True, slots=True)
class Keyspace:
    """`keys` are those of the owning service."""

    keys: names.Keys

    def status_keys(self, name: str) -> list[str]:
        return [self.keys.of(service).status(name) for service in names.SERVICES]

    def claim_key(self, claim: Claim) -> str:
        return self.keys.claim(claim.kind, claim.key)

    def claim_keys(self, *drafts: Draft) -> list[str]:
        return list(dict.fromkeys(self.claim_key(claim) for draft in drafts for claim in draft.claims))

    def target_keys(self, draft: Draft) -> list[str]:
        return [key for target in draft.targets for key in (self.target(target), self.target_leaving(target))]

    def target(self, name: str) -> str:
        return self.keys.of(names.owner(name)).desired(name)

    def target_leaving(self, name: str) -> str:
        """The claim that stands while a resource is being deleted."""
        return self.keys.of(names.owner(name)).claim("deleting", name)

    def own_targets(self, draft: Draft) -> list[str]:
        """References to resources of this same service end when a deletion is asked for: its one loop orders the rest. Those to
        another service's stay until the resource is gone."""
        return [target for target in draft.targets if names.owner(target) == self.keys.service]

    def alive(self, draft: Draft) -> list[store.Compare]:
        """That every target exists and is not being deleted, at the moment of the write."""
        return [
            compare
            for target in draft.targets
            for compare in (store.Present(self.target(target)), store.Unchanged(self.target_leaving(target), 0))
        ]

    def unreferenced(self, name: str) -> list[store.Compare]:
        return [store.EmptyBelow(self.keys.of(service).refs_to(name)) for service in names.SERVICES]

    def cleared_by_others(self, name: str) -> list[store.Compare]:
        """That no other service has a part of the resource."""
        return [store.Unchanged(key, 0) for key in self.status_keys(name) if key != self.keys.status(name)]

    def references(self, before: Draft, after: Draft, name: str) -> list[store.Effect]:
        old = {self.keys.ref(target, name) for target in before.targets}
        new = {self.keys.ref(target, name) for target in after.targets}
        return [*(store.Put(key, b"") for key in sorted(new - old)), *(store.Delete(key) for key in sorted(old - new))]

    def taken(self, view: View, after: Draft, name: str) -> list[store.Effect]:
        """The claims' new values with what `after` needs; AlreadyExists where it is had, TakenMeanwhile if any will do."""
        effects: list[store.Effect] = []
        for key in self.claim_keys(after):
            wanted = [claim for claim in after.claims if self.claim_key(claim) == key]
            try:
                held = resource.claimed(resource.holdings(view.value(key)), wanted, name)
            except errors.AlreadyExists:
                if any(claim.chosen for claim in wanted):
                    raise TakenMeanwhile(key) from None
                raise
            value = resource.stored(held)
            if value != view.value(key):
                effects.append(store.Put(key, value))
        return effects

    def released(self, view: View, claims: Sequence[Claim], name: str, rest_leases: Mapping[str, int]) -> list[store.Effect]:
        """The claims' values without `name`; a kind in `rest_leases` stays taken until its lease ends."""
        effects: list[store.Effect] = []
        for key, kind in {self.claim_key(claim): claim.kind for claim in claims}.items():
            others = resource.without(resource.holdings(view.value(key)), name)
            if others:
                effects.append(store.Put(key, resource.stored(others)))
            elif kind in rest_leases:
                effects.append(store.Put(key, resource.stored([resource.Holding("")]), rest_leases[kind]))
            else:
                effects.append(store.Delete(key))
        return effects
