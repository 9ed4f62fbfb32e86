"""Adds up what HAProxy's workers count, each of which begins at 0: the totals outlive reloads. Does no I/O.

Kept by `driver.counting`, one for each run of HAProxy. Invariant: totals only grow; what a worker said once is never added again,
and what it said of a vService that was deleted is never added to another one of the same name. What no worker has any more is
forgotten.
"""

import operator
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields
from typing import NamedTuple

_FRONTEND, _BACKEND = "0", "1"
_ANSWERS = tuple(f"hrsp_{hundreds}xx" for hundreds in range(1, 6))
_COUNTED = ("stot", "bin", "bout", "dcon", "dses", "ereq", "req_tot", "econ", "wredis", "wretr", *_ANSWERS)
_NOTHING = frozenset({"", "0"})
# What grows, where nothing has.
_NEVER = (0,) * 13
# In `show stat`, `show backend` and `show servers conn`.
_LISTED = re.compile(
    r"^(vs\.[a-z0-9-]+\.(?:fe|po)\.[a-z0-9-]+)(?:,FRONTEND,.*|/(\S+) \d+/\d+ (\S+) (\d+) .*)?$",
    re.MULTILINE,
)


class Subject(NamedTuple):
    """What is counted: a section of HAProxy's file, or a `part` of a pool in the `table` (an id); see `named` and `pointing`."""

    section: str
    part: str = ""
    table: str = ""


@dataclass(frozen=True, slots=True)
class Counts:
    """Bytes are seen from the client. `connections` and `queued` are those of now, everything else only grows."""

    connections: int = 0
    queued: int = 0
    connections_total: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0
    denied: int = 0
    request_errors: int = 0
    requests: int = 0
    connect_errors: int = 0
    retries: int = 0
    informational: int = 0
    successful: int = 0
    redirection: int = 0
    client_error: int = 0
    server_error: int = 0

    def plus(self, other: "Counts") -> "Counts":
        return Counts(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(Counts)))


class Row(NamedTuple):
    """One line of `show stat`. `name` is the server's, "" for a section; `growing` are the counters, in the order of Counts."""

    section: str
    name: str
    socket: str
    connections: int
    queued: int
    growing: tuple[int, ...]


def named(section: str, table: str, member: str) -> Subject:
    """A member that has a line of its own. One of the same name in another table is another one."""
    return Subject(section, member, table)


def pointing(section: str, table: str, socket: str) -> Subject:
    """A member that has a spare line, which has another name: by its `address:port`."""
    return Subject(section, socket, table)


def parse(text: str) -> Iterator[Row]:
    """The rows of any number of answers to `show stat`, each with a header of its own; other lines are passed over."""
    columns: dict[str, int] = {}
    for line in text.splitlines():
        if line.startswith("# pxname,"):
            columns = {name: place for place, name in enumerate(line.removeprefix("# ").split(","))}
            counted = operator.itemgetter(*(columns[name] for name in _COUNTED))
        elif line.startswith("vs."):
            cells = line.split(",")
            if len(cells) >= len(columns) > 0:
                yield _row(cells, columns, is_used=not _NOTHING.issuperset(counted(cells)))


def listed(text: str) -> set[Subject]:
    """What a worker has, by its answers to `show backend`, `show stat` of frontends and `show servers conn`. A member is there by
    its line and by where that points, too: it may have been counted on a spare one before."""
    found: set[Subject] = set()
    for section, name, host, port in _LISTED.findall(text):
        if not name:
            found.add(Subject(section))
            continue
        slot, table = _line(name)
        found.add(pointing(section, table, f"[{host}]:{port}" if ":" in host else f"{host}:{port}"))
        if not slot.startswith("_"):
            found.add(named(section, table, slot))
    return found


