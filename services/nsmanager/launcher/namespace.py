"""Namespaces as mounts: each of ours twice, for operators and as the record that outlives every process.

Called by the launcher alone. `incarnations/<table>.<cookie>` is made first and removed last, so whatever a crash leaves is
found by listing; the two moments in which a plain file stands without its mount are covered by an intent.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from crossns import errors, netns
from crossns.layout import Layout
from services.nsmanager.launcher import records

# The table of the namespace that the launcher was started in.
DEFAULT = "default"
# A missing VIP never stops an engine: it may bind before the address is there.
_SYSCTLS = ("/proc/sys/net/ipv4/ip_nonlocal_bind", "/proc/sys/net/ipv6/ip_nonlocal_bind")


class Intent(msgspec.Struct, frozen=True):
    """Files that are being made for a mount, or removed after one."""

    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Incarnation:
    """A table's living namespace. `path` is its mount for engines and agents."""

    table: str
    cookie: int
    path: Path


@dataclass(frozen=True, slots=True)
class Sight:
    """What stands under a table's name in `layout.netns`."""

    attached: bool
    occupied: bool


class Namespaces:
    """Raises PermanentError FOREIGN_OBJECT where something that is not ours stands in the way; it is left alone."""

    def __init__(self, layout: Layout) -> None:
        self._names = layout.netns
        self._incarnations = layout.incarnations
        self._intent = layout.launcher_dir / "intent"
        # By table; nobody else makes any. A mount that somebody took off is noticed when it is asked for.
        self._made: dict[str, Incarnation] = {}

    def recover(self) -> None:
        """Finish what a crash interrupted; then every entry must be a namespace, or the mounts of an earlier life are hidden."""
        self._settle()
        for path in self._incarnations.iterdir():
            if not netns.is_namespace(path):
                raise errors.PermanentError("FOREIGN_OBJECT", _HIDDEN.format(path=path), path=path)
            if (found := _incarnation(path)) is not None:
                self._made[found.table] = found

    def show_default(self) -> None:
        """Mount the launcher's own namespace beside the others: engines enter it by its name, as they do any table."""
        path = self._incarnations / f"{DEFAULT}.{netns.cookie()}"
        if not netns.is_namespace(path):
            with self._intending(path):
                _make_file(path)
                netns.bind_here(path)

    def all(self) -> list[Incarnation]:
        """By table, without `default`, which was not made here."""
        return [found for table in sorted(self._made) if (found := self.find(table)) is not None]

    def find(self, table: str) -> Incarnation | None:
        """Costs the same however many there are."""
        made = self._made.get(table)
        return made if made is not None and netns.is_namespace(made.path) else None

    def sight(self, table: str, incarnation: Incarnation | None) -> Sight:
        path = self._names / table
        attached = incarnation is not None and netns.is_same(path, incarnation.path)
        return Sight(attached, occupied=not attached and os.path.lexists(path))

    def create(self, table: str) -> Incarnation:
        """The table's namespace with both mounts, made unless it is there: `lo` up, nothing else in it."""
        incarnation = self.find(table)
        self._check_free(table, incarnation)
        incarnation = incarnation or netns.inside_new(lambda: self._place(table))
        self._made[table] = incarnation
        self.attach(incarnation)
        return incarnation

    def attach(self, incarnation: Incarnation) -> None:
        """Show it under its name again."""
        self._check_free(incarnation.table, incarnation)
        path = self._names / incarnation.table
        if not netns.is_same(path, incarnation.path):
            with self._intending(path):
                _make_file(path)
                netns.mount(incarnation.path, path, netns.MS_BIND)

    def destroy(self, incarnation: Incarnation) -> None:
        """Drop both mounts, the record last. The namespace ends with its last user."""
        name = self._names / incarnation.table
        paths = [name, incarnation.path] if netns.is_same(name, incarnation.path) else [incarnation.path]
        with self._intending(*paths):
            for path in paths:
                # Somebody may have mounted it once more.
                while netns.is_namespace(path):
                    netns.umount(path)
        self._made.pop(incarnation.table, None)

    def _check_free(self, table: str, incarnation: Incarnation | None) -> None:
        if self.sight(table, incarnation).occupied:
            path = self._names / table
            message = f"{path} is there and not ours: remove it with `ip netns delete {table}`, or choose another name"
            raise errors.PermanentError("FOREIGN_OBJECT", message, path=path)

    def _place(self, table: str) -> Incarnation:
        # In the new namespace's only thread. Up to the mount a crash ends the namespace; from then on the mount is its record.
        cookie = netns.cookie()
        path = self._incarnations / f"{table}.{cookie}"
        for sysctl in _SYSCTLS:
            Path(sysctl).write_text("1", encoding="ascii")
        netns.raise_loopback()
        with self._intending(path):
            _make_file(path)
            netns.bind_here(path)
            # No peer of what stands under the table's name: what somebody mounts there must not stand here, too.
            netns.mount(None, path, netns.MS_PRIVATE)
        return Incarnation(table, cookie, path)

    @contextlib.contextmanager
    def _intending(self, *paths: Path) -> Iterator[None]:
        records.write(self._intent, Intent(tuple(str(path) for path in paths)))
        try:
            yield
        finally:
            self._settle()

    def _settle(self) -> None:
        """Of the intended files only those stay on which a namespace is mounted."""
        intent = records.read(self._intent, Intent)
        for path in map(Path, intent.paths if intent else ()):
            if not netns.is_namespace(path):
                path.unlink(missing_ok=True)
        records.remove(self._intent)


_HIDDEN = (
    "{path} is a plain file where a namespace should be mounted: the launcher's mounts are hidden from this mount namespace. "
    "Start it where it was started before, or, when its tables are gone for good, remove the file"
)


def _incarnation(path: Path) -> Incarnation | None:
    """What an entry is by its name; None for `default`, which is shown there and not made."""
    table, _, number = path.name.rpartition(".")
    return Incarnation(table, int(number), path) if table != DEFAULT and number.isdecimal() else None


def _make_file(path: Path) -> None:
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
