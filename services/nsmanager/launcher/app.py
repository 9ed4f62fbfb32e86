"""The launcher's only wiring: sessions in front, namespaces, agents and engine behind, one loop under all.

Called by `__main__`. Its operations are short and synchronous, or answer later from a callback of the loop.
"""

import logging
import os
import resource
from functools import partial
from typing import Any

from crossns import errors, names, netns, operation, proof
from crossns.layout import Layout
from services.nsmanager.launcher import agents, inotify, place, records, session, surveying
from services.nsmanager.launcher.engine import Engine
from services.nsmanager.launcher.fence import Fence
from services.nsmanager.launcher.loop import Loop
from services.nsmanager.launcher.namespace import DEFAULT, Incarnation, Namespaces

_NSMANAGER = frozenset({"nsmanager"})
_PROXY = frozenset({"proxy"})
_DUTIES: dict[type[operation.Message], frozenset[str] | None] = {
    operation.CreateNamespace: _NSMANAGER,
    operation.AttachNamespace: _NSMANAGER,
    operation.DestroyNamespace: _NSMANAGER,
    operation.StartEngine: _PROXY,
    operation.SaveEngine: _PROXY,
    operation.EndWorkers: _PROXY,
    operation.StopEngine: _PROXY,
    proof.Survey: _NSMANAGER,
    operation.ListNamespaces: None,
    operation.ListEngines: None,
    operation.Statistics: None,
}
_log = logging.getLogger(__name__)


