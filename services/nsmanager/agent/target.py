"""Other tables' namespaces, as places for links: found by their incarnation, entered only by a socket made there.

Called by `links` and `move`. The agent itself never leaves its namespace: a thread goes, makes the socket and ends.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from crossns import errors, netns
from services.nsmanager.agent.rtnl import Attributes, Rtnl

DEFAULT = "default"


class Place:
    """A table's namespace for the time of one operation; the agent's own where `fd` is None."""

    def __init__(self, table: str, own: Rtnl, fd: int | None) -> None:
        self.table = table
        self._fd = fd
        self.rtnl = own if fd is None else netns.inside(fd, lambda: Rtnl(own.tally))

    @property
    def is_own(self) -> bool:
        return self._fd is None

    @property
    def attributes(self) -> Attributes:
        """What sends a link there."""
        return [] if self._fd is None else [("IFLA_NET_NS_FD", self._fd)]

    @staticmethod
    @contextmanager
    def from_there() -> Iterator[Attributes]:
        """What sends a link from there to the agent's own namespace."""
        fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield [("IFLA_NET_NS_FD", fd)]
        finally:
            os.close(fd)


@dataclass(frozen=True, slots=True)
class Tables:
    """`own` is this agent's table, `default` a descriptor of the namespace that the device booted in."""

    own: str
    default: int
    incarnations: Path

    @contextmanager
    def open(self, table: str, own: Rtnl) -> Iterator[Place]:
        """The place of `table`, "" for the agent's own; ROUTE_TABLE_ABSENT where there is none."""
        if table in {"", self.own}:
            yield Place(self.own, own, None)
            return
        fd = os.dup(self.default) if table == DEFAULT else self._incarnation(table)
        try:
            place = Place(table, own, fd)
            try:
                yield place
            finally:
                place.rtnl.close()
        finally:
            os.close(fd)

    def _incarnation(self, table: str) -> int:
        for name in os.listdir(self.incarnations):
            path = self.incarnations / name
            if name.rpartition(".")[0] == table and netns.is_namespace(path):
                return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        raise errors.AgentUnavailable("ROUTE_TABLE_ABSENT", f"{table} has no namespace (yet)", table=table)
