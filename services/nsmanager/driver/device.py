"""nsmanager's hands: it observes route tables through their agents and applies what was planned, there or at the launcher.

The loop drives it. It keeps one session with the launcher and one with each agent, opened when first needed and again after a
break; a session carries the fencing token, so a process that no longer leads changes nothing. What each table looked like
last is kept, because a card is looked for in all of them.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

from crossns import counter, errors, kernel, names, operation
from crossns.agent import Agent
from crossns.launcher import Launcher, follow
from crossns.layout import Layout
from services.nsmanager.model import BUILT_IN, mark_of
from services.nsmanager.plan import At, Observed, Privileged, Told

SERVICE = "nsmanager"
# Who has not answered a question by then hangs.
_PATIENCE_S = 10.0
# An agent that ended is back within a fraction of a second, unless it ends again and again.
_BACK_MAX_S = 2.0


class Device:
    """`on_change` is called with the unit whose world changed, `on_links` when links came or went anywhere: what appears in one
    table may be wanted in another. `on_news` gets what is told of a table, by its id; what it has taken is not told again."""

    def __init__(
        self,
        layout: Layout,
        token: operation.Token,
        on_change: Callable[[str], None],
        on_links: Callable[[], None],
        on_news: Callable[[str, Told], None],
        macs: Mapping[str, tuple[str, str]] | None = None,
    ) -> None:
        """`macs`: of cards that were there when another process led."""
        self._layout = layout
        self._token = token
        self._on_change = on_change
        self._on_links = on_links
        self._on_news = on_news
        self._launcher: Launcher | None = None
        self._agents: dict[str, Agent] = {}
        # By table, the process of the agent that was told of last.
        self._pids: dict[str, int] = {}
        # A newer session of a service ends its older one: of two that connect at once, one must wait.
        self._connecting: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._snapshots: dict[str, operation.Snapshot] = {}
        # At a start both the loop and the launcher's follower ask what there is.
        self._surveying = asyncio.Lock()
        # Tables that a round looks at just now.
        self._looking: set[str] = set()
        # Table -> since when (time of the event loop) its agent could not be asked.
        self._unseen_since: dict[str, float] = {}
        # Mark -> the table in which its link was last seen, and the link.
        self._marked: dict[str, tuple[str, operation.Link]] = {}
        # Mark -> MAC address and kind of the network card that carried it last, until it is given back.
        self._macs = dict(macs or {})

    async def run(self) -> None:
        """Hear the launcher's events all the time."""
        await follow(self._connected_launcher, self._look_at_all)

    async def close(self) -> None:
        """End every session."""
        for session in (self._launcher, *self._agents.values()):
            if session is not None:
                await session.close()

    async def _look_at_all(self) -> None:
        for unit in await self.units():
            self._on_change(unit)

    async def units(self) -> Iterable[str]:
        """Looks at those that it has never seen, all at once: a card may be in any. At all others the rounds look."""
        namespaces = await self._namespaces("")
        self._compare(namespaces)
        async with self._surveying:
            unseen = [each.table for each in namespaces if each.table not in self._snapshots]
            await asyncio.gather(*(self._look(table) for table in unseen), return_exceptions=True)
        return [f"routeTables/{each.table}" for each in namespaces]

    async def observe(self, unit: str) -> Observed:
        table = names.resource_id(unit)
        # What the agent tells of before it answers is in its answer: that is mostly what this round has changed itself.
        self._looking.add(table)
        try:
            return await self._observe(table)
        finally:
            self._looking.remove(table)

    async def _observe(self, table: str) -> Observed:
        if table != BUILT_IN and BUILT_IN not in self._snapshots:
            await self._look(BUILT_IN)
        namespace = next(iter(await self._namespaces(table)), None)
        if namespace is None:
            if table in self._snapshots:
                self._forget(table)
                self._on_links()
            if (agent := self._agents.pop(table, None)) is not None:
                await agent.close()
            self._connecting.pop(table, None)
            self._unseen_since.pop(table, None)
            self._pids.pop(table, None)
            return Observed(marked=self._marked, cards=self._cards(), macs=self._macs)
        launcher = await self._connected_launcher()
        snapshot = await self._seen(table)
        return Observed(namespace, snapshot, launcher.welcome.boot_id, self._marked, self._cards(), self._macs)

    async def _seen(self, table: str) -> operation.Snapshot | None:
        """None where the agent has been away for longer than one takes that is started again: until then it is waited for."""
        now = asyncio.get_running_loop().time()
        try:
            snapshot = await self._look(table)
        except errors.AgentUnavailable:
            if now - self._unseen_since.setdefault(table, now) < _BACK_MAX_S:
                raise
            return None
        self._unseen_since.pop(table, None)
        return snapshot

    async def apply(self, op: At | Privileged) -> None:
        if isinstance(op, Privileged):
            await (await self._connected_launcher()).call(op.operation)
            return
        await (await self._connected_agent(op.table)).call(op.operation)
        if isinstance(op.operation, operation.MoveLink | operation.MarkLink) and not op.operation.mark:
            self._macs.pop(mark_of(op.resource), None)
        if isinstance(op.operation, operation.MoveLink):
            # A link arrives in steps, and of the last (its marks come off) the kernel tells nobody.
            await self._look(op.operation.table)

    async def ask(self, table: str, wanted: operation.AgentOperation) -> operation.Result | None:
        """What the agent of a table answers; AgentUnavailable where it does not in time."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                return await (await self._connected_agent(table)).call(wanted)
        except TimeoutError as error:
            message = (
                f"the agent of {table} does not answer within {_PATIENCE_S:g} s: try again, `crossns status` shows its process"
            )
            raise errors.AgentUnavailable("AGENT_UNAVAILABLE", message, table=table) from error

    async def ask_launcher(self, wanted: operation.LauncherOperation) -> operation.Result | None:
        return await (await self._connected_launcher()).call(wanted)

    async def count(self, table: str) -> counter.KernelCounters:
        """What the kernel has counted in the namespace of a table."""
        read = await (await self._connected_agent(table)).call(operation.ReadCounters())
        if not isinstance(read, counter.KernelCounters):
            raise errors.InvariantError(f"the agent of {table} answered a count with {type(read).__name__}")
        return read

    async def tables(self) -> list[str]:
        """By id, of every table that has a namespace."""
        return [each.table for each in await self._namespaces("")]

    async def agent(self, table: str) -> Agent | None:
        """A session with a table's agent, the same for all until it is lost; None where the table has no namespace."""
        return await self._connected_agent(table) if await self._namespaces(table) else None

    async def agent_restarts(self) -> dict[str, int]:
        """By table, of every table that has a namespace."""
        return {each.table: each.agent_restarts for each in await self._namespaces("")}

    async def _namespaces(self, table: str) -> tuple[operation.Namespace, ...]:
        result = await (await self._connected_launcher()).call(operation.ListNamespaces(table=table))
        return result.items if isinstance(result, operation.Namespaces) else ()

    async def _look(self, table: str) -> operation.Snapshot:
        snapshot = await (await self._connected_agent(table)).call(operation.Dump())
        if not isinstance(snapshot, operation.Snapshot):
            raise errors.InvariantError(f"the agent of {table} answered a dump with {type(snapshot).__name__}")
        old = self._snapshots.get(table)
        self._forget(table)
        self._snapshots[table] = snapshot
        self._marked |= {link.mark: (table, link) for link in snapshot.links if link.mark}
        self._macs |= {link.mark: (link.mac, link.kind) for link in snapshot.links if link.mark and link.was}
        if old is None or _links(old) != _links(snapshot):
            self._on_links()
        return snapshot

    def _forget(self, table: str) -> None:
        """What was known of a table; its marks, unless they were seen elsewhere since."""
        old = self._snapshots.pop(table, None)
        for link in old.links if old is not None else ():
            if link.mark in self._marked and self._marked[link.mark][0] == table:
                del self._marked[link.mark]

    def _cards(self) -> tuple[operation.Link, ...]:
        """What an Interface may take by name or MAC address: the links of `default` that nobody has taken."""
        snapshot = self._snapshots.get(BUILT_IN)
        return tuple(link for link in snapshot.links if not link.mark and link.name != "lo") if snapshot is not None else ()

    async def _connected_launcher(self) -> Launcher:
        async with self._connecting[""]:
            if self._launcher is None or self._launcher.is_closed:
                path = self._layout.launcher_socket
                self._launcher = await Launcher.connect(path, SERVICE, self._token, self._on_launcher_event)
            return self._launcher

    async def _connected_agent(self, table: str) -> Agent:
        async with self._connecting[table]:
            agent = self._agents.get(table)
            if agent is None or agent.is_closed:
                path = self._layout.agent_socket(table)
                agent = await Agent.connect(path, SERVICE, self._token, lambda event: self._on_agent_event(table, event))
                self._agents[table] = agent
                agent.post(kernel.Subscribe())
            return agent

    def _compare(self, namespaces: Iterable[operation.Namespace]) -> None:
        """Agents that ended while there was no session with the launcher: nobody told of that."""
        for each in namespaces:
            known = self._pids.get(each.table, each.agent_pid)
            if known != each.agent_pid:
                self._on_launcher_event(operation.AgentExited(table=each.table, pid=known))
                if each.agent_pid:
                    started = operation.AgentStarted(table=each.table, pid=each.agent_pid, restarts=each.agent_restarts)
                    self._on_launcher_event(started)
            elif each.agent_pid:
                self._pids[each.table] = each.agent_pid

    def _on_launcher_event(self, event: operation.Event) -> None:
        if isinstance(event, operation.AgentExited | operation.AgentStarted):
            self._on_news(event.table, event)
            if isinstance(event, operation.AgentStarted):
                self._pids[event.table] = event.pid
            else:
                self._pids.pop(event.table, None)
        if isinstance(event, operation.AgentStarted) and not event.restarts:
            # A table's first: who had the table made waits for it, and looks then.
            return
        if isinstance(event, operation.AgentExited | operation.AgentStarted | operation.NamespaceChanged):
            self._on_change(f"routeTables/{event.table}")

    def _on_agent_event(self, table: str, event: operation.Event) -> None:
        if isinstance(event, operation.Changed):
            if table not in self._looking:
                self._on_change(f"routeTables/{table}")
        elif isinstance(event, kernel.News):
            self._on_news(table, event)
            self._agents[table].post(kernel.Acknowledge(number=event.number))


def _links(snapshot: operation.Snapshot) -> set[tuple[str, str]]:
    return {(link.name, link.mark) for link in snapshot.links}
