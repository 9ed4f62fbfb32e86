"""What a move of an interface, or the deletion of a route table, would touch: read from store and device, nothing changed.

Called by Interfaces and RouteTables. Everything of the store is of one revision, and what is said of the kernel is what agents
saw then; an agent that does not answer is an error, never a shorter list.
"""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from crossns import errors, examination, names, operation, resource, store
from crossns.registry import Registry, check, not_found
from crossns.resource import Resource
from crossns.v1 import impact_pb2, interface_pb2
from services.nsmanager import model, plan

# An agent answers within milliseconds; one that is dumping a large table is given its time.
PATIENCE_S = 5.0
A = TypeVar("A")
# Asks the agent of a table, by its id. AgentUnavailable where that does not answer.
Ask = Callable[[str, operation.AgentOperation], Awaitable[operation.Result | None]]
# Puts the other services' parts into an impact, and those that did not answer.
AddParts = Callable[[impact_pb2.AnalyzePartRequest, impact_pb2.Impact], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class State:
    """What the store has at one revision: the desired state by table, nsmanager's living resources, their revisions."""

    world: model.World
    stored: Mapping[str, Resource]
    revisions: Mapping[str, int]

    def desired(self, table: str) -> model.Desired:
        """As it is now, whatever the world is told later. By the table's id."""
        found = self.world.desired(f"routeTables/{table}")
        return dataclasses.replace(found, all_links=dict(found.all_links))

    def below(self, table: str) -> Mapping[str, Resource]:
        return {name: each for name, each in self.stored.items() if names.parent(name) == table}


@dataclass(frozen=True, slots=True)
class Outlook:
    """What would be written, on what it was decided, and what it touches. `links`: by the table's id those that leave, and those
    that sit on them."""

    state: State
    relocation: plan.Relocation
    impact: impact_pb2.Impact
    links: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Departure:
    """Links of a table that leave it, as the agent sees them."""

    desired: model.Desired
    snapshot: operation.Snapshot
    seen: examination.Examination
    links: tuple[str, ...]

    def link_locals(self, interfaces: Collection[str]) -> Mapping[str, tuple[str, ...]]:
        """By interface, those that its link will have."""
        found = {}
        for link in self.desired.links:
            if link.resource in interfaces:
                name = next((each.name for each in self.snapshot.links if each.mark == link.mark), "")
                prefixes = (
                    each.prefix for each in self.snapshot.addresses if each.link == name and plan.is_link_local(each.prefix)
                )
                found[link.resource] = plan.unknown_again(prefixes, is_same_link=link.kind == "physical")
        return found


class Impacts:
    def __init__(self, registries: Mapping[str, Registry], ask: Ask, add_parts: AddParts) -> None:
        self._registry = registries["interfaces"]
        self._keys = self._registry.keys
        self._store = self._registry.store
        self._ask = ask
        self._add_parts = add_parts

    async def of_move(self, request: Any) -> Outlook:
        """`request` has name, route_table, drop_addresses, drop_routes and own_session. NotFound, InvalidSpec; what else stands
        in the way is a conflict."""
        name = names.check(request.name, "interfaces", "name")
        target = names.check(request.route_table, "routeTables", "route_table")
        state = await self._state()
        interface = state.stored.get(name)
        if not isinstance(interface, interface_pb2.Interface):
            # Raises where there is none, or it is being deleted.
            check.alive(await self._registry.get(name))
            raise not_found(name)
        source = interface.spec.route_table
        if source == target:
            raise errors.InvalidSpec("route_table", f"{name} is in {target} already: name another one")
        if target not in state.stored:
            message = f"route_table: {target} does not exist, or is being deleted: create it first"
            raise errors.FailedPrecondition("TARGET_NOT_FOUND", message, field="route_table", resource=target)
        here, there = state.desired(names.resource_id(source)), state.desired(names.resource_id(target))
        inside = {name: interface, **state.below(source)}
        keep = plan.Keep(addresses=not request.drop_addresses, routes=not request.drop_routes)
        relocation = plan.move(here, inside, name, target, keep)
        departure = await self._departure(here, relocation, request.own_session)
        snapshot = await self._look(there.id)
        impact = self._impact(name, state, relocation, departure, (there, snapshot))
        link = state.desired(there.id).all_links[name]
        then = state.desired(there.id)
        met = await self._answer(there.id, plan.obstacles(link, then, relocation), examination.Obstacles)
        impact.conflicts.extend(plan.conflicts(link, then, snapshot, relocation, state.below(target), met))
        there_seen = await self._examine(there.id, (link.name,), None)
        impact.items.extend(plan.awakened(there_seen, there.id))
        await self._add_parts(_part(departure, source, target, link), impact)
        if not departure.links:
            message = f"{name} has no link in {source} that could be moved: its status says why; change its spec instead"
            impact.conflicts.append(impact_pb2.ImpactConflict(reason="LINK_MISSING", message=message, blocking=True))
        return Outlook(state, relocation, impact, plan.touched(relocation, here, departure.links))

    async def of_deletion(self, table: str, inside: Collection[Resource], session: impact_pb2.OwnSession) -> Outlook:
        """Of a table together with all that is in it: `inside`, with their status."""
        state = await self._state()
        here, there = state.desired(names.resource_id(table)), state.desired(model.BUILT_IN)
        relocation = plan.evacuation(table, inside)
        snapshot = await self._look(here.id)
        links = tuple(link.name for link in snapshot.links)
        own = tuple(link for link in links if link != plan.LOOPBACK)
        departure = _Departure(here, snapshot, await self._examine(here.id, own, session), links)
        impact = self._impact(table, state, relocation, departure, (there, await self._look(there.id)))
        return Outlook(state, relocation, impact)

    async def carries(self, table: str, is_meant: Callable[[operation.Link], bool], session: impact_pb2.OwnSession) -> bool:
        """Whether the session goes over one of the links that are meant; `table` by its id."""
        links = tuple(link.name for link in (await self._look(table)).links if is_meant(link))
        return bool(links) and (await self._examine(table, links, session)).carries_session

    async def undeclared(self, table: str) -> tuple[str, ...]:
        """Links in the table that no Interface declares, as its agent sees them now; `table` by its id."""
        return plan.foreign(plan.Observed(snapshot=await self._look(table)))

    def _impact(
        self,
        name: str,
        state: State,
        relocation: plan.Relocation,
        departure: _Departure,
        target: tuple[model.Desired, operation.Snapshot],
    ) -> impact_pb2.Impact:
        """Tells the world of `state` what would be written: from then on it is as it will be."""
        here, (there, snapshot) = departure.desired, target
        before = {
            **plan.before(here, departure.snapshot, departure.seen, departure.links),
            **plan.before(there, snapshot, examination.Examination(), ()),
        }
        self._foretell(state, relocation)
        then = state.desired(there.id)
        arriving = [link for link in then.links if link.resource in relocation.interfaces] if departure.links else []
        changed = {each.name for each in relocation.changed}
        after = {
            **plan.after(state.desired(here.id), departure.snapshot, (), {}, changed),
            **plan.after(then, snapshot, arriving, departure.link_locals(relocation.interfaces), changed),
            **plan.left_over(here.id, departure.seen, departure.links),
        }
        return impact_pb2.Impact(
            name=name,
            items=[*plan.items(before, after), *plan.riders(relocation, here)],
            resources=plan.resources(relocation),
            established_sessions=departure.seen.sessions,
            forwarded_sessions=departure.seen.forwarded,
            forwarded_sessions_at_least=departure.seen.more,
            carries_own_session=departure.seen.carries_session,
        )

    async def _state(self) -> State:
        """Linearizable. A service's resources are read at the revision at which nsmanager's were."""
        own = await self._store.list(self._keys.desired(""))
        others = [
            await self._store.list(self._keys.of(service).desired(""), revision=own.revision)
            for service in names.SERVICES
            if service != self._keys.service
        ]
        world = model.World(self._keys)
        stored: dict[str, Resource] = {}
        for entry in (each for listing in (own, *others) for each in listing.entries):
            world.change(store.Change(entry.key, entry.mod_revision, entry))
        for entry in own.entries:
            name = entry.key.removeprefix(self._keys.desired(""))
            message = resource.load(names.collection(name), entry.value)
            if not message.HasField("delete_time"):
                stored[name] = message
        revisions = {entry.key.removeprefix(self._keys.desired("")): entry.mod_revision for entry in own.entries}
        return State(world, stored, revisions)

    def _foretell(self, state: State, relocation: plan.Relocation) -> None:
        for each in (*relocation.changed, *relocation.created):
            key = self._keys.desired(each.name)
            state.world.change(store.Change(key, 0, store.Entry(key, each.SerializeToString(), 0, 0)))
        for name in relocation.deleted:
            state.world.change(store.Change(self._keys.desired(name), 0, None))

    async def _departure(self, desired: model.Desired, relocation: plan.Relocation, session: Any) -> _Departure:
        snapshot = await self._look(desired.id)
        marks = {model.mark_of(name) for name in relocation.interfaces}
        links = tuple(link.name for link in snapshot.links if link.mark in marks)
        seen = await self._examine(desired.id, links, session)
        return _Departure(desired, snapshot, seen, links)

    async def _examine(
        self, table: str, links: tuple[str, ...], session: impact_pb2.OwnSession | None
    ) -> examination.Examination:
        """`session`: of links that leave, also what is forwarded over them; None for a look at links that come."""
        wanted = examination.Examine(links=links)
        if session is not None:
            own, other = session.local_address, session.remote_address
            wanted = examination.Examine(links=links, local=own, remote=other, forwarded=bool(links))
        return await self._answer(table, wanted, examination.Examination)

    async def _look(self, table: str) -> operation.Snapshot:
        return await self._answer(table, operation.Dump(), operation.Snapshot)

    async def _answer(self, table: str, wanted: operation.AgentOperation, kind: type[A]) -> A:
        try:
            async with asyncio.timeout(PATIENCE_S):
                answer = await self._ask(table, wanted)
        except TimeoutError as error:
            message = f"the agent of routeTables/{table} does not answer within {PATIENCE_S:g} s: try again"
            raise errors.AgentUnavailable("AGENT_UNAVAILABLE", message, resource=f"routeTables/{table}") from error
        if not isinstance(answer, kind):
            raise errors.InvariantError(f"the agent of {table} answered {type(wanted).__name__} with {type(answer).__name__}")
        return answer


def _part(departure: _Departure, source: str, target: str, link: model.Link) -> impact_pb2.AnalyzePartRequest:
    own = (each.prefix for each in departure.snapshot.addresses if each.link in departure.links)
    return impact_pb2.AnalyzePartRequest(
        route_table=source,
        links=departure.links,
        addresses=own,
        target=target,
        kept_addresses=link.addresses,
    )
