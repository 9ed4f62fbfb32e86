"""The client's end of a session, against a peer of the tests' own: in which order answers and events are heard."""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from crossns import operation, wire
from crossns.agent import Agent

CHANGED = operation.Changed(kinds=("address",))


class Peer:
    """An agent that answers as it is told."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._listener.settimeout(0)
        self._decoder: wire.Decoder[operation.Call] = wire.Decoder(operation.Call)
        self.heard: list[str] = []

    async def connect(self, path: Path) -> Agent:
        connecting = asyncio.create_task(Agent.connect(path, "test", operation.Token(1, 1), lambda _: self.heard.append("event")))
        self._peer, _ = await asyncio.get_running_loop().sock_accept(self._listener)
        hello = await self._call()
        await self._say(operation.Reply(hello.id, result=operation.Welcome(boot_id="", pid=1)))
        return await connecting

    async def answer(self, *, before: bool) -> None:
        """The call that comes, with an event before its answer or behind it, all in one piece."""
        call = await self._call()
        reply, notice = operation.Reply(call.id), operation.Notice(CHANGED)
        await self._say(*((notice, reply) if before else (reply, notice)))

    async def _call(self) -> operation.Call:
        while True:
            received = await asyncio.get_running_loop().sock_recv(self._peer, 65536)
            for call in self._decoder.feed(received):
                return call

    async def _say(self, *messages: operation.Reply | operation.Notice) -> None:
        await asyncio.get_running_loop().sock_sendall(self._peer, b"".join(wire.encode(each) for each in messages))

    def close(self) -> None:
        self._peer.close()
        self._listener.close()


@pytest.fixture
async def peer(tmp_path: Path) -> AsyncIterator[Peer]:
    made = Peer(tmp_path / "s")
    yield made
    made.close()


@pytest.mark.parametrize(("before", "heard"), [(True, ["event", "answer"]), (False, ["answer", "event"])])
async def test_events_and_answers_are_heard_in_the_order_in_which_they_came(
    peer: Peer, tmp_path: Path, heard: list[str], *, before: bool
) -> None:
    agent = await peer.connect(tmp_path / "s")

    async def ask() -> None:
        await agent.call(operation.Dump())
        peer.heard.append("answer")

    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(ask())
        tasks.create_task(peer.answer(before=before))
    # An event behind the answer has its turn now.
    await asyncio.sleep(0)
    assert peer.heard == heard
    await agent.close()
