"""One attempt to connect to a member, as HAProxy would make it: from the member's own table, by a socket under HAProxy's uid.

Called by `check`. The sockets come from the tables' agents, by one session for each table. An attempt says either that the
member accepts, or why it does not, or nothing: what goes wrong on the device's own side is no failing of a member.
"""

import asyncio
import contextlib
import errno
import logging
import random
import socket
import struct
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from crossns import errors, examination, netns, operation
from crossns.agent import Agent
from crossns.layout import Layout
from crossns.retry import Backoff
from services.proxy import model

SERVICE = "proxy"
ENGINE = "haproxy"
# For the member to answer. Shorter than the first retransmission of a SYN (RFC 6298, 2.1): a second attempt has its own.
TIMEOUT_S = 1.0
# In one call, so that an agent is free again within some milliseconds.
LOOK_UPS = 200
# How long an agent that did not answer is left alone.
_REST = Backoff(0.25, 2.0, 4.0)
# net/tcp_states.h
_SYN_SENT = 2
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
# What the network or the member says. All else (no files, memory or ports left) is about this device.
_WORDS = {
    errno.ETIMEDOUT: f"does not answer within {TIMEOUT_S:g} s",
    errno.ECONNREFUSED: "refuses connections",
    errno.ECONNRESET: "resets connections",
    errno.ENETUNREACH: "cannot be reached: no route leads to it",
    errno.EHOSTUNREACH: "cannot be reached: no host answers there, or a route or router says so",
    errno.EHOSTDOWN: "cannot be reached: its host is down",
    errno.ENETDOWN: "cannot be reached: the link to it is down",
    errno.EINVAL: "cannot be reached: a blackhole route leads to it",
    errno.EACCES: "cannot be reached: a route or rule prohibits it",
    errno.EPERM: "cannot be reached: a rule prohibits it",
}

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Door:
    """The way to one table's agent. Before `rest_until` (time of the event loop) it is not tried again."""

    agent: Agent | None = None
    failures: int = 0
    rest_until: float = 0.0
    # A newer session of a service ends its older one: of two that connect at once, one must wait.
    connecting: asyncio.Lock = field(default_factory=asyncio.Lock)


class Dialler:
    def __init__(self, layout: Layout, token: operation.Token) -> None:
        self._layout = layout
        self._token = token
        self._doors: defaultdict[str, _Door] = defaultdict(_Door)

    async def attempt(self, target: model.Target) -> str | None:
        """Why the target does not accept a connection, in words; "" says that it does, None that nothing can be said. Cancelled,
        it leaves no socket. Raises FailedPrecondition FENCED where a newer process acts for this service. An agent that hangs
        is waited for as long as a session does."""
        made = await self._socket(target)
        if made is None:
            return None
        with made:
            return await _connect(made, target)

    async def ways(self, table: str, addresses: Sequence[str]) -> Mapping[str, str]:
        """By which link of the table each address is reached now. AgentUnavailable where its agent does not answer."""
        agent = await self._connected(table, self._doors[table])
        found: dict[str, str] = {}
        for at in range(0, len(addresses), LOOK_UPS):
            answer = await agent.call(examination.LookUp(destinations=tuple(addresses[at : at + LOOK_UPS])))
            found |= answer.links if isinstance(answer, examination.Ways) else {}
        return found

    async def keep(self, tables: Collection[str]) -> None:
        """Close the sessions with all other tables' agents."""
        for table in self._doors.keys() - set(tables):
            door = self._doors.pop(table)
            if door.agent is not None:
                await door.agent.close()

    async def _socket(self, target: model.Target) -> socket.socket | None:
        """A new one in the target's namespace; None where that is not to be had now."""
        door = self._doors[target.table]
        wanted = operation.OpenSocket(
            family="inet6" if target.address.version == 6 else "inet", kind="stream", owner_uid=self._layout.uid(ENGINE)
        )
        try:
            agent = await self._connected(target.table, door)
            made = await agent.open_socket(wanted)
        except errors.CrossnsError as error:
            if error.reason == "FENCED":
                raise
            await self._leave_alone(target.table, door, str(error))
            return None
        door.failures = 0
        if netns.cookie_of(made) == target.cookie:
            return made
        # The table was made anew, and its agent, or who wants the target, has not heard of it.
        made.close()
        return None

    async def _connected(self, table: str, door: _Door) -> Agent:
        async with door.connecting:
            if door.agent is None or door.agent.is_closed:
                if asyncio.get_running_loop().time() < door.rest_until:
                    raise errors.AgentUnavailable(Agent.reason, f"the agent of {table} did not answer a moment ago")
                door.agent = await Agent.connect(self._layout.agent_socket(table), SERVICE, self._token)
            return door.agent

    async def _leave_alone(self, table: str, door: _Door, reason: str) -> None:
        if door.agent is not None:
            # What it has not answered it need not answer any more.
            await door.agent.close()
        if not door.failures:
            log.info("members in %s are not checked: %s", table, reason, extra={"route_table": table})
        now = asyncio.get_running_loop().time()
        if now >= door.rest_until:
            door.rest_until = now + _REST.delay(door.failures, random.random())
            door.failures += 1


async def _connect(made: socket.socket, target: model.Target) -> str | None:
    """The member's host must answer; its program shall not be troubled. The kernel keeps the last packet of the handshake back
    for data that could go with it, and closing sends a reset in its place: nothing reaches the listener, and neither side is
    left with a connection in TIME_WAIT, of which the table would collect 30 for each member. (So do HAProxy's own checks.)"""
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    code = await _outcome(made, (str(target.address), target.port))
    if code == 0:
        return ""
    words = _WORDS.get(code)
    return f"{target} {words}" if words is not None else None


async def _outcome(made: socket.socket, address: tuple[str, int]) -> int:
    """0 or the errno of a connect. (uvloop's sock_connect takes three times the processor time.)"""
    code = made.connect_ex(address)
    if code != errno.EINPROGRESS:
        return code
    loop = asyncio.get_running_loop()
    settled = loop.create_future()
    loop.add_writer(made.fileno(), _settle, settled)
    try:
        # The time may be up because this process was busy: whether there was an answer the kernel knows.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TIMEOUT_S):
                await settled
    finally:
        loop.remove_writer(made.fileno())
    is_waiting = made.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _SYN_SENT
    # Where it waits still, a router may have told why.
    return made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or (errno.ETIMEDOUT if is_waiting else 0)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
