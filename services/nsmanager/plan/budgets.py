"""The budget of a table's sessions: put where it is not in force, taken away where none is asked for."""

from crossns.budget import PutBudget, RemoveBudget
from services.nsmanager.model import Desired
from services.nsmanager.plan.observed import At, Observed


def plan(desired: Desired, observed: Observed) -> tuple[At, ...]:
    """Also of a table that is about to be made: the budget is in force before a link comes in."""
    wanted = desired.table.budget if desired.table is not None else None
    seen = observed.snapshot.budget_seen if observed.snapshot is not None else None
    if wanted is None:
        return (_at(desired, RemoveBudget()),) if seen is not None else ()
    return () if seen is not None and seen.budget == wanted else (_at(desired, PutBudget(budget=wanted)),)


def _at(desired: Desired, wanted: PutBudget | RemoveBudget) -> At:
    return At(f"routeTables/{desired.id}", desired.id, wanted)
