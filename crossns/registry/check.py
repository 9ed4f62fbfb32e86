"""What refuses a write, in words: pure checks over what the store said."""

from crossns import errors, names, store
from crossns.resource import Draft, Resource


def not_found(name: str) -> errors.NotFound:
    shown = errors.bounded(name)
    return errors.NotFound(
        "NOT_FOUND", f"{shown} does not exist: list the {names.collection(name)} to see which do", resource=shown
    )


def contention(name: str) -> errors.Aborted:
    return errors.Aborted("CONTENTION", f"{name}: others wrote at the same time again and again: try again", resource=name)


def alive(current: Resource) -> None:
    if current.HasField("delete_time"):
        message = f"{current.name} is being deleted: wait until it is gone, then try again"
        raise errors.Aborted("BEING_DELETED", message, resource=current.name)


def etag(given: str, current: Resource) -> None:
    if given and given != current.etag:
        message = f"{current.name} was changed by somebody else: read it again and redo the change"
        raise errors.StaleEtag("STALE_ETAG", message, resource=current.name, etag=errors.bounded(given), current=current.etag)


def targets(draft: Draft, missing: frozenset[str], leaving: frozenset[str]) -> None:
    """Raise where a reference names what is not there, or is being deleted."""
    for ref in draft.references:
        if ref.target in missing:
            message = f"{ref.field}: {ref.target} does not exist: create it first"
            raise errors.FailedPrecondition("TARGET_NOT_FOUND", message, field=ref.field, resource=ref.target)
        if ref.target in leaving:
            message = f"{ref.field}: {ref.target} is being deleted: name another one, or wait and create it anew"
            raise errors.FailedPrecondition("TARGET_BEING_DELETED", message, field=ref.field, resource=ref.target)


def unreferenced(name: str, conflict: store.Conflict) -> None:
    """Raise STILL_REFERENCED (ROUTE_TABLE_NOT_EMPTY for interfaces in a route table) where somebody refers to `name`."""
    keys = [entry.key for failed, entries in conflict.failed.items() if isinstance(failed, store.EmptyBelow) for entry in entries]
    referrers = sorted(key.split("//", 1)[1] for key in keys)
    if not referrers:
        return
    inside = [referrer for referrer in referrers if names.collection(referrer) == "interfaces"]
    listed = ", ".join(inside or referrers)
    if names.collection(name) == "routeTables" and inside:
        message = f"{name} still has {listed}: move or delete them first, or delete with evacuate"
        raise errors.FailedPrecondition("ROUTE_TABLE_NOT_EMPTY", message, resource=name, referrers=listed)
    message = f"{name} is still used by {listed}: change or delete them first"
    raise errors.FailedPrecondition("STILL_REFERENCED", message, resource=name, referrers=listed)
