"""Rules: the kernel's rules with our mark against the Rule resources of the table.

A rule is put before the one that it replaces is removed. One that names an interface is there only while that is in the table:
else another link of that name would be taken for it.
"""

from typing import Any

from crossns import entry
from services.nsmanager.model import Desired, Rule
from services.nsmanager.plan.observed import At, Observed


def removed(desired: Desired, observed: Observed) -> tuple[At, ...]:
    wanted = {resolved(wish, desired) for wish in desired.rules}
    return tuple(
        At(f"routeTables/{desired.id}", desired.id, entry.RemoveRule(rule=seen))
        for seen in (observed.snapshot.rules if observed.snapshot is not None else ())
        if seen not in wanted
    )


def put(desired: Desired, observed: Observed) -> tuple[At, ...]:
    ordered = sorted(desired.rules, key=lambda wish: (wish.priority, wish.resource))
    return tuple(
        At(wish.resource, desired.id, entry.PutRule(rule=rule))
        for wish in ordered
        if (rule := resolved(wish, desired)) is not None and not is_present(wish, desired, observed)
    )


def is_present(wish: Rule, desired: Desired, observed: Observed) -> bool:
    return observed.snapshot is not None and resolved(wish, desired) in observed.snapshot.rules


def resolved(wish: Rule, desired: Desired) -> entry.Rule | None:
    """With the link's name instead of the interface; None where that is not in the table."""
    link = desired.link_of(wish.interface)
    if wish.interface and link is None:
        return None
    action: Any = wish.action
    return entry.Rule(
        family="inet" if wish.version == 4 else "inet6",
        priority=wish.priority,
        source=wish.source,
        destination=wish.destination,
        link=link.name if link is not None else "",
        mark=wish.mark,
        mark_mask=wish.mark_mask,
        action=action,
        kernel_table=wish.kernel_table,
    )
