"""The order of a round: what must go goes first and from the top down, what must come comes from the bottom up.

A table that should not be there gives its cards back before its namespace is dropped, for what the kernel does to links when a
namespace dies is not left to chance.
"""

from crossns import operation
from services.nsmanager.model import Desired
from services.nsmanager.plan import addresses, budgets, links, neighbors, routes, rules, sysctls
from services.nsmanager.plan.observed import At, Observed, Privileged


def plan(desired: Desired, observed: Observed) -> tuple[At | Privileged, ...]:
    """() when nothing differs."""
    resource = f"routeTables/{desired.id}"
    if observed.is_unseen:
        # Asked once more, the agent says why nothing is known, or all of it.
        return (At(resource, desired.id, operation.Dump()),)
    if desired.table is None and not desired.is_built_in:
        if observed.namespace is None:
            return ()
        cards = links.evacuated(desired, observed)
        if links.foreign(observed):
            # They are somebody's, and would die or go astray with the namespace: it waits until they are gone.
            return cards
        return (*cards, Privileged(resource, operation.DestroyNamespace(table=desired.id)))
    if observed.namespace is None:
        return (
            Privileged(resource, operation.CreateNamespace(table=desired.id)),
            *sysctls.asked(desired),
            *budgets.plan(desired, observed),
            *links.plan(desired, observed),
            *_contents(desired, observed),
        )
    attach = () if observed.namespace.attached or observed.namespace.occupied else (operation.AttachNamespace(table=desired.id),)
    return (
        *(Privileged(resource, each) for each in attach),
        *sysctls.plan(desired, observed),
        *budgets.plan(desired, observed),
        *neighbors.removed(desired, observed),
        *routes.removed(desired, observed),
        *addresses.removed(desired, observed),
        *links.released(desired, observed),
        *links.plan(desired, observed),
        *_contents(desired, observed),
        # Last, so that no packet falls between a rule and the one that takes its place.
        *rules.removed(desired, observed),
    )


def _contents(desired: Desired, observed: Observed) -> tuple[At | Privileged, ...]:
    """A rule comes when the routes are there that it sends packets to."""
    return (
        *addresses.added(desired, observed),
        *neighbors.put(desired, observed),
        *routes.put(desired, observed),
        *rules.put(desired, observed),
    )
