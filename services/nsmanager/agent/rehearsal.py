"""What every agent does until its table is READY, done once for nobody: a session, its first looks, its end.

Called by the zygote before it forks anything, so that what is compiled and cached then is not so in each agent, and by each
spare, so that the pages that an agent writes to are its own by the time it is wanted (ADR 15).
"""

import os
import socket

from crossns import kernel, operation, standing, wire
from crossns.layout import Layout
from services.nsmanager.agent import server
from services.nsmanager.agent.target import Tables
from services.nsmanager.launcher import place, session
from services.nsmanager.launcher.fence import Fence
from services.nsmanager.launcher.loop import Loop

# As nsmanager begins.
_CALLS: tuple[operation.Request, ...] = (
    operation.Hello(service="nsmanager", token=operation.Token(0, 0)),
    kernel.Subscribe(),
    operation.Dump(),
    standing.ReadStandings(),
)
_ANSWERS_MAX = 64 * 1024


def rehearse(layout: Layout, tables: Tables) -> None:
    """In the calling thread's namespace, which must be no table's."""
    loop = Loop()
    directory = place.rehearsals(layout)
    path = directory / f"{os.getpid()}.sock"
    listener = session.listen(path, mode=0o600)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as peer:
        peer.connect(os.fspath(path))
        path.unlink()
        peer.sendall(b"".join(wire.encode(operation.Call(number, call)) for number, call in enumerate(_CALLS)))
        # Who reads all that and nothing more behind it ends the session.
        peer.shutdown(socket.SHUT_WR)

        def hear() -> None:
            if not peer.recv(_ANSWERS_MAX):
                loop.stop()

        loop.add_reader(peer.fileno(), hear)
        server.run(loop, listener, layout, Fence(directory), tables)
    loop.close()
