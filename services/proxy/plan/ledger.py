"""Adds up what HAProxy's workers count, each of which begins at 0: the totals outlive reloads. Does no I/O.

Kept by `driver.counting`, one for each run of HAProxy. Invariant: totals only grow; what a worker said once is never added again,
and what it said of a vService that was deleted is never added to another one of the same name.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import NamedTuple

_FRONTEND, _BACKEND = "0", "1"


class Subject(NamedTuple):
    """What is counted: a section of HAProxy's file, or a `part` of a pool; see `named` and `pointing`."""

    section: str
    part: str = ""


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


def named(section: str, member: str) -> Subject:
    """A member that has a line of its own."""
    return Subject(section, member)


def pointing(section: str, table: str, socket: str) -> Subject:
    """A member that has a spare line, which has another name: by the id of its table and its `address:port`."""
    return Subject(section, f"{table}/{socket}")


def parse(text: str) -> Iterator[Row]:
    """The rows of any number of answers to `show stat`, each with a header of its own; other lines are passed over."""
    columns: dict[str, int] = {}
    for line in text.splitlines():
        if line.startswith("# pxname,"):
            columns = {name: place for place, name in enumerate(line.removeprefix("# ").split(","))}
        elif line.startswith("vs."):
            cells = line.split(",")
            if len(cells) >= len(columns) > 0:
                yield _row(cells, columns)


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

    def take(self, worker: int, row: Row) -> bool:
        """Whether what the row says is of a vService that is still the same."""
        if worker in self._same and _vservice(row.section) not in self._same[worker]:
            return False
        said = self._said.setdefault(worker, {})
        before = said.get((row.section, row.name), (0,) * len(row.growing))
        # A connection that a member did not accept is first counted for it, then taken away.
        most = said[row.section, row.name] = tuple(map(max, before, row.growing))
        if most != before:
            totals = self._totals.setdefault(row.section, {})
            total = totals.get(subject(row), (0,) * len(most))
            totals[subject(row)] = tuple(so_far + now - was for so_far, now, was in zip(total, most, before, strict=True))
        return True

    def totals(self, section: str) -> Mapping[Subject, tuple[int, ...]]:
        """What grows, in the order of Counts."""
        return self._totals.get(section, {})

    def keep(self, vservices: Collection[str], ending: Iterable[int]) -> None:
        """The current worker has `vservices` (ids); what the workers `ending` know of others is of deleted ones."""
        present = frozenset(vservices)
        self._totals = {section: totals for section, totals in self._totals.items() if _vservice(section) in present}
        for worker in ending:
            self._same[worker] = self._same.get(worker, present) & present

    def forget(self, living: Collection[int]) -> None:
        """Workers that have ended say nothing more."""
        for known in (self._said, self._same):
            for worker in known.keys() - living:
                known.pop(worker)


def subject(row: Row) -> Subject:
    slot, _, namespace = row.name.partition(".")
    if slot.startswith("_"):
        return pointing(row.section, namespace.partition(".")[0], row.socket)
    return named(row.section, slot)


def _row(cells: list[str], columns: dict[str, int]) -> Row:
    def number(column: str) -> int:
        return int(cells[columns[column]] or 0)

    kind = cells[columns["type"]]
    is_server = kind not in (_FRONTEND, _BACKEND)
    moved, retried = number("wredis"), number("wretr")
    growing = (
        # HAProxy counts it for each member that was tried; here it counts where it stayed.
        number("stot") - moved * is_server,
        number("bin"),
        number("bout"),
        number("dcon") + number("dses"),
        number("ereq"),
        number("req_tot") * (kind == _FRONTEND),
        number("econ") + (moved + retried) * is_server,
        moved + retried,
        *(number(f"hrsp_{hundreds}xx") for hundreds in range(1, 6)),
    )
    name = cells[columns["svname"]] if is_server else ""
    return Row(cells[columns["pxname"]], name, cells[columns["addr"]], number("scur"), number("qcur"), growing)


def _vservice(section: str) -> str:
    """The id in `vs.<id>.fe.<frontend>` or `vs.<id>.po.<pool>`."""
    return section.split(".", 2)[1]
