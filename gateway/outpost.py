"""Listening in a route table, so that management traffic can be confined to it: its agent makes the sockets, the relay takes
clients on them.

Called by `listener`. Tables and agents come and go: what is missing is asked for until it is there, and said once. A socket keeps
its namespace alive and answers from it, so one whose table was made anew, or is gone, is closed with all that came by it. Nobody
ever listens in another table instead.
"""

import asyncio
import logging
import random
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from crossns import errors, netns, operation
from crossns.agent import Agent
from crossns.layout import Layout
from crossns.listener import OpenListener
from crossns.retry import Backoff
from gateway.relay import Guide, Relay
from gateway.settings import Address

SERVICE = "gateway"
# A gateway leads nothing that it had to be fenced off from: it may only listen, and of two the second finds the address taken.
_TOKEN = operation.Token(0, 0)
_BACKOFF = Backoff(0.05, 2.0, 1.0)
# Whatever is in the way may end without anybody telling.
_AGAIN_S = 5.0
# Of many changes of addresses the last one counts.
_PAUSE_S = 0.05

_log = logging.getLogger(__name__)


class Outpost:
    """The listeners in the table that all of `addresses` name. `guide(address, net)` says where clients of an address belong;
    `net()` is /proc/net as the table's agent sees it."""

    def __init__(
        self, layout: Layout, addresses: Sequence[Address], relay: Relay, guide: Callable[[Address, Callable[[], Path]], Guide]
    ) -> None:
        self._table = addresses[0].table
        self._path = layout.agent_socket(self._table)
        self._uid = layout.uid(SERVICE)
        self._relay = relay
        self._guides = {address: guide(address, lambda: self._net) for address in addresses}
        self._open: dict[Address, tuple[socket.socket, asyncio.Task[None]]] = {}
        self._said: dict[Address, str] = {}
        self._moved = asyncio.Event()
        self._net = Path()

    async def run(self) -> None:
        """Until cancelled: then nobody listens, and those who are connected are the relay's to end."""
        attempt = 0
        async with asyncio.TaskGroup() as tasks:
            while True:
                try:
                    agent = await Agent.connect(self._path, SERVICE, _TOKEN, self._on_event)
                except errors.CrossnsError as error:
                    self._miss(error)
                    await asyncio.sleep(_BACKOFF.delay(attempt, random.random()))
                    attempt += 1
                    continue
                attempt = 0
                try:
                    await self._attend(agent, tasks)
                finally:
                    await agent.close()

    def _miss(self, error: errors.CrossnsError) -> None:
        """While an agent is only being started again, its table's sockets serve on."""
        if self._path.exists():
            why = error.message
        else:
            why = f"routeTables/{self._table} has no namespace"
            self._leave()
        for address in self._missing():
            self._say(address, why)

    async def _attend(self, agent: Agent, tasks: asyncio.TaskGroup) -> None:
        """Until the session ends."""
        if any(netns.cookie_of(made) != agent.welcome.cookie for made, _ in self._open.values()):
            self._leave()
        self._net = Path(f"/proc/{agent.peer_pid}/net")
        while not agent.is_closed:
            self._moved.clear()
            for address in self._missing():
                await self._listen(address, agent, tasks)
            if self._missing():
                await self._something(agent)
            else:
                await agent.wait_until_closed()

    async def _listen(self, address: Address, agent: Agent, tasks: asyncio.TaskGroup) -> None:
        wanted = OpenListener(address=str(address.host), port=address.port, owner_uid=self._uid)
        try:
            made = await agent.open_socket(wanted)
        except errors.CrossnsError as error:
            self._say(address, error.message)
            return
        self._open[address] = made, tasks.create_task(self._relay.serve(made, self._guides[address]))
        self._said.pop(address, None)
        where = {"route_table": self._table, "port": made.getsockname()[1]}
        _log.info("listening on %s", address, extra=where)

    async def _something(self, agent: Agent) -> None:
        """Until there is reason to try again."""
        signs = [asyncio.ensure_future(agent.wait_until_closed()), asyncio.ensure_future(self._moved.wait())]
        try:
            await asyncio.wait(signs, timeout=_AGAIN_S, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(_PAUSE_S)
        finally:
            for sign in signs:
                sign.cancel()

    def _on_event(self, event: operation.Event) -> None:
        if isinstance(event, operation.Changed) and {"address", "overrun"}.intersection(event.kinds):
            self._moved.set()

    def _missing(self) -> list[Address]:
        return [address for address in self._guides if address not in self._open]

    def _leave(self) -> None:
        for made, serving in self._open.values():
            serving.cancel()
            self._relay.end(made)
        self._open.clear()

    def _say(self, address: Address, why: str) -> None:
        if self._said.get(address) != why:
            self._said[address] = why
            _log.warning("not listening on %s, trying again: %s", address, why, extra={"route_table": self._table})
