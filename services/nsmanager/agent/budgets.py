"""The budget of a table's sessions, as an nftables table of our own; all others are somebody else's.

Called by `operations`, by the zygote once, and by `teardown`. Where there is a budget, changes of it are listened for: who
flushes it finds it back.
"""

import contextlib
import errno
import functools
import socket
import struct
from collections.abc import Callable, Mapping

from crossns import budget, counter
from services.nsmanager.agent import budget_rules, nfnl, nft, pickup
from services.nsmanager.launcher import session
from services.nsmanager.launcher.loop import Reactor

# linux/netfilter/nfnetlink.h, linux/netlink.h
_NFNLGRP_NFTABLES = 7
_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP = 270, 1
# Attributes of linux/netfilter/nf_tables.h.
_TABLE_FLAGS, _TABLE_USERDATA = 2, 6
_CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE = 3, 4, 5, 7
_HOOK_NUMBER, _HOOK_PRIORITY = 1, 2
_RULE_CHAIN, _RULE_USERDATA = 2, 7
_OBJECT_NAME, _OBJECT_TYPE, _OBJECT_DATA, _COUNTER_PACKETS = 2, 3, 4, 2
# NFT_OBJECT_COUNTER
_COUNTER = (1).to_bytes(4, "big")
# NF_INET_PRE_ROUTING, NF_ACCEPT (linux/netfilter.h).
_PREROUTING, _ACCEPT = 0, 1
_BUFFER = 64 * 1024
# Changes that follow each other this closely are told together.
_DEBOUNCE_S = 0.004


class Budgets:
    """`changed` is called when somebody may have changed the budget of this namespace."""

    def __init__(self, loop: Reactor, tally: session.Tally, changed: Callable[[], None]) -> None:
        self._loop = loop
        self._tally = tally
        self._changed = changed
        # Of the agent's life: the kernel counts one that is closed for a while yet.
        self._kernel = nfnl.Nfnl(budget_rules.TABLE)
        self._socket: socket.socket | None = None
        # As it was before there was a budget: the table says it, but somebody may take that away. None: there is none.
        self._pickup: str | None = None
        self._is_told = False

    def seen(self) -> budget.Seen | None:
        _, found = self._look()
        self._follow(is_there=found is not None)
        return found

    def put(self, wanted: budget.Budget) -> None:
        stands, found = self._look()
        if found is not None and found.budget == wanted:
            return
        self._follow(is_there=True)
        before = self._pickup or pickup.read()
        script = budget_rules.render(wanted, before, anew=found is not None and not stands)
        nft.run(script, "limit the table's sessions")
        self._pickup = before
        self._tally.writes += 1 + pickup.write(pickup.REFUSED)

    def remove(self) -> None:
        """The table goes last: it says what else there is to do."""
        if self._look()[1] is None:
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
        return counter.Budget(*(_counted(self._kernel, name) for name in (budget_rules.TOO_FAST, budget_rules.TOO_MANY)))

    def close(self) -> None:
        self._follow(is_there=False)
        self._kernel.close()

    def _pickup_before(self) -> str:
        told = _comment((self._kernel.table() or {}).get(_TABLE_USERDATA, b""))
        return budget_rules.pickup_before(told) or self._pickup or pickup.read()

    def _look(self) -> tuple[bool, budget.Seen | None]:
        """Whether the table's frame stands as we make it, and what there is. Without its sysctl a budget is none."""
        table = self._kernel.table()
        if table is None:
            return False, budget.Seen(None) if self._pickup is not None else None
        self._pickup = budget_rules.pickup_before(_comment(table.get(_TABLE_USERDATA, b""))) or self._pickup
        chain = self._kernel.one(nfnl.GET_CHAIN, {_CHAIN_NAME: nfnl.text(budget_rules.CHAIN)}) or {}
        rules = self._kernel.all(nfnl.GET_RULE, {_RULE_CHAIN: nfnl.text(budget_rules.CHAIN)}) if chain else []
        # A dormant table does nothing.
        stands = _number(table, _TABLE_FLAGS) == 0 and _is_ours(chain)
        is_whole = stands and pickup.read() == pickup.REFUSED
        comments = [_comment(rule.get(_RULE_USERDATA, b"")) for rule in rules]
        return stands, budget.Seen(budget_rules.budget_of(comments) if is_whole else None)

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


def _counted(kernel: nfnl.Nfnl, name: str) -> int:
    found = kernel.one(nfnl.GET_OBJECT, {_OBJECT_NAME: nfnl.text(name), _OBJECT_TYPE: _COUNTER}) or {}
    return _number(nfnl.attributes(found.get(_OBJECT_DATA, b"")), _COUNTER_PACKETS)


def _is_ours(chain: Mapping[int, bytes]) -> bool:
    hook = nfnl.attributes(chain.get(_CHAIN_HOOK, b""))
    where = _number(hook, _HOOK_NUMBER), struct.unpack(">i", hook.get(_HOOK_PRIORITY, bytes(4)))[0]
    kind = chain.get(_CHAIN_TYPE, b"").rstrip(b"\0"), _number(chain, _CHAIN_POLICY)
    return where == (_PREROUTING, budget_rules.PRIORITY) and kind == (b"filter", _ACCEPT)


def _comment(data: bytes) -> str:
    """The first piece of user data, where that is a comment (NFTNL_UDATA_{TABLE,RULE}_COMMENT in libnftnl's udata.h)."""
    is_one = len(data) > 2 and data[0] == 0
    return data[2 : 2 + data[1]].rstrip(b"\0").decode(errors="replace") if is_one else ""


def _number(found: Mapping[int, bytes], attribute: int) -> int:
    """Big endian, as all of nf_tables; 0 where it is left out."""
    return int.from_bytes(found.get(attribute, b""), "big")
