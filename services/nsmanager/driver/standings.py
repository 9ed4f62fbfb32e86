"""What agents have been told of the vServices of their tables: observed and applied through the sessions of `Device`.

The loop of the vServices' standings drives it.
"""

from collections.abc import Iterable, Mapping

from crossns import errors, names, standing
from crossns.agent import Agent
from services.nsmanager.driver.device import Device
from services.nsmanager.plan import At


class Standings:
    """What each table's agent has been told of its vServices: read when a session begins, then as it acknowledges."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._held: dict[str, tuple[Agent, dict[standing.Key, standing.Standing]]] = {}

    async def units(self) -> Iterable[str]:
        return [f"routeTables/{table}" for table in await self._device.tables()]

    async def observe(self, unit: str) -> Mapping[standing.Key, standing.Standing] | None:
        table = names.resource_id(unit)
        if table in self._held and not self._held[table][0].is_closed:
            return self._held[table][1]
        self._held.pop(table, None)
        agent = await self._device.agent(table)
        if agent is None:
            return None
        read = await agent.call(standing.ReadStandings())
        if not isinstance(read, standing.Standings):
            raise errors.InvariantError(f"the agent of {table} answered a question for standings with {type(read).__name__}")
        self._held[table] = agent, {each.key: each for each in read.items}
        return self._held[table][1]

    async def apply(self, op: At) -> None:
        agent, held = self._held[op.table]
        await agent.call(op.operation)
        if isinstance(op.operation, standing.PutStandings):
            for key in op.operation.gone:
                held.pop(key, None)
            held |= {each.key: each for each in op.operation.standings}
