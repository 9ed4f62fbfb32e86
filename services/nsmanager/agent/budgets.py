"""The budget of a table's sessions, as an nftables table of our own; all others are somebody else's.

Called by `operations`, by the zygote once, and by `teardown`. Where there is a budget, changes of it are listened for: who
flushes it finds it back.
"""

import contextlib
import errno
import functools
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from crossns import budget, counter, errors
from services.nsmanager.agent import budget_rules, nfnl, nft, pickup
from services.nsmanager.launcher import session
from services.nsmanager.launcher.loop import Reactor

# linux/netfilter/nfnetlink.h, linux/netlink.h
_NFNLGRP_NFTABLES = 7
_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP = 270, 1
# Attributes of linux/netfilter/nf_tables.h.
_TABLE_FLAGS, _TABLE_USERDATA = 2, 6
_RULE_USERDATA = 7
# What makes a chain (name, hook, policy, type, flags) and a rule (chain, expressions, user data); handles and uses do not.
_OF_CHAIN, _OF_RULE = (3, 4, 5, 7, 10), (2, 4, _RULE_USERDATA)
_BUFFER = 64 * 1024
_WHAT = "limit the table's sessions"
# Changes that follow each other this closely are told together.
_DEBOUNCE_S = 0.004


@dataclass(frozen=True, slots=True)
class _Standing:
    """The table of a budget as the kernel shows it. `frame`: the table's flags and its chains."""

    frame: tuple[Mapping[int, bytes], ...]
    rules: tuple[Mapping[int, bytes], ...]

    def budget(self) -> budget.Budget | None:
        return budget_rules.budget_of([_comment(rule.get(_RULE_USERDATA, b"")) for rule in self.rules])


class Budgets:
    """`changed` is called when somebody may have changed the budget of this namespace."""

    def __init__(self, loop: Reactor, tally: session.Tally, changed: Callable[[], None]) -> None:
        self._loop = loop
        self._tally = tally
        self._changed = changed
        # Of the agent's life: the kernel counts one that is closed for a while yet.
        self._kernel = nfnl.Nfnl(budget_rules.TABLE)
        self._socket: socket.socket | None = None
        self._written: tuple[budget.Budget, _Standing] | None = None
        # As it was before there was a budget: the table says it, but somebody may take that away. None: there is none.
        self._pickup: str | None = None
        self._is_told = False

    def seen(self) -> budget.Seen | None:
        found = self._look()
        self._follow(is_there=found is not None)
        return found

    def put(self, wanted: budget.Budget) -> None:
        found = self._look()
        if found is not None and found.budget == wanted:
            return
        self._follow(is_there=True)
        before = self._pickup or pickup.read()
        standing = self._standing(self._kernel)
        anew = standing is not None and standing.frame != self._as_written(wanted).frame
        nft.run(budget_rules.render(wanted, before, anew=anew), _WHAT)
        self._pickup = before
        self._tally.writes += 1 + pickup.write(pickup.REFUSED)

    def remove(self) -> None:
        """The table goes last: it says what else there is to do."""
        if self._look() is None:
            return
        if self._pickup is not None:
            self._tally.writes += pickup.write(self._pickup)
        nft.run(budget_rules.removal(), "lift the limit of the table's sessions")
        self._pickup = None
        self._tally.writes += 1
        self._follow(is_there=False)

    def counted(self) -> counter.Budget | None:
        """New sessions that were dropped; None where there is no budget."""
        if self._kernel.table() is None:
            return None
        return counter.Budget(*(self._kernel.counted(name) for name in (budget_rules.TOO_FAST, budget_rules.TOO_MANY)))

    def close(self) -> None:
        self._follow(is_there=False)
        self._kernel.close()

    def _look(self) -> budget.Seen | None:
        """None where there is nothing of a budget. One without its sysctl, or whose rules only say that they are it, is none."""
        table = self._kernel.table()
        standing = self._standing(self._kernel)
        if table is None or standing is None:
            return budget.Seen(None) if self._pickup is not None else None
        self._pickup = budget_rules.pickup_before(_comment(table.get(_TABLE_USERDATA, b""))) or self._pickup
        said = standing.budget()
        is_true = said is not None and pickup.read() == pickup.REFUSED and self._is_as_written(said, standing)
        return budget.Seen(said if is_true else None)

    def _is_as_written(self, said: budget.Budget, standing: _Standing) -> bool:
        """Numbers that somebody else's comments say may be such as nobody can write."""
        try:
            return self._as_written(said) == standing
        except errors.PermanentError:
            return False

    def _as_written(self, wanted: budget.Budget) -> _Standing:
        """What this kernel shows when this libnftables has written the budget, seen in a namespace that is nobody's."""
        if self._written is None or self._written[0] != wanted:
            made = nft.made(budget_rules.render(wanted, pickup.REFUSED, anew=False), _WHAT, in_new_namespace=True)
            kernel = nfnl.Nfnl(budget_rules.TABLE, made)
            standing = self._standing(kernel)
            kernel.close()
            assert standing is not None  # noqa: S101 - it was made a moment ago, and nobody knows where
            self._written = wanted, standing
        return self._written[1]

    @staticmethod
    def _standing(kernel: nfnl.Nfnl) -> _Standing | None:
        table = kernel.table()
        if table is None:
            return None
        chains = [{number: chain.get(number, b"") for number in _OF_CHAIN} for chain in kernel.all(nfnl.GET_CHAIN)]
        rules = [{number: rule.get(number, b"") for number in _OF_RULE} for rule in kernel.all(nfnl.GET_RULE)]
        return _Standing(({_TABLE_FLAGS: table.get(_TABLE_FLAGS, b"")}, *chains), tuple(rules))

    def _follow(self, *, is_there: bool) -> None:
        if is_there and self._socket is None:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, nfnl.NETLINK_NETFILTER)
            self._socket.settimeout(0)
            # Without an address of its own it would be taken for the one who causes the events.
            self._socket.bind((0, 0))
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, _NFNLGRP_NFTABLES)
            self._loop.add_reader(self._socket.fileno(), functools.partial(self._read, self._socket))
        elif not is_there and self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _read(self, listening: socket.socket) -> None:
        """The kernel tells of all nftables tables; what does not name ours is not ours. After an overrun it may be."""
        with contextlib.suppress(BlockingIOError):
            try:
                concerned = budget_rules.TABLE.encode() in listening.recv(_BUFFER)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                concerned = True
            if concerned and not self._is_told:
                self._is_told = True
                self._loop.call_later(_DEBOUNCE_S, self._tell)

    def _tell(self) -> None:
        self._is_told = False
        self._changed()


def _comment(data: bytes) -> str:
    """The first piece of user data, where that is a comment (NFTNL_UDATA_{TABLE,RULE}_COMMENT in libnftnl's udata.h)."""
    is_one = len(data) > 2 and data[0] == 0
    return data[2 : 2 + data[1]].rstrip(b"\0").decode(errors="replace") if is_one else ""
