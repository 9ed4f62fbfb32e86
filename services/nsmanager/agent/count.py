"""What the kernel has counted in the namespace, out of /proc/net: text to numbers, and nothing else.

Called by the agent for `ReadCounters`. The parsers are pure; what they do not know they pass over, since every kernel adds
columns. /proc/net is that of the process's first thread, which is in the namespace.
"""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from crossns import counter, proof

_NET = Path("/proc/net")
_CONNTRACK = Path("/proc/sys/net/netfilter")
# Two lines of heads stand above the links in /proc/net/dev, and a transmitted half begins behind eight columns.
_DEV_HEADS, _DEV_HALF = 2, 8


def counters(census: Mapping[str, int]) -> counter.KernelCounters:
    """With what `census` has counted."""
    values = dict(columns(_text("snmp") + _text("netstat")))
    values |= lines(_text("snmp6"))
    values |= sockets(_text("sockstat") + _text("sockstat6"))
    wanted = {name: value for name, value in values.items() if name in counter.NAMES} | dict(census)
    return counter.KernelCounters(time_ns=time.time_ns(), links=tuple(links(_text("dev"))), values=wanted, conntrack=conntrack())


def _text(name: str) -> str:
    """Nothing for a file that this kernel does not have, such as those of IPv6."""
    try:
        return (_NET / name).read_text(encoding="ascii")
    except FileNotFoundError:
        return ""


def links(text: str) -> Iterator[counter.Link]:
    """/proc/net/dev, without throwaway links. A name holds neither colon nor blank (dev_valid_name in net/core/dev.c)."""
    for line in text.splitlines()[_DEV_HEADS:]:
        name, _, columns = line.partition(":")
        if name.strip().startswith(proof.PROVISIONAL_PREFIX):
            continue
        numbers = [int(column) for column in columns.split()]
        received, sent = numbers[:4], numbers[_DEV_HALF : _DEV_HALF + 4]
        yield counter.Link(name.strip(), *received, *sent)


def columns(text: str) -> Iterator[tuple[str, int]]:
    """/proc/net/snmp and netstat: pairs of lines that begin with the same word, names above, numbers below."""
    rows = text.splitlines()
    for names, numbers in zip(rows[::2], rows[1::2], strict=True):
        head, *rest = names.split()
        for name, number in zip(rest, numbers.split()[1:], strict=True):
            yield f"{head[:-1]}{name}", int(number)


def lines(text: str) -> Iterator[tuple[str, int]]:
    """/proc/net/snmp6: a name and a number each."""
    for line in text.splitlines():
        name, number = line.split()
        yield name, int(number)


def sockets(text: str) -> Iterator[tuple[str, int]]:
    """/proc/net/sockstat and sockstat6: `TCP: inuse 5 orphan 0`."""
    for line in text.splitlines():
        head, *rest = line.split()
        for name, number in zip(rest[::2], rest[1::2], strict=True):
            yield f"{head[:-1]}.{name}", int(number)


def conntrack(directory: Path = _CONNTRACK) -> counter.Conntrack | None:
    try:
        entries, limit = ((directory / name).read_text(encoding="ascii") for name in ("nf_conntrack_count", "nf_conntrack_max"))
    except FileNotFoundError:
        return None
    return counter.Conntrack(entries=int(entries), limit=int(limit))
