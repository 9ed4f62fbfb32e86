"""The agent's operations: each message of `operation.AgentOperation` and what carries it out.

Called by the server for every call that its session may make. All are synchronous: a change of the kernel is done when its
system call returns.
"""

import socket
from collections.abc import Callable
from typing import Any

from crossns import operation
from services.nsmanager.agent import addresses, announce, count, links, move, observe, privilege, routes
from services.nsmanager.agent.rtnl import Rtnl
from services.nsmanager.agent.target import Tables
from services.nsmanager.launcher import session

_NSMANAGER = frozenset({"nsmanager"})
DUTIES: dict[type[operation.Message], frozenset[str] | None] = {
    operation.Dump: None,
    operation.ReadCounters: None,
    operation.Statistics: None,
    # Not a change of the namespace, but power over what leaves it.
    operation.OpenSocket: frozenset({"nsmanager", "proxy"}),
    operation.CreateLink: _NSMANAGER,
    operation.DeleteLink: _NSMANAGER,
    operation.MoveLink: _NSMANAGER,
    operation.MarkLink: _NSMANAGER,
    operation.SetLink: _NSMANAGER,
    operation.AddAddress: _NSMANAGER,
    operation.RemoveAddress: _NSMANAGER,
    operation.PutRoute: _NSMANAGER,
    operation.RemoveRoute: _NSMANAGER,
    operation.SetSysctl: _NSMANAGER,
}
CHANGES = frozenset(kind for kind, services in DUTIES.items() if services is not None)
_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}
_KINDS = {"stream": socket.SOCK_STREAM, "dgram": socket.SOCK_DGRAM}


class Operations:
    def __init__(self, rtnl: Rtnl, tables: Tables, later: Callable[[float, Callable[[], None]], object]) -> None:
        self._rtnl = rtnl
        self._tables = tables
        self._later = later

    def dispatch(self, wanted: Any, answer: session.Answer) -> None:
        match wanted:
            case operation.Dump():
                answer(observe.snapshot(self._rtnl))
            case operation.ReadCounters():
                answer(count.counters())
            case operation.Statistics():
                answer(self._rtnl.tally.counters())
            case operation.OpenSocket():
                answer(None, (self._open_socket(wanted),))
            case _:
                self._change(wanted)
                answer(None)

    def _change(self, wanted: Any) -> None:
        match wanted:
            case operation.CreateLink():
                links.create(self._rtnl, self._tables, wanted)
            case operation.DeleteLink():
                links.delete(self._rtnl, wanted)
            case operation.MoveLink():
                move.move(self._rtnl, self._tables, wanted)
            case operation.MarkLink():
                links.mark(self._rtnl, wanted)
            case operation.SetLink():
                links.update(self._rtnl, wanted)
            case operation.AddAddress():
                addresses.add(self._rtnl, wanted, self._announce)
            case operation.RemoveAddress():
                addresses.remove(self._rtnl, wanted)
            case operation.PutRoute():
                routes.put(self._rtnl, wanted)
            case operation.RemoveRoute():
                routes.remove(self._rtnl, wanted)
            case operation.SetSysctl():
                self._set_sysctl(wanted)

    def _announce(self, link: operation.Link, address: str) -> None:
        announce.announce(link, address, lambda: addresses.is_there(self._rtnl, link, address), self._later)

    def _set_sysctl(self, wanted: operation.SetSysctl) -> None:
        path = observe.sysctl_path(wanted.name)
        if path.read_text(encoding="ascii").strip() != wanted.value:
            path.write_text(wanted.value, encoding="ascii")
            self._rtnl.tally.writes += 1

    @staticmethod
    def _open_socket(wanted: operation.OpenSocket) -> int:
        with privilege.acting_as(wanted.owner_uid):
            return socket.socket(_FAMILIES[wanted.family], _KINDS[wanted.kind] | socket.SOCK_CLOEXEC).detach()
