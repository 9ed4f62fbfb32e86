"""The agent's process from its first moment in the namespace on: the launcher's poll loop, with sessions and events.

Called by the zygote in each agent and by `rehearsal`. Why not asyncio: ADR 10.
"""

import socket
from typing import Any

from crossns import operation
from crossns.layout import Layout
from services.nsmanager.agent import operations, throwaway
from services.nsmanager.agent.budgets import Budgets
from services.nsmanager.agent.events import Events
from services.nsmanager.agent.journal import Journal
from services.nsmanager.agent.rtnl import Rtnl
from services.nsmanager.agent.target import Tables
from services.nsmanager.launcher import session
from services.nsmanager.launcher.fence import Fence
from services.nsmanager.launcher.loop import Loop


def run(loop: Loop, listener: socket.socket, layout: Layout, fence: Fence, tables: Tables) -> None:
    """Serve the namespace of the calling thread until the loop stops."""
    tally = session.Tally()
    rtnl = Rtnl(tally)
    throwaway.sweep(rtnl)
    journal = Journal(lambda news: sessions.notify(news, "nsmanager"))
    budgets = Budgets(loop, tally, lambda: sessions.notify(operation.Changed(kinds=("budget",))))
    duties = operations.Operations(rtnl, tables, budgets, journal, loop.call_later)

    def dispatch(wanted: Any, answer: session.Answer) -> None:
        if isinstance(wanted, operation.Dump):
            # What was told before a dump is in it, and wakes nobody who waits for one.
            events.tell_now()
        duties.dispatch(wanted, answer)

    charter = session.Charter(operations.DUTIES, operations.CHANGES, layout.process_of, fence, dispatch)
    sessions = session.Sessions(loop, listener, charter, tally)
    events = Events(loop, sessions.notify, journal)
    loop.run()
    events.close()
    budgets.close()
    sessions.close()
    rtnl.close()
