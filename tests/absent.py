"""A device of which nothing answers, in the place of nsmanager's driver: for servicers that are tested on the store alone."""

from collections.abc import AsyncGenerator, Mapping, Sequence

from crossns import counter, errors, operation
from crossns.v1 import impact_pb2
from services.nsmanager import servicer
from services.nsmanager.plan import isolation


class Absent:
    async def count(self, table: str) -> counter.KernelCounters:
        raise _unavailable(table)

    async def agent_restarts(self) -> Mapping[str, int]:
        raise _unavailable("the device")


class Examiner:
    async def examine(self, tables: Sequence[str]) -> AsyncGenerator[isolation.Progress | isolation.Evidence, None]:
        yield isolation.Progress("looking", 1, 1)
        raise _unavailable(", ".join(tables))


def statistics() -> servicer.Statistics:
    return servicer.Statistics(Absent(), lambda: ())


async def ask(table: str, _wanted: operation.AgentOperation) -> operation.Result | None:
    raise _unavailable(table)


async def add_parts(_request: impact_pb2.AnalyzePartRequest, _impact: impact_pb2.Impact) -> None:
    return None


def _unavailable(whose: str) -> errors.AgentUnavailable:
    return errors.AgentUnavailable("AGENT_UNAVAILABLE", f"the agent of {whose} is not there")
