"""The whole suite on the sandbox's device, for tests and benchmarks: started as `crossns up` does, spoken to through the gateway.

Processes can be killed, frozen and looked at by name; the agents tell how often they changed the kernel.
"""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from grpc import aio

from crossns import errors, names, operation, resource, rpc, settings
from crossns.agent import Agent
from crossns.cli import bundle as cli_bundle
from crossns.cli import client, document, kinds, processes, running
from crossns.launcher import Launcher
from crossns.layout import Layout
from crossns.v1 import config_pb2, status_pb2

# What a loaded machine may take for what usually takes milliseconds.
TIMEOUT_S = 20.0


class Device:
    """`log` has the lines of all processes, as (process, line)."""

    def __init__(self, layout: Layout, channel: aio.Channel) -> None:
        self.layout = layout
        self.log: list[tuple[str, str]] = []
        connection = client.Connection(f"unix:{layout.gateway_socket}", None, TIMEOUT_S)
        self._channel, self._connection = channel, connection

    @property
    def client(self) -> client.Client:
        """The API, with a fresh deadline."""
        return client.Client(self._channel, self._connection)

    async def apply(self, *documents: str, wait: bool = True) -> list[config_pb2.ApplyResponse]:
        """Apply documents of the file format; raises where one is refused. Waits until all are in effect."""
        bundle = [cli_bundle.wrap(each) for text in documents for each in document.parse(text, "test")]
        answers = []
        api = self.client
        async for answer in api.stream(api.config.Apply, iter([config_pb2.ApplyRequest(resources=bundle)])):
            if answer.HasField("error"):
                raise rpc.read(answer.error)
            answers.append(answer)
        if wait:
            await self.wait([config_pb2.WaitTarget(name=each.name, generation=each.generation) for each in answers])
        return answers

    async def delete(self, *resources: str, wait: bool = True, **how: Any) -> None:
        for name in resources:
            await self.client.delete(name, **how)
        if wait:
            await self.wait([config_pb2.WaitTarget(name=name, deleted=True) for name in resources])

    async def wait(self, targets: Sequence[config_pb2.WaitTarget]) -> None:
        """Until all targets are reached; DeadlineExceeded otherwise, with what is missing."""
        missing = {target.name: "not seen" for target in targets}
        api = self.client
        try:
            async for answer in api.stream(api.config.Wait, config_pb2.WaitRequest(targets=targets)):
                if answer.done:
                    missing.pop(answer.name, None)
                else:
                    unmet = [f"{each.type}: {each.reason} {each.message}" for each in answer.conditions]
                    missing[answer.name] = "; ".join(unmet)
        except errors.DeadlineExceeded as error:
            raise errors.DeadlineExceeded("DEADLINE_EXCEEDED", f"not reached: {missing}") from error

    async def clear(self) -> None:
        """Delete every resource but `routeTables/default`, and wait until all are gone."""
        await wait_until(self.serves)
        gone: list[str] = []
        for collection in ("vServices", "neighbors", "rules", "routes", "interfaces", "routeTables"):
            kind = kinds.BY_COLLECTION[collection]
            found = [each.name async for each in self.client.list(kind) if each.name != names.DEFAULT_TABLE]
            await asyncio.gather(*(self._delete_patiently(name) for name in found))
            gone += found
        await self.wait([config_pb2.WaitTarget(name=name, deleted=True) for name in gone])

    async def _delete_patiently(self, name: str) -> None:
        """What refers to it goes first."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                try:
                    await self.client.delete(name, allow_missing=True)
                    return
                except errors.FailedPrecondition:
                    await asyncio.sleep(0.02)

    async def serves(self) -> bool:
        """Whether every service answers, also behind a restart."""
        with contextlib.suppress(errors.TemporaryError):
            for name in (names.DEFAULT_TABLE, "vServices/none"):
                with contextlib.suppress(errors.NotFound):
                    await self.client.get(name)
            return True
        return False

    async def state(self, name: str) -> str:
        return status_pb2.State.Name((await self.client.get(name)).status.state).removeprefix("STATE_")

    async def wait_until_state(self, name: str, state: str) -> resource.Resource:
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                found = await self.client.get(name)
                if status_pb2.State.Name(found.status.state) == f"STATE_{state}" and not found.reconciling:
                    return found
                await asyncio.sleep(0.01)

    def pid(self, process: str) -> int:
        """The process of a service (by its module), an engine (by its program) or an agent (`agent <table>`)."""
        found = self.pids(process)
        if not found:
            raise LookupError(f"no process {process}")
        return found[0]

    def pids(self, process: str) -> list[int]:
        return [each.pid for each in processes.find(self.layout) if each.name == process]

    async def kill(self, process: str, number: int = signal.SIGKILL) -> int:
        """End a process and wait until it is gone; its pid."""
        pid = self.pid(process)
        os.kill(pid, number)
        await wait_until(lambda: not _is_alive(pid))
        return pid

    async def kernel_writes(self, *tables: str) -> dict[str, int]:
        """What launcher and agents have changed in the kernel since each was started."""
        counts = {"launcher": await _counters(Launcher, self.layout.launcher_socket)}
        for table in tables:
            counts[table] = await _counters(Agent, self.layout.agent_socket(table))
        return counts


def doc(name: str, **spec: Any) -> str:
    """One document of the file format, as JSON."""
    return json.dumps({"kind": kinds.of_name(name).name, "name": name, "spec": spec})


async def _counters(kind: type[Launcher] | type[Agent], path: Path) -> int:
    """Asked as nobody's leader: a session of its own name ends no service's."""
    session = await kind.connect(path, "observer", operation.Token(0, 0))
    try:
        counters = await session.call(operation.Statistics())
        assert isinstance(counters, operation.Counters)  # noqa: S101 - Statistics has no other answer
        return counters.writes
    finally:
        await session.close()


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


async def wait_until(is_so: Any, timeout_s: float = TIMEOUT_S) -> None:
    """Until `is_so()` (or what it returns, awaited) is true."""
    async with asyncio.timeout(timeout_s):
        while True:
            answer = is_so()
            if asyncio.iscoroutine(answer):
                answer = await answer
            if answer:
                return
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def started(environ: Mapping[str, str] | None = None) -> AsyncIterator[Device]:
    """The suite, ready; everything of it is gone afterwards, state included."""
    chosen = {**os.environ, **(environ or {})}
    layout = settings.from_environ(chosen).layout
    async with rpc.channel(f"unix:{layout.gateway_socket}") as channel:
        device = Device(layout, channel)
        try:
            async with running.suite_on(chosen, lambda name, line: device.log.append((name, line))) as suite:
                await running.wait_until_ready(suite)
                # Now, not in the first test: the connection, and the agent of `default`, would look like that test's.
                await device.wait_until_state(names.DEFAULT_TABLE, "READY")
                yield device
        finally:
            await running.down(chosen, TIMEOUT_S, purge=True)