class Ledger:
    """`since`: the second of the epoch from which on everything is counted."""

    def __init__(self, since: float) -> None:
        self.since = since
        # By section and part.
        self._totals: dict[str, dict[Subject, tuple[int, ...]]] = {}
        # What each worker has said at most, by section and name.
        self._said: dict[int, dict[tuple[str, str], tuple[int, ...]]] = {}
        # The ids of the vServices that are the same ones in a worker as now; a worker that is not here has no other ones.
        self._same: dict[int, frozenset[str]] = {}
        # What the current worker has or had; and by worker that ends, what it may count still and the current one has not.
        self._present: set[Subject] = set()
        self._gone: dict[int, frozenset[Subject]] = {}

    def take(self, worker: int, row: Row) -> bool:
        """Whether what the row says is of a vService that is still the same."""
        if worker in self._same and _vservice(row.section) not in self._same[worker]:
            return False
        if not any(row.growing):
            # As of most rows, where there are many.
            return True
        said = self._said.setdefault(worker, {})
        before = said.get((row.section, row.name), (0,) * len(row.growing))
        # A connection that a member did not accept is first counted for it, then taken away.
        most = said[row.section, row.name] = tuple(map(max, before, row.growing))
        if most != before:
            totals = self._totals.setdefault(row.section, {})
            total = totals.get(subject(row), (0,) * len(most))
            if worker not in self._gone:
                # It may have come without a reload.
                self._present.add(subject(row))
            totals[subject(row)] = tuple(so_far + now - was for so_far, now, was in zip(total, most, before, strict=True))
        return True

    def totals(self, section: str) -> Mapping[Subject, tuple[int, ...]]:
        """What grows, in the order of Counts."""
        return self._totals.get(section, {})

    def keep(self, present: AbstractSet[Subject], ending: Iterable[int]) -> None:
        """The current worker has `present`; what the workers `ending` know of other vServices is of deleted ones."""
        vservices = frozenset(_vservice(each.section) for each in present)
        left, self._present = self._present - present, set(present)
        for worker in ending:
            same = self._same[worker] = self._same.get(worker, vservices) & vservices
            gone = (self._gone.get(worker, frozenset()) | left) - present
            self._gone[worker] = frozenset(each for each in gone if _vservice(each.section) in same)
        self._drop()

    def forget(self, living: Collection[int]) -> None:
        """Workers that have ended say nothing more."""
        have_ended = self._gone.keys() - living
        for known in (self._said, self._same, self._gone):
            for worker in known.keys() - living:
                known.pop(worker)
        if have_ended:
            self._drop()

    def _drop(self) -> None:
        """The totals of what nobody has."""
        known = (self._present, *self._gone.values())
        for section, totals in tuple(self._totals.items()):
            for each in tuple(totals):
                if not any(each in subjects for subjects in known):
                    del totals[each]
            if not totals:
                del self._totals[section]


def subject(row: Row) -> Subject:
    if not row.name:
        return Subject(row.section)
    slot, table = _line(row.name)
    return pointing(row.section, table, row.socket) if slot.startswith("_") else named(row.section, table, slot)


def _line(name: str) -> tuple[str, str]:
    """Slot and table of `<member>.<table>.<cookie>` or `_<number>.<table>.<cookie>`: one that was made anew is the same table."""
    slot, _, namespace = name.partition(".")
    return slot, namespace.partition(".")[0]


def _row(cells: list[str], columns: dict[str, int], *, is_used: bool) -> Row:
    """`is_used`: whether anything was counted."""

    def number(column: str) -> int:
        return int(cells[columns[column]] or 0)

    kind = cells[columns["type"]]
    is_server = kind not in (_FRONTEND, _BACKEND)
    name = cells[columns["svname"]] if is_server else ""
    growing = _growing(number, kind, is_server=is_server) if is_used else _NEVER
    return Row(cells[columns["pxname"]], name, cells[columns["addr"]], number("scur"), number("qcur"), growing)


def _growing(number: Callable[[str], int], kind: str, *, is_server: bool) -> tuple[int, ...]:
    moved, retried = number("wredis"), number("wretr")
    return (
        # HAProxy counts it for each member that was tried; here it counts where it stayed.
        number("stot") - moved * is_server,
        number("bin"),
        number("bout"),
        number("dcon") + number("dses"),
        number("ereq"),
        number("req_tot") * (kind == _FRONTEND),
        number("econ") + (moved + retried) * is_server,
        moved + retried,
        *(number(column) for column in _ANSWERS),
    )


def _vservice(section: str) -> str:
    """The id in `vs.<id>.fe.<frontend>` or `vs.<id>.po.<pool>`."""
    return section.split(".", 2)[1]