class Launcher:
    """`run` serves until SIGTERM; namespaces, agents and engines stay."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._loop = Loop()
        self._tally = session.Tally()
        self._namespaces = Namespaces(layout)
        self._agents = agents.Agents(self._loop, place.agent_records(layout), self._on_agent_start, self._on_agent_exit)
        self._engine = Engine(self._loop, layout, self._on_engine_exit, self._on_engine_reload)
        self._cookie = netns.cookie()
        self._sessions: session.Sessions | None = None

    def run(self) -> None:
        place.prepare(self._layout)
        if records.claim(place.launcher_record(self._layout)) is None:
            message = f"another launcher serves {self._layout.run}: stop it first"
            raise errors.FailedPrecondition("FOREIGN_OBJECT", message)
        self._namespaces.recover()
        self._namespaces.show_default()
        self._loop.stop_on_signals()
        self._adopt()
        inotify.watch(self._loop, self._layout.netns, self._on_names)
        listener = session.listen(self._layout.launcher_socket, mode=0o666)
        self._sessions = session.Sessions(self._loop, listener, self._charter(), self._tally)
        _log.info("ready on %s", self._layout.launcher_socket)
        self._loop.run()
        self._sessions.close()

    def _charter(self) -> session.Charter:
        changes = frozenset(kind for kind, services in _DUTIES.items() if services is not None)
        return session.Charter(_DUTIES, changes, self._layout.process_of, Fence(self._layout.fence_dir), self._dispatch)

    def _adopt(self) -> None:
        self._agents.start_zygote()
        self._agents.ensure(agents.Fork(DEFAULT, self._cookie, ""), _ignore)
        for incarnation in self._namespaces.all():
            self._agents.ensure(_fork(incarnation), _ignore)
        self._agents.sweep()
        self._engine.recover()

    def _dispatch(self, wanted: Any, answer: session.Answer) -> None:
        match wanted:
            case operation.CreateNamespace(table=table):
                self._create(_checked(table), answer)
            case operation.AttachNamespace(table=table):
                self._attach(_checked(table), answer)
            case operation.DestroyNamespace(table=table):
                self._destroy(_checked(table), answer)
            case operation.ListNamespaces(table=table):
                answer(operation.Namespaces(items=self._list(table)))
            case proof.Survey():
                surveying.begin(self._loop, self._agents.look, answer)
            case operation.StartEngine(config=config):
                self._tally.writes += 1
                self._engine.apply(config, answer)
            case operation.SaveEngine(config=config):
                self._tally.writes += 1
                self._engine.save(config, answer)
            case operation.EndWorkers(pids=pids):
                self._engine.end_workers(pids, lambda: answer(None))
            case operation.StopEngine():
                self._tally.writes += 1
                self._engine.stop(lambda: answer(None))
            case operation.ListEngines():
                shown = self._engine.shown()
                _, open_files = resource.getrlimit(resource.RLIMIT_NOFILE)
                answer(operation.Engines(items=(shown,) if shown else (), open_files=open_files))
            case operation.Statistics():
                answer(self._tally.counters())

    def _create(self, table: str, answer: session.Answer) -> None:
        if self._namespaces.find(table) is None:
            self._tally.writes += 1
        incarnation = self._namespaces.create(table)

        def up(error: errors.CrossnsError | None) -> None:
            answer(error or self._show(table, incarnation))

        self._agents.ensure(_fork(incarnation), up)

    def _attach(self, table: str, answer: session.Answer) -> None:
        incarnation = self._namespaces.find(table)
        if incarnation is None:
            raise errors.FailedPrecondition("ROUTE_TABLE_ABSENT", f"{table} has no namespace: create it", table=table)
        if not self._namespaces.sight(table, incarnation).attached:
            self._tally.writes += 1
        self._namespaces.attach(incarnation)
        answer(self._show(table, incarnation))

    def _destroy(self, table: str, answer: session.Answer) -> None:
        incarnation = self._namespaces.find(table)
        if incarnation is None:
            answer(None)
            return
        self._tally.writes += 1
        self._agents.end(table, incarnation.cookie, partial(self._drop, incarnation, answer))

    def _drop(self, incarnation: Incarnation, answer: session.Answer) -> None:
        self._namespaces.destroy(incarnation)
        self._layout.agent_socket(incarnation.table).unlink(missing_ok=True)
        answer(None)

    def _list(self, table: str) -> tuple[operation.Namespace, ...]:
        if table and table != DEFAULT:
            found = self._namespaces.find(table)
            return (self._show(table, found),) if found is not None else ()
        known = self._namespaces.all() if not table else ()
        return (self._show(DEFAULT, None), *(self._show(each.table, each) for each in known))

    def _show(self, table: str, incarnation: Incarnation | None) -> operation.Namespace:
        agent = self._agents.get(table)
        pid, restarts = (agent.pid, agent.restarts) if agent else (0, 0)
        if table == DEFAULT:
            return operation.Namespace(table=table, cookie=self._cookie, attached=True, agent_pid=pid, agent_restarts=restarts)
        sight = self._namespaces.sight(table, incarnation)
        return operation.Namespace(
            table=table,
            cookie=incarnation.cookie if incarnation else 0,
            attached=sight.attached,
            occupied=sight.occupied,
            agent_pid=pid,
            agent_restarts=restarts,
        )

    def _on_agent_start(self, table: str, pid: int, restarts: int) -> None:
        self._notify(operation.AgentStarted(table=table, pid=pid, restarts=restarts))

    def _on_agent_exit(self, table: str, pid: int) -> None:
        self._notify(operation.AgentExited(table=table, pid=pid))

    def _on_engine_exit(self, pid: int, status: int) -> None:
        self._notify(operation.EngineExited(engine=self._engine.name, pid=pid, status=status))

    def _on_engine_reload(self) -> None:
        self._notify(operation.EngineReloaded(engine=self._engine.name))

    def _on_names(self, changed: set[str]) -> None:
        # Our own additions are attached by the time they are read here.
        for table in sorted(changed):
            if not self._namespaces.sight(table, self._namespaces.find(table)).attached:
                self._notify(operation.NamespaceChanged(table=table))

    def _notify(self, event: operation.Event) -> None:
        if self._sessions:
            self._sessions.notify(event)


def _fork(incarnation: Incarnation) -> agents.Fork:
    return agents.Fork(incarnation.table, incarnation.cookie, os.fspath(incarnation.path))


def _checked(table: str) -> str:
    if names.check_id(table, "table") == DEFAULT:
        message = "default is the namespace that the device booted in: it stays as it is"
        raise errors.FailedPrecondition("ROUTE_TABLE_BUILT_IN", message)
    return table


def _ignore(*_arguments: object) -> None:
    pass
