"""Observes and changes HAProxy: through the launcher, which keeps it running, and through its own master socket.

The loop drives it, one round at a time. The session with the launcher carries the fencing token, so a process that no longer
leads changes nothing. What HAProxy did not start with lately is remembered here, and tried again after a while.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from crossns import errors, operation
from crossns.launcher import Launcher
from crossns.layout import Layout
from services.proxy import model, plan, render
from services.proxy.driver.master import Master, Processes
from services.proxy.settings import Settings

SERVICE = "proxy"
ENGINE: Final = "haproxy"
# What HAProxy may take to come up or to reload: with 5,000 vServices half a second on two cores.
_SETTLE_MAX_S = 10.0
_STEP_S = 0.01
# What was refused for a reason outside, such as a port that another process holds, is tried again after this time.
_REFUSED_S = 300.0


@dataclass(frozen=True, slots=True)
class _Worker:
    """A worker's parts do not change as long as it lives."""

    pid: int
    parts: frozenset[render.Part]


class Device:
    """`on_change` is called with the unit when HAProxy ended without having been asked to."""

    def __init__(self, layout: Layout, token: operation.Token, settings: Settings, on_change: Callable[[str], None]) -> None:
        self._layout = layout
        self._token = token
        self._interval_s = settings.reload_interval_s
        self._limits = render.Limits(settings.open_files, layout.engine_dir(ENGINE) / "stats.sock")
        self._on_change = on_change
        self._master = Master(layout.haproxy_master)
        self._launcher: Launcher | None = None
        self._worker = _Worker(0, frozenset())
        self._trial = plan.Trial()
        # Times of the event loop: before these no reload, and no second try of what was refused.
        self._reload_at = self._retry_at = 0.0

    async def close(self) -> None:
        if self._launcher is not None:
            await self._launcher.close()

    async def units(self) -> Iterable[str]:
        return (model.UNIT,)

    async def observe(self, _unit: str) -> plan.Observed:
        launcher = await self._connected()
        namespaces = await launcher.call(operation.ListNamespaces())
        engines = await launcher.call(operation.ListEngines())
        if not isinstance(namespaces, operation.Namespaces) or not isinstance(engines, operation.Engines):
            raise errors.InvariantError("the launcher answered something else than what was asked")
        engine = next((each for each in engines.items if each.engine == ENGINE), None)
        processes = await self._settled() if engine is not None else None
        return plan.Observed(
            limits=self._limits,
            running=engine is not None,
            digest=engine.config_digest if engine is not None and processes is not None and not processes.failed else "",
            serving=await self._parts(processes),
            namespaces=frozenset(f"{each.table}.{each.cookie}" for each in namespaces.items if each.cookie),
            trial=self._remembered(),
        )

    async def apply(self, op: plan.Operation) -> None:
        if isinstance(op, plan.StopEngine):
            await (await self._connected()).call(operation.StopEngine(engine=ENGINE))
        else:
            await self._start(op)

    async def _start(self, op: plan.StartEngine) -> None:
        """Raises EngineUnavailable where the next try goes without what HAProxy does not start with, else PermanentError."""
        await self._rest()
        launcher = await self._connected()
        before = await self._processes()
        try:
            await launcher.call(operation.StartEngine(engine=ENGINE, config=op.config))
            await self._wait_until_taken(before)
        except errors.PermanentError as error:
            self._learn(op, error)
            raise
        self._trial = plan.succeeded(self._trial)

    def _learn(self, op: plan.StartEngine, error: errors.PermanentError) -> None:
        trial = plan.failed(self._trial, op.config, op.new, error.message)
        if trial == self._trial:
            return
        if trial.refused != self._trial.refused:
            self._retry_at = asyncio.get_running_loop().time() + _REFUSED_S
        self._trial = trial
        raise errors.EngineUnavailable(error.reason, f"trying without some of what is new: {error.message}") from error

    def _remembered(self) -> plan.Trial:
        if self._trial.refused and asyncio.get_running_loop().time() > self._retry_at:
            self._trial = plan.Trial()
        return self._trial

    # --- HAProxy itself ---

    async def _processes(self) -> Processes | None:
        try:
            return await self._master.processes()
        except errors.EngineUnavailable:
            return None

    async def _settled(self) -> Processes | None:
        """HAProxy with a worker; None where it has none in time."""
        return await self._wait_until(lambda now: now is not None and now.worker != 0)

    async def _wait_until_taken(self, before: Processes | None) -> None:
        """Until HAProxy is done with a reload or start. A reload has no answer of its own: the master counts it."""

        def is_done(now: Processes | None) -> bool:
            another = before is None or now is None or (now.master, now.reloads) != (before.master, before.reloads)
            return now is not None and another and (now.failed > 0 or now.worker != 0)

        after = await self._wait_until(is_done)
        if after is None:
            raise errors.EngineUnavailable("ENGINE_UNAVAILABLE", f"HAProxy is not done with a reload after {_SETTLE_MAX_S:g} s")
        if after.failed:
            raise errors.PermanentError(
                "ENGINE_REFUSED", "HAProxy could not open a listener, or not start, and goes on as before"
            )

    async def _wait_until(self, is_done: Callable[[Processes | None], bool]) -> Processes | None:
        deadline = asyncio.get_running_loop().time() + _SETTLE_MAX_S
        while not is_done(now := await self._processes()):
            if asyncio.get_running_loop().time() > deadline:
                return None
            await asyncio.sleep(_STEP_S)
        return now

    async def _parts(self, processes: Processes | None) -> frozenset[render.Part]:
        if processes is None:
            return frozenset()
        if self._worker.pid != processes.worker:
            self._worker = _Worker(processes.worker, await self._master.parts())
        return self._worker.parts

    async def _rest(self) -> None:
        """Changes that come close together share a reload: the first is at once, the next only after the interval."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._reload_at - loop.time()))
        self._reload_at = loop.time() + self._interval_s

    # --- the launcher ---

    async def _connected(self) -> Launcher:
        if self._launcher is None or self._launcher.is_closed:
            self._launcher = await Launcher.connect(self._layout.launcher_socket, SERVICE, self._token, self._on_event)
        return self._launcher

    def _on_event(self, event: operation.Event) -> None:
        if isinstance(event, operation.EngineExited) and event.engine == ENGINE:
            self._on_change(model.UNIT)
