"""The zygote: loads everything that agents need once, then forks one for each request of the launcher.

Called by `__main__`. It has no event loop, no threads and no sockets but the launcher's, and dies with the launcher; its
children do not.
"""

import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from typing import NoReturn

import msgspec

from crossns import netns, operation, wire
from crossns.layout import Layout
from services.nsmanager.agent import budget_rules, budgets, census, count, nfnl, observe, privilege, server, survey
from services.nsmanager.agent.rtnl import Rtnl
from services.nsmanager.agent.target import Tables
from services.nsmanager.launcher import agents, place, records, session

_REQUEST_MAX = 4096
_log = logging.getLogger(__name__)


def run(launcher: socket.socket, layout: Layout) -> None:
    """Fork until the launcher is gone."""
    privilege.end_with_parent()
    # Ended agents leave no zombies; the launcher watches them by pidfd.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    default = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    _warm_up()
    # What is loaded by now is shared by all children and not looked at by their garbage collectors.
    gc.collect()
    gc.freeze()
    zygote = os.getpid()
    while (received := socket.recv_fds(launcher, _REQUEST_MAX, 1))[0]:
        request, fds, *_ = received
        wanted = msgspec.json.decode(request, type=agents.Fork | agents.Look)
        if os.fork() == 0:
            if isinstance(wanted, agents.Look):
                _be_surveyor(fds[0], layout)
            _be_agent(wanted, launcher, layout, Tables(wanted.table, default, layout.incarnations), zygote)
        for fd in fds:
            os.close(fd)


def _warm_up() -> None:
    """Do once what every agent does: what is compiled, specialised and cached by now is not so in each of them, 1 MB each."""

    def look() -> None:
        rtnl = Rtnl(session.Tally())
        wire.encode(operation.Reply(0, result=observe.snapshot(rtnl)))
        wire.encode(operation.Reply(0, result=count.counters(census.census(rtnl))))
        kernel = nfnl.Nfnl(budget_rules.TABLE)
        budgets.look(kernel)
        kernel.close()
        rtnl.close()

    netns.inside_new(look)


def _be_agent(fork: agents.Fork, launcher: socket.socket, layout: Layout, tables: Tables, zygote: int) -> None:
    """Never returns into the zygote's loop."""
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        listener = _settle(fork, launcher, layout, zygote)
        server.run(listener, layout, tables)
        status = 0
    except SystemExit as reason:
        _log.info("no agent of %s is needed here: %s", fork.table, reason)
    except BaseException:  # noqa: BLE001 - logged, and the process ends
        _log.exception("the agent of %s ended", fork.table)
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


def _settle(fork: agents.Fork, launcher: socket.socket, layout: Layout, zygote: int) -> socket.socket:
    """Become the one agent of the namespace and say so; the socket to serve."""
    if fork.path:
        _enter(fork)
    if records.claim(place.agent_records(layout) / f"{fork.table}.{fork.cookie}") is None:
        sys.exit("the namespace has an agent")
    if os.getppid() != zygote:
        # The launcher is gone and so is the zygote: its next life has forked, or will fork, this agent anew.
        sys.exit("the launcher is gone")
    privilege.set_name(f"agent-{fork.table}")
    listener = session.listen(layout.agent_socket(fork.table), mode=0o660, gid=layout.agents_gid)
    privilege.drop()
    # A launcher that died a moment ago finds the agent by its record when it is back.
    with contextlib.suppress(OSError):
        launcher.send(msgspec.json.encode(agents.Ready(fork.table, fork.cookie)))
    launcher.close()
    return listener


def _enter(fork: agents.Fork) -> None:
    fd = os.open(fork.path, os.O_RDONLY | os.O_CLOEXEC)
    netns.setns(fd)
    os.close(fd)
    if netns.cookie() != fork.cookie:
        sys.exit(f"{fork.path} is another namespace by now")
