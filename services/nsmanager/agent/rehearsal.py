"""What every agent does until its table is READY, done once for nobody: a session, its first looks, its end.

Called by the zygote before it forks anything, so that what is compiled and cached then is not so in each agent, and by each
spare, so that the pages that an agent writes to are its own by the time it is wanted (ADR 15). Only the zygote goes through a
trial, too: most agents wait long for theirs.
"""

import os
import socket

from crossns import kernel, operation, proof, standing, wire
from crossns.layout import Layout
from services.nsmanager.agent import server, trial
from services.nsmanager.agent.rtnl import Rtnl
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
# As an examiner goes on, in whatever network nobody is.
_GROUND = proof.Ground(network="198.19.0.0/30", port=29000)
_TRIAL: tuple[proof.AgentOperation, ...] = (
    proof.ProbeGround(networks=(_GROUND.network,), ports=(_GROUND.port,)),
    proof.BeginTrial(ground=_GROUND, number=1, seal=1),
    proof.PlayTrial(),
    proof.ReadTrial(),
    proof.EndTrial(),
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


def rehearse_trial(rtnl: Rtnl) -> None:
    """A trial of isolation, alone in the namespace of `rtnl`: what a table does not take is no matter here."""
    trials = trial.Trials(rtnl, lambda *_: None)
    for call in _TRIAL:
        trials.dispatch(call, lambda *_: None)
