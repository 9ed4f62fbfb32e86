"""Tries to break what keeps route tables apart, through their agents, and collects what each of them sees.

Called by the servicer for VerifyIsolation. Every step is done by all tables at the same time and waited for in all of them, so
that what is then seen in one was really there in the others. Whatever happens, what the trial made is taken away again.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TypeVar

from crossns import errors, examination, operation, proof
from services.nsmanager.driver.device import Device
from services.nsmanager.plan import isolation
from services.nsmanager.plan.isolation import Evidence, Played, Progress

# Link-local (RFC 3927), for benchmarks (RFC 2544), for documentation (RFC 5737): the first that no table uses is taken.
_BEGINNINGS = ("169.254.96", "169.254.97", "198.19.96", "198.19.97", "192.0.2", "203.0.113")
_NETWORKS = tuple(f"{beginning}.0/30" for beginning in _BEGINNINGS)
# Not assigned by IANA, and below those that the kernel chooses.
_PORTS = tuple(range(29200, 29999, 100))
_STEPS = (
    "looking at every namespace and process of the device",
    "looking for addresses and a port that are in nobody's way",
    "making a pair of links in each table, with the same on all",
    "sending on them",
    "looking at what each table sees",
    "taking everything away",
)

R = TypeVar("R")


class Examiner:
    """`declared()` is what may lead from one table into another."""

    def __init__(self, device: Device, declared: Callable[[], isolation.Declared]) -> None:
        self._device = device
        self._declared = declared
        # An agent holds one trial at a time.
        self._lock = asyncio.Lock()

    async def examine(self, tables: Sequence[str]) -> AsyncGenerator[Progress | Evidence, None]:
        """Tells each step as it begins, and at last what was found. `tables` are ids, which have a namespace."""
        async with self._lock:
            yield _progress(1)
            surveyed = _expected(await self._device.ask_launcher(proof.Survey()), proof.Surveyed)
            _check_there(tables, surveyed)
            named = _expected(await self._device.ask_launcher(operation.ListNamespaces()), operation.Namespaces)
            astray = tuple(each.table for each in named.items if each.occupied and each.table in tables)
            yield _progress(2)
            ground = await self._ground(tables)
            played: tuple[Played, ...] = ()
            try:
                yield _progress(3)
                held = await self._begin(tables, ground)
                yield _progress(4)
                await self._all(tables, [proof.PlayTrial()] * len(tables))
                yield _progress(5)
                traces = await self._answers(tables, [proof.ReadTrial()] * len(tables), proof.Traces)
                played = tuple(Played(*each) for each in zip(tables, _numbers(tables), held, traces, strict=True))
                yield _progress(6)
            finally:
                await asyncio.gather(*(self._device.ask(each, proof.EndTrial()) for each in tables), return_exceptions=True)
            declared = self._declared()
            ways = await self._ways(isolation.joins(surveyed, tables, declared))
            yield Evidence(tuple(tables), surveyed, ways, ground, played, declared, astray)

    async def _ground(self, tables: Sequence[str]) -> proof.Ground:
        wanted = proof.ProbeGround(networks=_NETWORKS, ports=_PORTS)
        free = await self._answers(tables, [wanted] * len(tables), proof.FreeGround)
        network = next((each for each in _NETWORKS if all(each in one.networks for one in free)), None)
        port = next((each for each in _PORTS if all(each in one.ports for one in free)), None)
        if network is None or port is None:
            what = f"the networks {', '.join(_NETWORKS)}" if network is None else f"the ports {', '.join(map(str, _PORTS))}"
            message = f"the tables use all of {what}, and a trial needs one that none of them uses: free one"
            raise errors.FailedPrecondition("FOREIGN_OBJECT", message)
        return proof.Ground(network=network, port=port)

    async def _begin(self, tables: Sequence[str], ground: proof.Ground) -> Sequence[proof.Held]:
        seal = random.getrandbits(32)
        wanted = [proof.BeginTrial(ground=ground, number=number, seal=seal) for number in _numbers(tables)]
        return await self._answers(tables, wanted, proof.Held)

    async def _ways(self, joins: isolation.Joins) -> dict[str, examination.Examination]:
        links = joins.links
        wanted = [examination.Examine(links=links[table]) for table in links]
        return dict(zip(links, await self._answers(tuple(links), wanted, examination.Examination), strict=True))

    async def _answers(self, tables: Sequence[str], wanted: Sequence[operation.AgentOperation], kind: type[R]) -> Sequence[R]:
        return [_expected(each, kind) for each in await self._all(tables, wanted)]

    async def _all(self, tables: Sequence[str], wanted: Sequence[operation.AgentOperation]) -> Sequence[operation.Result | None]:
        """All at once; raises the first failure, when all have come to an end."""
        asked = (self._device.ask(table, each) for table, each in zip(tables, wanted, strict=True))
        answers = await asyncio.gather(*asked, return_exceptions=True)
        for each in answers:
            if isinstance(each, BaseException):
                raise each
        return [each for each in answers if not isinstance(each, BaseException)]


def _numbers(tables: Sequence[str]) -> range:
    return range(1, len(tables) + 1)


def _progress(number: int) -> Progress:
    return Progress(_STEPS[number - 1], number, len(_STEPS))


def _check_there(tables: Sequence[str], surveyed: proof.Surveyed) -> None:
    there = {table for namespace in surveyed.namespaces for table in namespace.tables}
    absent = ", ".join(f"routeTables/{table}" for table in tables if table not in there)
    if absent:
        raise errors.AgentUnavailable("ROUTE_TABLE_ABSENT", f"{absent} has no namespace (yet): try again", resource=absent)


def _expected(answer: operation.Result | None, kind: type[R]) -> R:
    if not isinstance(answer, kind):
        raise errors.InvariantError(f"{kind.__name__} was expected of an agent, not {type(answer).__name__}")
    return answer
