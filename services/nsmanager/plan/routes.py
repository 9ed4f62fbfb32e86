"""Routes: the kernel's routes with our protocol number against the Route resources of the table."""

from crossns import operation
from services.nsmanager.model import Desired, Route
from services.nsmanager.plan.observed import At, Observed

Key = tuple[str, int, int]


def removed(desired: Desired, observed: Observed) -> tuple[At, ...]:
    wanted = {_key(wish): route for wish in desired.routes if (route := resolved(wish, desired)) is not None}
    return tuple(
        At(f"routeTables/{desired.id}", desired.id, operation.RemoveRoute(route=seen))
        for seen in (observed.snapshot.routes if observed.snapshot is not None else ())
        if _key_seen(seen) not in wanted or (wanted[_key_seen(seen)].kind != seen.kind)
    )


def put(desired: Desired, observed: Observed) -> tuple[At, ...]:
    """Specific routes first, so that a gateway behind another route of ours is reachable when its turn comes."""
    seen = {_key_seen(each): each for each in (observed.snapshot.routes if observed.snapshot is not None else ())}
    ordered = sorted(desired.routes, key=lambda wish: (-int(wish.destination.rsplit("/", 1)[1]), wish.resource))
    return tuple(
        At(wish.resource, desired.id, operation.PutRoute(route=route))
        for wish in ordered
        if (route := resolved(wish, desired)) is not None and not is_present(wish, desired, seen.get(_key(wish)))
    )


def is_present(wish: Route, desired: Desired, seen: operation.Route | None) -> bool:
    """Whether the kernel's route is the wanted one. It names the link of every next hop, also where we left that to it."""
    wanted = resolved(wish, desired)
    if seen is None or wanted is None or seen.kind != wish.kind:
        return False
    left = list(seen.next_hops) if wish.kind == "unicast" else []
    for hop in wanted.next_hops:
        match = next((each for each in left if _hop_fits(hop, each)), None)
        if match is None:
            return False
        left.remove(match)
    return not left


def find(wish: Route, observed: Observed) -> operation.Route | None:
    routes = observed.snapshot.routes if observed.snapshot is not None else ()
    return next((seen for seen in routes if _key_seen(seen) == _key(wish)), None)


def _hop_fits(wanted: operation.NextHop, seen: operation.NextHop) -> bool:
    return wanted.gateway == seen.gateway and wanted.link in ("", seen.link) and wanted.weight == seen.weight


def _key(wish: Route) -> Key:
    return wish.destination, wish.kernel_table, wish.metric


def _key_seen(seen: operation.Route) -> Key:
    return seen.destination, seen.kernel_table, seen.metric


def elsewhere(wish: Route, desired: Desired) -> str:
    """The first interface that a next hop names and that is not in the table; "" for none."""
    named = (hop.interface for hop in wish.hops if hop.interface)
    return next((interface for interface in named if desired.link_of(interface) is None), "")


def resolved(wish: Route, desired: Desired) -> operation.Route | None:
    """With link names instead of interfaces; None where one is not in the table: another link may have its name. The weight of a
    single next hop means nothing to the kernel."""
    if elsewhere(wish, desired):
        return None
    single = len(wish.hops) == 1
    return operation.Route(
        destination=wish.destination,
        kernel_table=wish.kernel_table,
        metric=wish.metric,
        kind=wish.kind,  # type: ignore[arg-type]
        next_hops=tuple(
            operation.NextHop(
                gateway=hop.gateway,
                link=desired.all_links[hop.interface].name if hop.interface else "",
                weight=1 if single else hop.weight,
            )
            for hop in wish.hops
        ),
    )
