"""Asks HAProxy what it has counted, and keeps the totals, which do not begin anew with each reload.

The servicer reads. `retirement` looks behind each reload, and has a worker that it ends read a last time, so that nothing that a
worker counted is lost. Nothing is stored: totals are as old as this process or HAProxy, whichever is younger. Workers are asked
through the master (management guide, 9.4), those that only finish their connections, too.
"""

import asyncio
import time
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from crossns import errors
from crossns.layout import Layout
from services.proxy import plan
from services.proxy.driver import master, worker

# How long HAProxy may be silent while somebody waits for an answer: it is when it reloads, or comes back when it was killed.
_PATIENCE_S = 2.0
_STEP_S = 0.02
# Rows between which others have a turn; 200 take 2 ms.
_ROWS = 200
# HAProxy takes so much at once (tune.bufsize), and a command for each section of one vService fits; of more, all are asked for.
_SECTIONS_MAX = 128
_EVERYTHING = ("-1",)
# Frontends (1), backends (2) and servers (4).
_KINDS = "7"
# What an answer to `show stat` begins with.
_ANSWERS = ("# pxname,", "No such proxy")
# What tells pools, frontends and servers, for a tenth of what their counters would cost; and what each answer begins with.
_LISTS = {"show backend": "# name\n", "show stat -1 1 -1": "# pxname,", "show servers conn": "# bkname/"}


class Counting:
    def __init__(self, layout: Layout) -> None:
        self._path = layout.haproxy_master
        # One conversation at a time: what is read later must be taken later.
        self._lock = asyncio.Lock()
        # Of the last look; 0 before there was one.
        self._master = self._current = 0
        self._ledger = plan.Ledger(0.0)

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

    async def look(self) -> worker.Processes:
        """The processes that there are now; whoever looks behind each reload sees no vService inherit from its namesake."""
        async with self._lock:
            return await self._look()

    async def read_last(self, pid: int) -> None:
        """All that the worker has counted, before it ends; EngineUnavailable where it does not tell."""
        async with self._lock:
            await self._take(pid, await self._told(pid, _EVERYTHING))

    async def _read(self, sections: Sequence[str]) -> plan.Totals:
        processes = await self._look()
        counts: dict[plan.Subject, plan.Counts] = {}
        asked = sections if len(sections) <= _SECTIONS_MAX else _EVERYTHING
        rows = await self._take(processes.current, await self._told(processes.current, asked))
        for pid in processes.old:
            rows += await self._take(pid, await self._ask(pid, asked))
        for row in rows:
            subject, now = plan.subject(row), plan.Counts(row.connections, row.queued)
            counts[subject] = counts.get(subject, plan.Counts()).plus(now)
        for section in sections:
            for subject, total in self._ledger.totals(section).items():
                counts[subject] = counts.get(subject, plan.Counts()).plus(plan.Counts(0, 0, *total))
        return plan.Totals(self._ledger.since, counts)

    async def _told(self, pid: int, sections: Sequence[str]) -> str:
        answer = await self._ask(pid, sections)
        if not answer.startswith(_ANSWERS):
            raise errors.EngineUnavailable("ENGINE_UNAVAILABLE", "HAProxy's worker does not tell what it counts")
        return answer

    async def _ask(self, pid: int, sections: Sequence[str]) -> str:
        return await master.ask(self._path, [f"@!{pid} show stat {section} {_KINDS} -1" for section in sections])

    async def _take(self, pid: int, answer: str) -> list[plan.Row]:
        """What the worker counts is added; the rows that belong to what there is now are returned."""
        taken: list[plan.Row] = []
        for number, row in enumerate(plan.rows(answer), start=1):
            if self._ledger.take(pid, row):
                taken.append(row)
            if number % _ROWS == 0:
                await asyncio.sleep(0)
        return taken

    async def _look(self) -> worker.Processes:
        """Another master is another HAProxy, which counts from the start; another worker may have other vServices."""
        processes = await worker.look(self._path)
        if processes.master != self._master:
            self._ledger = plan.Ledger(time.time() - processes.age_s)
            self._master, self._current = processes.master, 0
        if processes.current != self._current:
            self._ledger.keep(await self._listed(processes.current), processes.old)
            self._current = processes.current
        self._ledger.forget((processes.current, *processes.old))
        return processes

    async def _listed(self, pid: int) -> AbstractSet[plan.Subject]:
        text = await master.ask(self._path, [f"@!{pid} {command}" for command in _LISTS])
        # A blank line ends each.
        if not (text.endswith("\n\n") and all(head in text for head in _LISTS.values())):
            raise errors.EngineUnavailable("ENGINE_UNAVAILABLE", "HAProxy's worker does not tell what it has")
        return plan.listed(text)
