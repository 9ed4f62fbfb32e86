"""What a table's agent must be told so that it knows how the vServices of its table stand: pure."""

from collections.abc import Mapping

from crossns import standing
from services.nsmanager.model import TableStandings
from services.nsmanager.plan.observed import At


def standings(desired: TableStandings, held: Mapping[standing.Key, standing.Standing] | None) -> tuple[At, ...]:
    """`held` by the agent; None where there is none to tell."""
    if held is None:
        return ()
    new = tuple(each for key, each in desired.standings.items() if held.get(key) != each)
    gone = tuple(key for key in held if key not in desired.standings)
    if not new and not gone:
        return ()
    table = desired.table
    return (At(f"routeTables/{table}", table, standing.PutStandings(table=table, standings=new, gone=gone)),)
