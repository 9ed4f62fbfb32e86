"""The nftables table of a budget: values to rules and back.

Pure. Called by `budgets`. Every rule has a comment that says what it does, numbers included: what is in force is read from the
comments, which every version of nftables shows as they were written, unlike expressions.

A session is what would become an entry of connection tracking, of whatever protocol: so nothing makes entries beyond the budget.
It counts where it comes in: the table's own sessions (HAProxy's to members, checks) are confirmed on their way out and pass, also
over `lo`. What makes no entry passes uncounted: neighbour discovery, and TCP that begins without a SYN, which stood before
connection tracking looked (`budgets` sees to it that the kernel takes it for no session).
"""

import re
from collections.abc import Iterator, Sequence

from crossns.budget import Budget

TABLE, CHAIN = "crossns_budget", "arriving"
TOO_FAST, TOO_MANY = "too_fast", "too_many"
# Behind connection tracking (-200, NF_IP_PRI_CONNTRACK), before addresses are translated and packets routed (NF_IP_PRI_MANGLE).
PRIORITY = -150
_RATE = re.compile(r"at most (\d+) new sessions per second, (\d+) at once")
_COUNT = re.compile(r"at most (\d+) sessions at a time")
_PICKUP = re.compile(r"nf_conntrack_tcp_loose was (\d+)")


def _rules(budget: Budget) -> Iterator[tuple[str, str]]:
    """(what is done, the comment), in the order of the chain."""
    yield "ct state invalid,untracked accept", "crossns 2: no session, or one that began before all budgets"
    yield "ct status confirmed accept", "what was let in before"
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


def pickup_before(comment: str) -> str | None:
    """What was in force before the budget, by the comment of its table; None where that says nothing."""
    match = _PICKUP.fullmatch(comment)
    return match[1] if match else None


def render(budget: Budget, pickup: str, *, anew: bool) -> str:
    """One transaction of nft(8), which tells `pickup_before` of `pickup`. `anew`: whatever stands in the table goes first, its
    counters with it."""
    chain = f"inet {TABLE} {CHAIN}"
    table = f'add table inet {TABLE} {{ comment "nf_conntrack_tcp_loose was {pickup}"; }}'
    lines = [
        table,
        *([f"delete table inet {TABLE}", table] if anew else []),
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
