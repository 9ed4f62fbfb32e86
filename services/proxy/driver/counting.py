"""Asks HAProxy what it has counted, and keeps the totals, which do not begin anew with each reload.

The servicer reads; the device calls `before_reload`, so that what the worker that ends then still counts is not lost; the app
runs `run` beside them. Nothing is stored: totals are as old as this process or HAProxy, whichever is younger. Workers are asked
through the master (management guide, 9.4), those that only finish their connections, too.
"""

import asyncio
import logging
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

from crossns import errors
from crossns.layout import Layout
from services.proxy import plan
from services.proxy.driver import master
from services.proxy.driver.hold import Hold

# How long HAProxy may be silent while somebody waits for an answer: it is when it reloads, or comes back when it was killed.
_PATIENCE_S = 2.0
_STEP_S = 0.02
# How often a worker that ends is looked at: most are done soon, others have connections for hours.
_SOON_S = 0.1
_LATER_S = 1.0
_SOON_LOOKS = 20
# A worker that is not ending after this time will not: its reload failed.
_RELOAD_MAX_S = 30.0
# Rows between which others have a turn; 200 take 2 ms.
_ROWS = 200
# Frontends (1), backends (2) and servers (4).
_KINDS = "7"
# What an answer to `show stat` begins with.
_ANSWERS = ("# pxname,", "No such proxy")
_PROCESS = re.compile(r"^(\d+)\s+(master|worker)\s+\d.*?\s(\d+)d(\d+)h(\d+)m(\d+)s", re.MULTILINE)
_POOL = re.compile(r"^vs\.([a-z0-9-]+)\.po\.", re.MULTILINE)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Processes:
    """The pids of HAProxy's processes; `workers` begins with the current one, which started `age_s` ago."""

    master: int
    workers: tuple[int, ...]
    age_s: float


@dataclass(slots=True)
class _Ending:
    hold: Hold
    since: float
    looks: int = 0


class Counting:
    def __init__(self, layout: Layout) -> None:
        self._master_socket = layout.haproxy_master
        self._worker_socket = layout.engine_dir("haproxy") / "stats.sock"
        # One conversation at a time: what is read later must be taken later.
        self._lock = asyncio.Lock()
        self._master = 0
        self._ledger = plan.Ledger(0.0)
        self._ending: dict[int, _Ending] = {}
        self._some_are_ending = asyncio.Event()

    async def read(self, sections: Sequence[str]) -> plan.Totals:
        """Of these sections of HAProxy's file; EngineUnavailable where HAProxy does not answer."""
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                async with self._lock:
                    return await self._read(sections)
            except errors.EngineUnavailable as error:
                if time.monotonic() > deadline:
                    raise errors.EngineUnavailable(error.reason, error.message, engine="haproxy") from error
            await asyncio.sleep(_STEP_S)

    async def before_reload(self) -> None:
        """The current worker will be kept until it is done and was read. Where it does not answer, nothing is kept."""
        try:
            async with self._lock:
                processes = await self._look()
                pools = await master.ask(self._master_socket, [f"@!{processes.workers[0]} show backend"])
                self._ledger.keep(set(_POOL.findall(pools)), processes.workers[1:])
                await self._hold(processes.workers[0])
        except errors.EngineUnavailable as error:
            log.debug("before a reload: %s", error.message)

    async def _hold(self, current: int) -> None:
        if current not in self._ending:
            hold = await Hold.connect(self._worker_socket)
            self._let_go(hold.pid)
            self._ending[hold.pid] = _Ending(hold, time.monotonic())
        else:
            self._ending[current].since, self._ending[current].looks = time.monotonic(), 0
        self._some_are_ending.set()

    async def run(self) -> None:
        """Read the workers that end, and let them go, until cancelled."""
        try:
            while True:
                await self._some_are_ending.wait()
                for pid, ending in list(self._ending.items()):
                    if await self._is_over(pid, ending):
                        self._let_go(pid)
                if not self._ending:
                    self._some_are_ending.clear()
                elif any(ending.looks < _SOON_LOOKS for ending in self._ending.values()):
                    await asyncio.sleep(_SOON_S)
                else:
                    await asyncio.sleep(_LATER_S)
        finally:
            self._let_go(*self._ending)

    async def _is_over(self, pid: int, ending: _Ending) -> bool:
        """Whether the worker need not be kept any longer."""
        ending.looks += 1
        try:
            state = await ending.hold.look()
        except errors.EngineUnavailable as error:
            log.info("a worker of HAProxy ended before all that it counted was read: %s", error.message)
            return True
        if state.is_done:
            return await self._is_read(pid)
        return not state.is_stopping and time.monotonic() > ending.since + _RELOAD_MAX_S

    async def _is_read(self, worker: int) -> bool:
        """Everything that it counted. Through the master: on its own socket a worker does not tell the servers' addresses."""
        try:
            async with self._lock:
                answer = await master.ask(self._master_socket, [f"@!{worker} show stat -1 {_KINDS} -1"])
                await self._take(worker, answer)
        except errors.EngineUnavailable:
            return False
        return answer.startswith(_ANSWERS)

    def _let_go(self, *pids: int) -> None:
        for pid in pids:
            if ending := self._ending.pop(pid, None):
                ending.hold.close()

    async def _read(self, sections: Sequence[str]) -> plan.Totals:
        processes = await self._look()
        counts: dict[plan.Subject, plan.Counts] = {}
        for worker in processes.workers:
            answer = await master.ask(self._master_socket, [f"@!{worker} show stat {each} {_KINDS} -1" for each in sections])
            if worker == processes.workers[0] and not answer.startswith(_ANSWERS):
                raise errors.EngineUnavailable("ENGINE_UNAVAILABLE", "HAProxy's worker does not tell what it counts")
            for row in await self._take(worker, answer):
                subject, now = plan.subject(row), plan.Counts(row.connections, row.queued)
                counts[subject] = counts.get(subject, plan.Counts()).plus(now)
        for section in sections:
            for subject, total in self._ledger.totals(section).items():
                counts[subject] = counts.get(subject, plan.Counts()).plus(plan.Counts(0, 0, *total))
        return plan.Totals(self._ledger.since, counts)

    async def _take(self, worker: int, answer: str) -> list[plan.Row]:
        """What it counts is added; the rows that belong to what there is now are returned."""
        taken: list[plan.Row] = []
        for number, row in enumerate(plan.rows(answer), start=1):
            if self._ledger.take(worker, row):
                taken.append(row)
            if number % _ROWS == 0:
                await asyncio.sleep(0)
        return taken

    async def _look(self) -> _Processes:
        """Which processes there are now. Another master is another HAProxy, which counts from the start."""
        processes = parse_processes(await master.ask(self._master_socket, ["show proc"]))
        if processes.master != self._master:
            self._let_go(*self._ending)
            self._ledger = plan.Ledger(time.time() - processes.age_s)
            self._master = processes.master
        self._ledger.forget(processes.workers)
        return processes


def parse_processes(text: str) -> _Processes:
    """`show proc`; EngineUnavailable where there is no current worker."""
    current, _, old = text.partition("# old workers")
    found = {kind: (int(pid), [int(each) for each in age]) for pid, kind, *age in reversed(_PROCESS.findall(current))}
    if "worker" not in found or "master" not in found:
        raise errors.EngineUnavailable("ENGINE_UNAVAILABLE", "HAProxy has no worker")
    pid, (days, hours, minutes, seconds) = found["worker"]
    age_s = float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
    others = (int(each[0]) for each in _PROCESS.findall(old) if each[1] == "worker")
    return _Processes(found["master"][0], (pid, *others), age_s)
