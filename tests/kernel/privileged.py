"""The privileged tree alone, for tests that stand where a service stands: a launcher of one's own, and sessions with it."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
import pytest_asyncio

from crossns import errors, netns, operation, proc
from crossns.agent import Agent
from crossns.cli import processes
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

    async def start(self, output: int | None = None) -> None:
        """What it says goes to the file descriptor `output`, or to ours."""
        self._process = await proc.start(_LAUNCHER, output=output)
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

    async def agent(
        self, table: str, key: operation.Token | None = None, on_event: OnEvent | None = None, service: str = "nsmanager"
    ) -> Agent:
        return self._kept(await Agent.connect(LAYOUT.agent_socket(table), service, key or token(), on_event))

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

    async def clear(self) -> None:
        """Take away what a test has made, also where it left the launcher dead."""
        if self._process is None or self._process.returncode is not None:
            await self.start()
        await (await self.launcher("proxy")).call(operation.StopEngine(engine="haproxy"))
        left = await self.namespaces()
        launcher = await self.launcher()
        for table in left:
            await launcher.call(operation.DestroyNamespace(table=table))
        await self._leave()

    async def _leave(self) -> None:
        for session in self._sessions:
            await session.close()
        self._sessions.clear()

    async def close(self) -> None:
        await self._leave()
        await self.end(signal.SIGTERM)
        (await self.down()).check()

    def _kept(self, session: S) -> S:
        self._sessions.append(session)
        return session

    async def _is_ready(self) -> bool:
        with contextlib.suppress(errors.AgentUnavailable):
            await (await Launcher.connect(LAYOUT.launcher_socket, "probe", token())).close()
            return LAYOUT.agent_socket("default").exists()
        assert self._process
        return self._process.returncode is not None


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[Tree]:
    """A launcher that has nothing but `default`; nothing is left behind."""
    tree = Tree()
    await tree.start()
    try:
        yield tree
    finally:
        await tree.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="shared_tree")
async def running_for_a_module() -> AsyncIterator[Tree]:
    async with running() as tree:
        yield tree


@pytest_asyncio.fixture(loop_scope="module")
async def tree(shared_tree: Tree) -> AsyncIterator[Tree]:
    """The module's launcher; every test begins with nothing but `default`."""
    yield shared_tree
    await shared_tree.clear()


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def own_loop() -> None:
    """The tests' own loop is there before the first of them counts what it leaves."""


@pytest_asyncio.fixture(loop_scope="module", name="tree")
async def own_tree() -> AsyncIterator[Tree]:
    """Not shared: for tests that end it, or what belongs to it, or fence themselves off."""
    async with running() as tree:
        yield tree


async def ip(*arguments: str) -> str:
    return (await proc.run(["ip", *arguments])).check().stdout


async def refusal(session: Launcher | Agent, wanted: operation.Request) -> errors.CrossnsError:
    """The error that the operation is answered with."""
    with pytest.raises(errors.CrossnsError) as raised:
        await session.call(wanted)
    return raised.value


def process_status(pid: int) -> dict[str, str]:
    """The first value of each line of /proc/<pid>/status."""
    lines = (line.partition(":") for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines())
    return {name: value.split()[0] if value.split() else "" for name, _, value in lines}


def spares() -> set[int]:
    """Pids of the agents that wait for a table."""
    return {each.pid for each in processes.find(LAYOUT) if each.name == "spare"}


def inode(path: Path) -> int:
    return os.stat(path).st_ino


@pytest_asyncio.fixture(loop_scope="module")
async def agent(tree: Tree) -> Agent:
    """In a fresh namespace of the table `a`."""
    await tree.create("a")
    return await tree.agent("a")


async def dump(agent: Agent) -> operation.Snapshot:
    seen = await agent.call(operation.Dump())
    assert isinstance(seen, operation.Snapshot)
    return seen


async def link(agent: Agent, name: str) -> operation.Link:
    return next(each for each in (await dump(agent)).links if each.name == name)


async def writes(agent: Agent) -> int:
    counted = await agent.call(operation.Statistics())
    assert isinstance(counted, operation.Counters)
    return counted.writes


async def bridge(agent: Agent, name: str = "br0") -> None:
    """A bridge of ours that is up."""
    await agent.call(operation.CreateLink(name=name, mark=f"interfaces.{name}", kind="bridge"))
    await agent.call(operation.SetLink(name=name, up=True))


async def address(agent: Agent, prefix: str, name: str = "br0", protocol: int = operation.ADDRESS_PROTOCOL) -> None:
    await agent.call(operation.AddAddress(link=name, prefix=prefix, protocol=protocol))


async def card(tree: Tree, table: str, name: str = "card0") -> Agent:
    """Take a card of `default` into the table as `lan` and up; the table's agent."""
    move = operation.MoveLink(name=name, table=table, new_name="lan", mark=f"interfaces.{name}")
    await (await tree.agent("default")).call(move)
    agent = await tree.agent(table)
    await agent.call(operation.SetLink(name="lan", up=True))
    await wait_until(lambda: _has_carrier(agent))
    return agent


async def _has_carrier(agent: Agent) -> bool:
    return (await link(agent, "lan")).carrier


@contextlib.contextmanager
def socket_in(namespace: Path, family: int, kind: int, protocol: int = 0) -> Iterator[socket.socket]:
    """A socket in the namespace mounted there."""
    fd = os.open(namespace, os.O_RDONLY)
    made = netns.inside(fd, lambda: socket.socket(family, kind, protocol))
    os.close(fd)
    with made:
        yield made
