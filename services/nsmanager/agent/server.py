"""The agent's process from its first moment in the namespace on: one asyncio loop with sessions and events.

Called by the zygote in each child. It ends on SIGTERM, which only the launcher sends.
"""

import asyncio
import signal
import socket

from crossns.layout import Layout
from services.nsmanager.agent import links, operations
from services.nsmanager.agent.events import Events
from services.nsmanager.agent.journal import Journal
from services.nsmanager.agent.rtnl import Rtnl
from services.nsmanager.agent.target import Tables
from services.nsmanager.launcher import session
from services.nsmanager.launcher.fence import Fence


def run(listener: socket.socket, layout: Layout, tables: Tables) -> None:
    """Serve the namespace of the calling thread until SIGTERM."""
    with asyncio.Runner() as runner:
        runner.run(_serve(listener, layout, tables))


async def _serve(listener: socket.socket, layout: Layout, tables: Tables) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    tally = session.Tally()
    rtnl = Rtnl(tally)
    links.sweep(rtnl)
    journal = Journal(lambda news: sessions.notify(news, "nsmanager"))
    dispatch = operations.Operations(rtnl, tables, journal, loop.call_later).dispatch
    charter = session.Charter(operations.DUTIES, operations.CHANGES, layout.process_of, Fence(layout.fence_dir), dispatch)
    sessions = session.Sessions(loop, listener, charter, tally)
    events = Events(loop, sessions.notify, journal)
    await stop.wait()
    events.close()
    sessions.close()
    rtnl.close()
