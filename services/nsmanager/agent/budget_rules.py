"""The nftables table of a budget: values to rules and back.

Pure. Called by `budgets`. Every rule has a comment that says what it does, numbers included: what is in force is read from the
comments, which every version of nftables shows as they were written, unlike expressions.

A session is what connection tracking takes for one. It counts where it comes in: the table's own sessions (HAProxy's to members,
checks) are confirmed on their way out and pass, also over `lo`. What connection tracking did not see begin (TCP without a SYN)
stood before the budget and passes, too. Protocols whose packets are nobody's sessions (VRRP, OSPF, tunnels) are left alone.
"""

import re
from collections.abc import Iterator, Sequence

from crossns.budget import Budget

TABLE, CHAIN = "crossns_budget", "arriving"
TOO_FAST, TOO_MANY = "too_fast", "too_many"
# Behind connection tracking (-200, NF_IP_PRI_CONNTRACK), before addresses are translated and packets routed (NF_IP_PRI_MANGLE).
PRIORITY = -150
# TCP, UDP, UDP-Lite, SCTP, DCCP and ICMP of both versions, as numbers: names would be looked up in /etc/protocols.
_PROTOCOLS = "{ 1, 6, 17, 33, 58, 132, 136 }"
_RATE = re.compile(r"at most (\d+) new sessions per second, (\d+) at once")
_COUNT = re.compile(r"at most (\d+) sessions at a time")


def _rules(budget: Budget) -> Iterator[tuple[str, str]]:
    """(what is done, the comment), in the order of the chain."""
    yield "ct state != new accept", "crossns 1: what has been answered, or is no session"
    yield "ct status confirmed accept", "what was let in before"
    yield f"meta l4proto != {_PROTOCOLS} accept", "protocols without sessions"
    yield "meta l4proto tcp tcp flags & (fin | syn | rst | ack) != syn accept", "what began before the budget"
    if budget.new_sessions_per_second:
        rate, burst = budget.new_sessions_per_second, budget.burst
        over = f"limit rate over {rate}/second burst {burst} packets"
        yield f"{over} counter name {TOO_FAST} drop", f"at most {rate} new sessions per second, {burst} at once"
    if budget.max_sessions:
        over = f"ct count over {budget.max_sessions}"
        yield f"{over} counter name {TOO_MANY} drop", f"at most {budget.max_sessions} sessions at a time"


def comments(budget: Budget) -> tuple[str, ...]:
    return tuple(comment for _, comment in _rules(budget))


def budget_of(seen: Sequence[str]) -> Budget | None:
    """The budget whose rules have exactly these comments; None where there is none."""
    rate, burst = _numbers(_RATE, seen) or (0, 0)
    (count,) = _numbers(_COUNT, seen) or (0,)
    found = Budget(count, rate, burst)
    return found if comments(found) == tuple(seen) else None


def _numbers(pattern: re.Pattern[str], seen: Sequence[str]) -> tuple[int, ...] | None:
    matches = filter(None, map(pattern.fullmatch, seen))
    return next((tuple(map(int, match.groups())) for match in matches), None)


def render(budget: Budget, *, anew: bool) -> str:
    """One transaction of nft(8). `anew`: whatever stands in the table goes first, its counters with it."""
    chain = f"inet {TABLE} {CHAIN}"
    lines = [
        f"add table inet {TABLE}",
        *([f"delete table inet {TABLE}", f"add table inet {TABLE}"] if anew else []),
        f"add counter inet {TABLE} {TOO_FAST}",
        f"add counter inet {TABLE} {TOO_MANY}",
        f"add chain {chain} {{ type filter hook prerouting priority {PRIORITY}; policy accept; }}",
        f"flush chain {chain}",
        *(f'add rule {chain} {rule} comment "{comment}"' for rule, comment in _rules(budget)),
    ]
    return "\n".join([*lines, ""])


def removal() -> str:
    """Also where there is none by then."""
    return f"add table inet {TABLE}\ndelete table inet {TABLE}\n"
