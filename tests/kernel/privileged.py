"""The privileged tree alone, for tests that stand where a service stands: a launcher of one's own, and sessions with it."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from crossns import errors, operation, proc
from crossns.agent import Agent
from crossns.launcher import Launcher
from crossns.layout import Layout
from crossns.testing.device import wait_until

LAYOUT = Layout()
_LAUNCHER = [sys.executable, "-m", "services.nsmanager.launcher"]

S = TypeVar("S", Launcher, Agent)
OnEvent = Callable[[operation.Event], None]


def token(revision: int = 1, cluster: int = 1) -> operation.Token:
    return operation.Token(cluster, revision)


class Tree:
    """A launcher that can be killed and started again."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._sessions: list[Launcher | Agent] = []

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    async def start(self) -> None:
        self._process = await proc.start(_LAUNCHER, output=None)
        await wait_until(self._is_ready)

    async def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the launcher, and only it."""
        if self._process and self._process.returncode is None:
            self._process.send_signal(number)
            await self._process.wait()

    async def launcher(
        self, service: str = "nsmanager", key: operation.Token | None = None, on_event: OnEvent | None = None
    ) -> Launcher:
        return self._kept(await Launcher.connect(LAYOUT.launcher_socket, service, key or token(), on_event))

    async def agent(self, table: str, key: operation.Token | None = None, on_event: OnEvent | None = None) -> Agent:
        return self._kept(await Agent.connect(LAYOUT.agent_socket(table), "nsmanager", key or token(), on_event))

    async def create(self, table: str) -> operation.Namespace:
        made = await (await self.launcher()).call(operation.CreateNamespace(table=table))
        assert isinstance(made, operation.Namespace)
        return made

    async def namespaces(self) -> dict[str, operation.Namespace]:
        """Without `default`."""
        listed = await (await self.launcher()).call(operation.ListNamespaces())
        assert isinstance(listed, operation.Namespaces)
        return {each.table: each for each in listed.items if each.table != "default"}

    async def dump(self, table: str) -> operation.Snapshot:
        seen = await (await self.agent(table)).call(operation.Dump())
        assert isinstance(seen, operation.Snapshot)
        return seen

    async def link(self, table: str, name: str) -> operation.Link | None:
        return next((each for each in (await self.dump(table)).links if each.name == name), None)

    async def down(self) -> proc.Completed:
        return await proc.run([*_LAUNCHER, "--down"])

    async def close(self) -> None:
        for session in self._sessions:
            await session.close()
        await self.end(signal.SIGTERM)
        (await self.down()).check()

    def _kept(self, session: S) -> S:
        self._sessions.append(session)
        return session

    async def _is_ready(self) -> bool:
        with contextlib.suppress(errors.AgentUnavailable):
            await (await Launcher.connect(LAYOUT.launcher_socket, "probe", token())).close()
            return True
        assert self._process
        return self._process.returncode is not None


@pytest.fixture
async def tree() -> AsyncIterator[Tree]:
    running = Tree()
    await running.start()
    yield running
    await running.close()


async def ip(*arguments: str) -> str:
    return (await proc.run(["ip", *arguments])).check().stdout


async def refusal(session: Launcher | Agent, wanted: operation.Request) -> errors.CrossnsError:
    """The error that the operation is answered with."""
    with pytest.raises(errors.CrossnsError) as raised:
        await session.call(wanted)
    return raised.value


def inode(path: Path) -> int:
    return os.stat(path).st_ino
