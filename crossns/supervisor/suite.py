"""Keeps the processes of a stack running: in order, under their uids, again when they die, their output line by line.

`running` is the only way in. It stops the services in reverse order when it is left; engines, agents and everything in the
kernel stay, because the launcher leaves them. A process that dies is started again at once, one that keeps dying ever later,
one that says that its settings are wrong never: `refused` tells who.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from crossns import proc
from crossns.layout import Layout
from crossns.retry import Backoff
from crossns.supervisor import jail, stack

RESTART = Backoff(first_s=0.1, factor=2, max_s=5)
# How a process of ours says that its settings are wrong.
EXIT_SETTINGS = 2
# Who has run this long did not die of what it died of before.
_SETTLED_S = 10
# A service ends its calls in well under a second; what is left then hangs.
_STOP_S = 8
# What was written last is on its way still when a process has ended.
_LAST_WORDS_S = 0.2
_CHUNK_BYTES = 65536

# Called with the process's name and one line of its output.
Show = Callable[[str, str], None]


@dataclass(slots=True)
class _Kept:
    """One process of the stack, over all its incarnations. `output` is the end of the pipe that it writes to; `proven` that it
    has been ready before."""

    process: stack.Process
    output: int
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    proven: bool = False
    running: proc.Process | None = None


class Suite:
    """The running processes; made by `running`."""

    def __init__(self, wanted: stack.Stack, layout: Layout, environ: Mapping[str, str], show: Show) -> None:
        self._stack, self._layout, self._environ, self._show = wanted, layout, environ, show
        self._kept: dict[str, _Kept] = {}
        # The name of the first process whose settings are wrong.
        self.refused: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._stopping = False

    async def wait_until_ready(self) -> None:
        for kept in self._kept.values():
            await kept.ready.wait()

    @property
    def missing(self) -> list[str]:
        """Names of the processes that are not ready."""
        return [name for name, kept in self._kept.items() if not kept.ready.is_set()]

    def kill(self) -> None:
        """End everything without waiting for anything."""
        self._stopping = True
        for kept in self._kept.values():
            _signal(kept.running, "kill")

    async def keep_all(self, group: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        tasks = []
        for process in self._stack.processes:
            reader, writer = os.pipe()
            kept = self._kept[process.name] = _Kept(process, writer)
            tasks += [group.create_task(self._relay(process.name, reader)), group.create_task(self._keep(kept))]
        return tasks

    async def stop(self) -> None:
        """End the processes in reverse order, each before the one that it needs."""
        self._stopping = True
        for kept in reversed(self._kept.values()):
            _signal(kept.running, "terminate")
            if kept.running is not None:
                try:
                    await asyncio.wait_for(kept.running.wait(), _STOP_S)
                except TimeoutError:
                    self._show(kept.process.name, f"does not end within {_STOP_S} s: killed")
                    _signal(kept.running, "kill")
            os.close(kept.output)

    async def _keep(self, kept: _Kept) -> None:
        for name in kept.process.after:
            await self._kept[name].ready.wait()
        loop, failures = asyncio.get_running_loop(), 0
        while not self._stopping:
            began = loop.time()
            kept.running = await self._start(kept)
            if self._stopping:
                _signal(kept.running, "kill")
            probe = asyncio.create_task(self._probe(kept))
            try:
                status = await kept.running.wait()
            finally:
                probe.cancel()
                await asyncio.wait((probe,))
            if self._stopping:
                return
            kept.ready.clear()
            if _is_refusal(kept, status):
                if not self.refused.done():
                    self.refused.set_result(kept.process.name)
                return
            failures = 1 if loop.time() - began > _SETTLED_S else failures + 1
            delay_s = RESTART.delay(failures - 1)
            self._show(kept.process.name, f"ended ({_ending(status)}): starts again in {delay_s:g} s")
            await asyncio.sleep(delay_s)

    async def _start(self, kept: _Kept) -> proc.Process:
        process = kept.process
        return await proc.start(
            jail.argv(process, self._layout),
            environ=jail.environ(process, self._layout, self._environ),
            # Sockets are for their directory's group.
            umask=0o007 if process.user else 0o022,
            output=kept.output,
        )

    async def _probe(self, kept: _Kept) -> None:
        """Until it is ready; the program that looks ends with us."""
        looking = [sys.executable, "-P", "-m", "crossns.supervisor.ready", *kept.process.ready]
        probe = await proc.start(looking, environ={**self._environ, "PYTHONPATH": str(jail.CODE)}, output=kept.output)
        try:
            if await probe.wait() == 0:
                kept.proven = True
                kept.ready.set()
        finally:
            proc.kill(probe)
            await probe.wait()

    async def _relay(self, name: str, output: int) -> None:
        loop, reader = asyncio.get_running_loop(), asyncio.StreamReader()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(output, "rb"))
        pending = b""
        try:
            while chunk := await reader.read(_CHUNK_BYTES):
                *lines, pending = (pending + chunk).split(b"\n")
                for line in lines:
                    self._show(name, line.decode(errors="replace"))
        finally:
            if pending:
                self._show(name, pending.decode(errors="replace"))
            transport.close()


@asynccontextmanager
async def running(wanted: stack.Stack, layout: Layout, environ: Mapping[str, str], show: Show) -> AsyncIterator[Suite]:
    """Start the stack, whose directories are prepared, and stop it on leaving. It may not be ready yet when this is entered."""
    failure: Exception | None = None
    async with asyncio.TaskGroup() as group:
        suite = Suite(wanted, layout, environ, show)
        tasks = await suite.keep_all(group)
        try:
            yield suite
        except Exception as error:  # noqa: BLE001 - raised again below, by itself and not in a group
            failure = error
        finally:
            await suite.stop()
            await asyncio.wait(tasks, timeout=_LAST_WORDS_S)
            for task in tasks:
                task.cancel()
    if failure is not None:
        raise failure


def _signal(process: proc.Process | None, how: str) -> None:
    if process is not None and process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            getattr(process, how)()


def _is_refusal(kept: _Kept, status: int) -> bool:
    """Settings stay as they are: those of who has been ready once are right. etcd ends so when it panics, too."""
    return status == EXIT_SETTINGS and not kept.proven and not kept.process.embedded


def _ending(status: int) -> str:
    return f"killed by signal {-status}" if status < 0 else f"exit status {status}"
