"""Observes and changes HAProxy: through the launcher, which keeps it running, and through its own master socket.

The loop drives it, one round at a time. The session with the launcher carries the fencing token, so a process that no longer
leads changes nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from crossns import errors, operation
from crossns.launcher import Launcher, follow
from crossns.layout import Layout
from services.proxy import model, plan, render
from services.proxy.driver import ending, master
from services.proxy.driver.refusals import Refusals

SERVICE = "proxy"
ENGINE: Final = "haproxy"
# What HAProxy may take to be back when it was killed; a start with 5,000 vServices takes 0.6 s.
_BACK_MAX_S = 5.0
_STEP_S = 0.01
# Changes that come within this time share the next reload.
_PAUSE_S = 0.1


@dataclass(frozen=True, slots=True)
class Beside:
    """What the driver asks and tells: `down`, the members that do not accept connections, and `unknown`, those that were not
    judged yet; `after_reload`, that the worker has a successor, and `on_reload`, that it may have; `on_change`, with the unit,
    that HAProxy ended without having been asked to, or that nobody heard whether it did."""

    down: Callable[[], Mapping[model.Target, str]]
    unknown: Callable[[], frozenset[model.Target]]
    after_reload: Callable[[], Awaitable[None]]
    on_reload: Callable[[], None]
    on_change: Callable[[str], None]


class Device:
    def __init__(self, layout: Layout, token: operation.Token, beside: Beside) -> None:
        self._layout = layout
        self._token = token
        self._beside = beside
        self._launcher: Launcher | None = None
        # The loop is not the only one that asks: `end_workers`.
        self._connecting = asyncio.Lock()
        self._refusals = Refusals(lambda: beside.on_change(model.UNIT))

    async def close(self) -> None:
        self._refusals.close()
        if self._launcher is not None:
            await self._launcher.close()

    async def run(self) -> None:
        """Hear the launcher's events all the time."""
        await follow(self._connected, self._look_anew)

    async def _look_anew(self) -> None:
        self._beside.on_reload()
        self._beside.on_change(model.UNIT)

    async def units(self) -> Iterable[str]:
        return (model.UNIT,)

    async def observe(self, _unit: str) -> plan.Observed:
        launcher = await self._connected()
        namespaces = await launcher.call(operation.ListNamespaces())
        if not isinstance(namespaces, operation.Namespaces):
            raise errors.InvariantError("the launcher answered something else than what was asked")
        engine, limits, seen = await self._answering(launcher)
        return plan.Observed(
            limits=limits,
            running=engine is not None,
            digest=engine.config_digest if engine is not None else "",
            structure=seen.structure,
            listeners=seen.listeners,
            servers=seen.servers,
            namespaces=frozenset(f"{each.table}.{each.cookie}" for each in namespaces.items if each.cookie),
            down=self._beside.down(),
            unknown=self._beside.unknown(),
            refused=self._refusals.leave_out(),
        )

    async def apply(self, op: plan.Operation) -> None:
        launcher = await self._connected()
        match op:
            case plan.StopEngine():
                await launcher.call(operation.StopEngine(engine=ENGINE))
            case plan.SaveEngine():
                await launcher.call(operation.SaveEngine(engine=ENGINE, config=op.config))
            case plan.SetServer():
                await master.change(self._layout.haproxy_master, op)
                await ending.end(self._layout.haproxy_master, op.ended)
            case plan.StartEngine():
                await self._start(launcher, op)

    async def end_workers(self, pids: tuple[int, ...]) -> None:
        """Those of them that a reload has replaced."""
        launcher = await self._connected()
        await launcher.call(operation.EndWorkers(engine=ENGINE, pids=pids))

    async def _start(self, launcher: Launcher, op: plan.StartEngine) -> None:
        """What HAProxy does not start with is left out by the next plan; PermanentError where there is nothing to leave out."""
        try:
            await launcher.call(operation.StartEngine(engine=ENGINE, config=op.config))
        except errors.PermanentError as error:
            found = plan.blamed(op, error.message)
            if not found:
                raise errors.PermanentError(error.reason, errors.bounded(error.message)) from error
            self._refusals.add(found)
            return
        # At once: until then the worker from before accepts connections as well, with the configuration of before.
        await self._beside.after_reload()
        self._refusals.settle()
        await asyncio.sleep(_PAUSE_S)
        await ending.end(self._layout.haproxy_master, op.ended)

    async def _answering(self, launcher: Launcher) -> tuple[operation.Engine | None, render.Limits, master.Look]:
        """The engine (None where there is none), and what it told of itself; nothing, where it did not in time."""
        deadline = asyncio.get_running_loop().time() + _BACK_MAX_S
        while True:
            engine, limits = await self._engine(launcher)
            if engine is None:
                return None, limits, master.Look()
            try:
                return engine, limits, await master.look(self._layout.haproxy_master)
            except errors.EngineUnavailable:
                if asyncio.get_running_loop().time() > deadline:
                    return engine, limits, master.Look()
                await asyncio.sleep(_STEP_S)

    async def _engine(self, launcher: Launcher) -> tuple[operation.Engine | None, render.Limits]:
        engines = await launcher.call(operation.ListEngines())
        if not isinstance(engines, operation.Engines):
            raise errors.InvariantError("the launcher answered something else than what was asked")
        engine = next((each for each in engines.items if each.engine == ENGINE), None)
        return engine, render.Limits(engines.open_files, self._layout.engine_dir(ENGINE))

    async def _connected(self) -> Launcher:
        async with self._connecting:
            if self._launcher is None or self._launcher.is_closed:
                self._launcher = await Launcher.connect(self._layout.launcher_socket, SERVICE, self._token, self._on_event)
            return self._launcher

    def _on_event(self, event: operation.Event) -> None:
        match event:
            case operation.EngineExited(engine=engine) if engine == ENGINE:
                self._beside.on_change(model.UNIT)
            case operation.EngineReloaded(engine=engine) if engine == ENGINE:
                self._beside.on_reload()
            case _:
                pass
