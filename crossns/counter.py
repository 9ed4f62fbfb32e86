"""What the kernel counts in a network namespace: plain numbers under the kernel's own names, as an agent reads them.

Pure values (msgspec), the answer to `operation.ReadCounters`; nsmanager makes the API's statistics of them. What a kernel does
not count is left out.
"""

import msgspec

# As nstat(8) spells the columns of /proc/net/snmp, netstat and snmp6; of /proc/net/sockstat and sockstat6 `<line>.<column>`.
# Those of sockstat that speak of the whole device, whatever namespace asks (orphan, alloc, mem), are not among them.
NAMES = frozenset(
    (
        *(
            f"{version}{name}"
            for version in ("Ip", "Ip6")
            for name in ("InReceives", "InDelivers", "OutRequests", "InHdrErrors", "InAddrErrors", "InDiscards", "OutDiscards")
        ),
        *(f"{version}{name}" for version in ("Ip", "Ip6") for name in ("OutNoRoutes", "ReasmFails", "FragFails")),
        *(f"{version}{name}" for version in ("IpExt", "Ip6") for name in ("InOctets", "OutOctets", "InNoRoutes")),
        "IpForwDatagrams",
        "Ip6OutForwDatagrams",
        *(
            f"{version}{name}"
            for version in ("Icmp", "Icmp6")
            for name in ("InMsgs", "InErrors", "InDestUnreachs", "OutMsgs", "OutErrors", "OutDestUnreachs")
        ),
        *(
            f"{version}{name}"
            for version in ("Udp", "Udp6")
            for name in ("InDatagrams", "OutDatagrams", "NoPorts", "InErrors", "RcvbufErrors", "SndbufErrors")
        ),
        *(f"Tcp{name}" for name in ("ActiveOpens", "PassiveOpens", "AttemptFails", "EstabResets", "CurrEstab")),
        *(f"Tcp{name}" for name in ("InSegs", "OutSegs", "RetransSegs", "InErrs", "OutRsts")),
        *(f"TcpExt{name}" for name in ("ListenOverflows", "ListenDrops")),
        *(f"{kind}{version}.inuse" for kind in ("TCP", "UDP", "RAW") for version in ("", "6")),
        "TCP.tw",
        "sockets.used",
    )
)
# How many there are now, by version of IP: of no file.
CENSUS = tuple(
    f"{family}.{name}"
    for family in ("inet", "inet6")
    for name in ("addresses", "routes", *(f"neighbors.{state}" for state in ("reachable", "stale", "failed", "permanent")))
)


class Link(msgspec.Struct, frozen=True, array_like=True):
    """One line of /proc/net/dev. Drops are frames for which there was no room, or that nobody wanted."""

    name: str
    received_bytes: int
    received_packets: int
    received_errors: int
    received_drops: int
    sent_bytes: int
    sent_packets: int
    sent_errors: int
    sent_drops: int


class Conntrack(msgspec.Struct, frozen=True):
    """`limit` is the device's: a namespace cannot have one of its own."""

    entries: int
    limit: int


class Budget(msgspec.Struct, frozen=True):
    """New sessions that the table's budget dropped, each try: they came too fast, or there were too many."""

    too_fast: int
    too_many: int


class KernelCounters(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """`time_ns`: of the epoch, when read. `values` by NAMES and CENSUS. No `conntrack` or `budget` where there is none."""

    time_ns: int
    links: tuple[Link, ...]
    values: dict[str, int]
    conntrack: Conntrack | None = None
    budget: Budget | None = None
