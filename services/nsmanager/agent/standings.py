"""How the vServices of the table stand, as nsmanager has told it: held in memory, since it is told again to each new agent.

Called by the agent's `operations`.
"""

from crossns import errors, standing


class Standings:
    """`table`: the agent's own."""

    def __init__(self, table: str) -> None:
        self._table = table
        self._held: dict[standing.Key, standing.Standing] = {}

    def put(self, wanted: standing.PutStandings) -> None:
        if wanted.table != self._table:
            message = f"this is the agent of {self._table}: what stands in {wanted.table} is none of its business"
            raise errors.FailedPrecondition("FOREIGN_OBJECT", message, table=wanted.table)
        for key in wanted.gone:
            self._held.pop(key, None)
        self._held |= {each.key: each for each in wanted.standings}

    def read(self) -> standing.Standings:
        return standing.Standings(items=tuple(self._held[key] for key in sorted(self._held)))
