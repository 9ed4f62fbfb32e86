"""The zygote: loads everything that agents need once, then forks them: ahead of the launcher's requests, where it has the time.

Called by `__main__`. It has no event loop, no threads and no sockets but the launcher's and its spares', and dies with the
launcher; agents do not.
"""

import contextlib
import gc
import logging
import os
import select
import signal
import socket
import sys
from dataclasses import dataclass
from typing import NoReturn

import msgspec

from crossns import netns, operation, wire
from crossns.layout import Layout
from services.nsmanager.agent import census, count, nft, privilege, rehearsal, server, spares, survey
from services.nsmanager.agent.rtnl import Rtnl
from services.nsmanager.agent.target import Tables
from services.nsmanager.launcher import agents, place, records, session
from services.nsmanager.launcher.fence import Fence
from services.nsmanager.launcher.loop import Loop

_REQUEST_MAX = 4096
_requests = msgspec.json.Decoder(agents.Fork | agents.Look)
_log = logging.getLogger(__name__)


def run(launcher: socket.socket, layout: Layout) -> None:
    """Fork until the launcher is gone."""
    privilege.end_with_parent()
    # Ended agents leave no zombies; the launcher watches them by pidfd.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    origin = Origin(os.getpid(), launcher, layout, netns.open_current(), netns.inside_new(lambda: _warm_up(layout)))
    # What is loaded by now is shared by all children and not looked at by their garbage collectors.
    gc.collect()
    gc.freeze()
    waiting = spares.Spares(lambda wish: _be_spare(wish, origin))
    while True:
        # Who waits comes first.
        if not waiting.are_enough and not _is_readable(launcher.fileno()):
            waiting.fork()
            continue
        request, fds, *_ = socket.recv_fds(launcher, _REQUEST_MAX, 1)
        if not request:
            return
        if isinstance(_requests.decode(request), agents.Fork):
            waiting.give(request)
        elif os.fork() == 0:
            _be_surveyor(fds[0], layout)
        for fd in fds:
            os.close(fd)


def _is_readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


@dataclass(frozen=True, slots=True)
class Origin:
    """What children have of the zygote: its pid, its end of the launcher's socket pair, and descriptors of two namespaces, that
    of the table `default` and that of nobody, in which there is nothing."""

    pid: int
    launcher: socket.socket
    layout: Layout
    default: int
    nobody: int


def _warm_up(layout: Layout) -> int:
    """Do once what every agent does: what is compiled, specialised and cached by now is not so in each of them, 1 MB each. In a
    new namespace, whose descriptor is returned."""
    nobody = netns.open_current()
    rehearsal.rehearse(layout, Tables("", nobody, layout.incarnations))
    # Agents call it in children only; who has none is told so by them.
    with contextlib.suppress(nft.Refused):
        nft.library()
    rtnl = Rtnl(session.Tally())
    wire.encode(operation.Reply(0, result=count.counters(census.census(rtnl))))
    rehearsal.rehearse_trial(rtnl)
    rtnl.close()
    return nobody


def _be_spare(wish: int, origin: Origin) -> NoReturn:
    """An agent from the moment on in which it is told whose. Never returns into the zygote's loop."""
    status = 1
    table = "no table"
    try:
        privilege.set_name("spare")
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        netns.setns(origin.nobody)
        if not _is_readable(wish):
            rehearsal.rehearse(origin.layout, Tables("", origin.nobody, origin.layout.incarnations))
        request = os.read(wish, _REQUEST_MAX)
        os.close(wish)
        if request and isinstance(fork := _requests.decode(request), agents.Fork):
            table = fork.table
            _be_agent(fork, origin)
        status = 0
    except SystemExit as reason:
        _log.info("no agent of %s is needed here: %s", table, reason)
    except BaseException:  # noqa: BLE001 - logged, and the process ends
        _log.exception("the agent of %s ended", table)
    finally:
        with contextlib.suppress(OSError):
            sys.stderr.flush()
        os._exit(status)


def _be_surveyor(out: int, layout: Layout) -> NoReturn:
    """Never returns into the zygote's loop."""
    status = 1
    try:
        privilege.end_with_parent()
        privilege.set_name("surveyor")
        survey.write(out, layout)
        status = 0
    except BaseException:  # noqa: BLE001 - logged, and the process ends
        _log.exception("the device could not be looked at")
    finally:
        os._exit(status)


def _be_agent(fork: agents.Fork, origin: Origin) -> None:
    loop = Loop()
    loop.stop_on_signals()
    listener = _settle(fork, origin)
    layout = origin.layout
    server.run(loop, listener, layout, Fence(layout.fence_dir), Tables(fork.table, origin.default, layout.incarnations))


def _settle(fork: agents.Fork, origin: Origin) -> socket.socket:
    """Become the one agent of the namespace and say so; the socket to serve."""
    _enter(fork, origin)
    if records.claim(place.agent_records(origin.layout) / f"{fork.table}.{fork.cookie}", fork.restarts) is None:
        sys.exit("the namespace has an agent")
    if os.getppid() != origin.pid:
        # The launcher is gone and so is the zygote: its next life has forked, or will fork, this agent anew.
        sys.exit("the launcher is gone")
    privilege.set_name(f"agent-{fork.table}")
    listener = session.listen(origin.layout.agent_socket(fork.table), mode=0o660, gid=origin.layout.agents_gid)
    privilege.drop()
    # A launcher that died a moment ago finds the agent by its record when it is back.
    with contextlib.suppress(OSError):
        origin.launcher.send(msgspec.json.encode(agents.Ready(fork.table, fork.cookie)))
    origin.launcher.close()
    return listener


def _enter(fork: agents.Fork, origin: Origin) -> None:
    """Leave the namespace of nobody for that of the table; `path` "" is `default`."""
    fd = os.open(fork.path, os.O_RDONLY | os.O_CLOEXEC) if fork.path else os.dup(origin.default)
    netns.setns(fd)
    os.close(fd)
    os.close(origin.nobody)
    if netns.cookie() != fork.cookie:
        sys.exit(f"{fork.path} is another namespace by now")
