"""The agent's operations: each message of `operation.AgentOperation` and what carries it out.

Called by the server for every call that its session may make. All are synchronous: a change of the kernel is done when its
system call returns.
"""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import msgspec

from crossns import budget, entry, errors, examination, keepsake, kernel, operation, proof, standing, sysctl
from crossns.listener import OpenListener
from services.nsmanager.agent import (
    addresses,
    announce,
    census,
    count,
    examine,
    keepsakes,
    links,
    listeners,
    move,
    neighbors,
    observe,
    privilege,
    routes,
    rules,
    trial,
)
from services.nsmanager.agent.budgets import Budgets
from services.nsmanager.agent.journal import Journal
from services.nsmanager.agent.rtnl import Rtnl
from services.nsmanager.agent.standings import Standings
from services.nsmanager.agent.target import Tables
from services.nsmanager.launcher import session

_NSMANAGER = frozenset({"nsmanager"})
DUTIES: dict[type[operation.Message], frozenset[str] | None] = {
    operation.Dump: None,
    operation.ReadCounters: None,
    examination.Examine: None,
    examination.LookUp: None,
    examination.FindObstacles: None,
    keepsake.Remember: None,
    operation.Statistics: None,
    standing.ReadStandings: None,
    standing.PutStandings: _NSMANAGER,
    kernel.Subscribe: _NSMANAGER,
    kernel.Acknowledge: _NSMANAGER,
    # Not a change of the namespace, but power over what leaves it.
    operation.OpenSocket: frozenset({"nsmanager", "proxy"}),
    OpenListener: frozenset({"gateway"}),
    operation.CreateLink: _NSMANAGER,
    operation.DeleteLink: _NSMANAGER,
    operation.MoveLink: _NSMANAGER,
    operation.MarkLink: _NSMANAGER,
    operation.SetLink: _NSMANAGER,
    operation.AddAddress: _NSMANAGER,
    operation.RemoveAddress: _NSMANAGER,
    operation.PutRoute: _NSMANAGER,
    operation.RemoveRoute: _NSMANAGER,
    entry.PutRule: _NSMANAGER,
    entry.RemoveRule: _NSMANAGER,
    entry.PutNeighbor: _NSMANAGER,
    entry.RemoveNeighbor: _NSMANAGER,
    keepsake.GiveBack: _NSMANAGER,
    **dict.fromkeys(get_args(proof.AgentOperation), _NSMANAGER),
    sysctl.SetSysctl: _NSMANAGER,
    sysctl.SetLinkSysctl: _NSMANAGER,
    budget.PutBudget: _NSMANAGER,
    budget.RemoveBudget: _NSMANAGER,
}
CHANGES = frozenset(kind for kind, services in DUTIES.items() if services is not None)
_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}
_KINDS = {"stream": socket.SOCK_STREAM, "dgram": socket.SOCK_DGRAM}


class Operations:
    def __init__(
        self,
        rtnl: Rtnl,
        tables: Tables,
        budgets: Budgets,
        journal: Journal,
        later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self._rtnl = rtnl
        self._budgets = budgets
        self._tables = tables
        self._journal = journal
        self._standings = Standings(tables.own)
        self._later = later
        self._trials = trial.Trials(rtnl, later)

    def dispatch(self, wanted: Any, answer: session.Answer) -> None:
        match wanted:
            case operation.Dump():
                answer(msgspec.structs.replace(observe.snapshot(self._rtnl), budget_seen=self._budgets.seen()))
            case operation.ReadCounters():
                counters = count.counters(census.census(self._rtnl))
                answer(msgspec.structs.replace(counters, budget=self._budgets.counted()))
            case examination.Examine(forwarded=True):
                examine.count_forwarded(self._rtnl, wanted, self._later, answer)
            case examination.Examine():
                answer(examine.examine(self._rtnl, wanted))
            case examination.FindObstacles():
                taken = observe.is_taken(self._rtnl, wanted.link_name)
                answer(examination.Obstacles(is_name_taken=taken, routes=routes.of_others(self._rtnl, wanted.routes)))
            case examination.LookUp():
                answer(examine.ways(self._rtnl, wanted))
            case keepsake.Remember():
                answer(keepsakes.remember(self._rtnl, wanted))
            case keepsake.GiveBack():
                answer(keepsakes.give_back(self._rtnl, wanted))
            case operation.Statistics():
                answer(self._rtnl.tally.counters())
            case operation.OpenSocket():
                answer(None, (self._open_socket(wanted),))
            case OpenListener():
                answer(None, (listeners.opened(self._rtnl, wanted).detach(),))
            case standing.ReadStandings():
                answer(self._standings.read())
            case standing.PutStandings():
                self._standings.put(wanted)
                answer(None)
            case kernel.Subscribe():
                answer(None)
                self._journal.subscribe()
                # A session that begins: whoever had begun a trial is gone.
                self._trials.end()
            case kernel.Acknowledge(number=number):
                answer(None)
                self._journal.acknowledge(number)
            case _ if isinstance(wanted, proof.AgentOperation):
                self._trials.dispatch(wanted, answer)
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
            case sysctl.SetSysctl():
                self._write(observe.sysctl_path(wanted.name), wanted.value)
            case sysctl.SetLinkSysctl():
                self._set_link_sysctl(wanted)
            case budget.PutBudget():
                self._budgets.put(wanted.budget)
            case budget.RemoveBudget():
                self._budgets.remove()
            case _:
                self._change_entry(wanted)

    def _change_entry(self, wanted: entry.Operation) -> None:
        match wanted:
            case entry.PutRule():
                rules.put(self._rtnl, wanted)
            case entry.RemoveRule():
                rules.remove(self._rtnl, wanted)
            case entry.PutNeighbor():
                neighbors.put(self._rtnl, wanted)
            case entry.RemoveNeighbor():
                neighbors.remove(self._rtnl, wanted)

    def _announce(self, link: operation.Link, address: str) -> None:
        announce.announce(link, address, lambda: addresses.is_there(self._rtnl, link, address), self._later)

    def _set_link_sysctl(self, wanted: sysctl.SetLinkSysctl) -> None:
        """A link that has gone meanwhile needs none."""
        if observe.link(self._rtnl, wanted.link) is None:
            return
        try:
            self._write(_of_link(wanted.link, wanted.name), wanted.value)
        except FileNotFoundError as error:
            message = f"{wanted.link} has no {wanted.name}: an MTU below 1280 leaves a link without IPv6"
            raise errors.PermanentError("KERNEL_REFUSED", message, link=wanted.link) from error

    def _write(self, path: Path, value: str) -> None:
        if path.read_text(encoding="ascii").strip() != value:
            path.write_text(value, encoding="ascii")
            self._rtnl.tally.writes += 1

    @staticmethod
    def _open_socket(wanted: operation.OpenSocket) -> int:
        with privilege.acting_as(wanted.owner_uid):
            return socket.socket(_FAMILIES[wanted.family], _KINDS[wanted.kind] | socket.SOCK_CLOEXEC).detach()


def _of_link(link: str, name: str) -> Path:
    """A link's name is one part of the path, whatever dots are in it: the kernel takes neither a slash nor `..` as one."""
    family = "ipv6" if name == "proxy_ndp" else "ipv4"
    return Path(f"/proc/sys/net/{family}/conf") / link / name
