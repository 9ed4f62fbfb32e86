"""The order of a round: what must go goes first and from the top down, what must come comes from the bottom up.

A table that should not be there gives its cards back before its namespace is dropped, for what the kernel does to links when a
namespace dies is not left to chance.
"""

from crossns import operation
from services.nsmanager.model import Desired
from services.nsmanager.plan import addresses, links, routes
from services.nsmanager.plan.observed import At, Observed, Privileged

# What every table but `default` runs with. A VIP that is missing must not stop the proxy.
_SYSCTLS = {"net.ipv4.ip_nonlocal_bind": "1", "net.ipv6.ip_nonlocal_bind": "1"}
_FORWARDING = ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding")


def plan(desired: Desired, observed: Observed) -> tuple[At | Privileged, ...]:
    """() when nothing differs."""
    resource = f"routeTables/{desired.id}"
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
            *links.plan(desired, observed),
            *_contents(desired, observed),
        )
    attach = () if observed.namespace.attached or observed.namespace.occupied else (operation.AttachNamespace(table=desired.id),)
    return (
        *(Privileged(resource, each) for each in attach),
        *_sysctls(desired, observed),
        *routes.removed(desired, observed),
        *addresses.removed(desired, observed),
        *links.released(desired, observed),
        *links.plan(desired, observed),
        *_contents(desired, observed),
    )


def _contents(desired: Desired, observed: Observed) -> tuple[At | Privileged, ...]:
    return (*addresses.added(desired, observed), *routes.put(desired, observed))


def _sysctls(desired: Desired, observed: Observed) -> tuple[At, ...]:
    if observed.snapshot is None:
        return ()
    wanted = dict(_SYSCTLS) if not desired.is_built_in or desired.vips else {}
    forwards = desired.table is not None and desired.table.forwarding
    if not desired.is_built_in or forwards:
        # `default` is the operator's own: it is made to forward when asked, and otherwise left as it is.
        wanted |= dict.fromkeys(_FORWARDING, "1" if forwards else "0")
    return tuple(
        At(f"routeTables/{desired.id}", desired.id, operation.SetSysctl(name=name, value=value))  # type: ignore[arg-type]
        for name, value in wanted.items()
        if observed.snapshot.sysctls.get(name) != value
    )
