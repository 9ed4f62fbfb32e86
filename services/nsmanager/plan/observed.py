"""The values between driver and plan."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from crossns import operation


@dataclass(frozen=True, slots=True)
class Observed:
    """One route table as it is. `namespace` is None where there is none, `snapshot` also where nobody could look for a while.

    `marked`: every link of the device with a mark of ours outside this table, by mark, with the table it is in; `cards`: the
    unmarked links of `default`; `macs`: the MAC address and kind of each network card that carries, or carried, a mark.
    """

    namespace: operation.Namespace | None = None
    snapshot: operation.Snapshot | None = None
    boot_id: str = ""
    marked: Mapping[str, tuple[str, operation.Link]] = field(default_factory=dict)
    cards: tuple[operation.Link, ...] = ()
    macs: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def is_unseen(self) -> bool:
        """Whether there is a namespace and its agent does not stay long enough to be asked."""
        return self.namespace is not None and self.snapshot is None

    @property
    def links(self) -> Mapping[str, operation.Link]:
        """The table's links by name."""
        return {link.name: link for link in self.snapshot.links} if self.snapshot is not None else {}

    @property
    def own_links(self) -> Mapping[str, operation.Link]:
        """The table's links with a mark of ours, by mark."""
        return {link.mark: link for link in self.snapshot.links if link.mark} if self.snapshot is not None else {}


@dataclass(frozen=True, slots=True)
class At:
    """An operation for the agent of `table`."""

    resource: str
    table: str
    operation: operation.AgentOperation


@dataclass(frozen=True, slots=True)
class Privileged:
    """An operation for the launcher."""

    resource: str
    operation: operation.LauncherOperation
