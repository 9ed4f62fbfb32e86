"""Client of one table's agent: looks at the namespace, changes it, has sockets made in it.

Called by drivers. A session lives as long as that agent: whoever calls connects anew behind AgentUnavailable.
"""

import socket

from crossns import operation, session
from crossns.listener import OpenListener


class Agent(session.Session):
    """`await Agent.connect(layout.agent_socket(table), service, token, on_event)`, then `await agent.call(operation)`."""

    reason = "AGENT_UNAVAILABLE"
    peer_name = "the agent"

    async def open_socket(self, wanted: operation.OpenSocket | OpenListener) -> socket.socket:
        """A new socket in the agent's namespace, non-blocking, the caller's to close. AgentUnavailable also where this process
        has no place for it."""
        _, fd = await self._answer(wanted)
        if fd < 0:
            raise self._unavailable("its socket did not come: this process may have no more open files")
        made = socket.socket(fileno=fd)
        made.settimeout(0)
        return made
