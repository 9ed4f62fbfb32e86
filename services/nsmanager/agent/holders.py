"""What the processes of the device hold in other network namespaces than their own: sockets, tun devices, threads.

Called by `survey`, which may look into every process. What cannot be seen of a process is told with its name, never passed over.
"""

import errno
import os
import socket
import time
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from crossns import names, proof
from crossns.layout import Layout
from services.nsmanager.agent import descriptors
from services.nsmanager.agent.processes import Process

# As what an open namespace shows: of itself, or the place where it is, or was ("/"), mounted.
_NAMED_AS = ("net:[", "/run/", "/var/run/")
_OWN = Path("/proc/self/ns/net")
# So many things of one namespace are told of a process.
_TOLD_MAX = 3
# What is in flight on a device that is well has arrived by then.
_FLIGHT_S = 0.1
# It was closed, or its process ended, meanwhile.
_GONE = frozenset((errno.ENOENT, errno.ESRCH, errno.EBADF))
_DENIED = "may not be looked into: the launcher needs CAP_SYS_PTRACE and CAP_NET_ADMIN"


@dataclass(slots=True)
class Held:
    """`things`: pid -> inode of a namespace -> what is held there; `namespaces`: open descriptors of those that were found by
    what is held, with the process; `services`: pid -> the service of crossns that it is; `flights`: where descriptors wait to be
    received, by process."""

    things: dict[int, dict[int, list[str]]] = field(default_factory=dict)
    namespaces: dict[int, tuple[int, int]] = field(default_factory=dict)
    services: dict[int, str] = field(default_factory=dict)
    flights: dict[int, tuple[descriptors.Files, str]] = field(default_factory=dict)
    unseen: dict[int, proof.Unseen] = field(default_factory=dict)


def look(found: Collection[Process], own: Collection[int], known: Collection[int], layout: Layout) -> Held:
    """`own`: pids of which only the namespaces matter that they keep; `known`: namespaces that need not be kept open."""
    held = Held()
    for each in found:
        _Look(each, held, known, layout).through(whole=each.pid not in own)
    if held.flights:
        time.sleep(_FLIGHT_S)
    for each in found:
        if each.pid in held.flights:
            _Look(each, held, known, layout).see_flight(*held.flights[each.pid])
    return held


def holder(process: Process, held: Held) -> proof.Holder | None:
    """What of `held` is the process's in other namespaces than its own; None where nothing is."""
    things = {inode: tuple(words) for inode, words in held.things.get(process.pid, {}).items()}
    if not things:
        return None
    service = held.services.get(process.pid, "")
    return proof.Holder(pid=process.pid, name=process.name, namespace=process.namespace, things=things, service=service)


class _Look:
    """At one process."""

    def __init__(self, process: Process, held: Held, known: Collection[int], layout: Layout) -> None:
        self._process = process
        self._held = held
        self._known = known
        self._things: defaultdict[int, list[str]] = defaultdict(list)
        self._serves_at = _serves_at(process, layout)

    def through(self, *, whole: bool) -> None:
        # Threads mostly share one file table.
        seen: set[tuple[str, str]] = set()
        for thread in self._process.threads:
            if whole and thread.namespace not in {0, self._process.namespace}:
                self._things[thread.namespace].append(f"thread {thread.id}")
            files = descriptors.Files(self._process.pid, thread)
            try:
                for number, target in files.listed():
                    if (number, target) not in seen:
                        seen.add((number, target))
                        self._see(files, number, target, whole=whole)
            except OSError as error:
                self._miss("files", error)
            finally:
                files.close()
        if self._things:
            self._held.things[self._process.pid] = self._things

    def _see(self, files: descriptors.Files, number: str, target: str, *, whole: bool) -> None:
        try:
            if target == "/" or target.startswith(_NAMED_AS):
                self._see_namespace(files.path(number))
            if not whole:
                return
            if target.startswith("socket:["):
                self._see_socket(files, number)
            elif target.startswith("/") and (device := files.tun(number)) is not None:
                self._see_tun(files.taken(number), device)
        except OSError as error:
            self._miss(f"descriptor {number} ({target})", error)

    def _see_namespace(self, path: Path) -> None:
        seen = path.stat()
        # Those of other kinds are in the same file system, and told apart where they are looked at.
        if seen.st_dev == _OWN.stat().st_dev and not self._is_known(seen.st_ino):
            self._held.namespaces[seen.st_ino] = os.open(path, os.O_RDONLY | os.O_CLOEXEC), self._process.pid

    def see_flight(self, files: descriptors.Files, number: str) -> None:
        """Nobody but the receiver can say what they are."""
        try:
            if waiting := files.in_flight(number):
                self._note(f"descriptor {number}: {waiting} more wait in this unix socket to be received")
        except OSError as error:
            self._miss(f"descriptor {number}", error)

    def _see_socket(self, files: descriptors.Files, number: str) -> None:
        with descriptors.opened(files.taken(number)) as made:
            if made.family == socket.AF_UNIX and files.in_flight(number):
                self._held.flights.setdefault(self._process.pid, (files, number))
            if not descriptors.is_of_network(made):
                if self._serves_at and descriptors.unix_name(made) in self._serves_at:
                    self._held.services[self._process.pid] = self._serves_at[descriptors.unix_name(made)]
                return
            inode = self._found(descriptors.namespace_of(made))
            if self._is_elsewhere(inode):
                self._things[inode].append(descriptors.words(made))

    def _see_tun(self, fd: int, device: str) -> None:
        try:
            inode = self._found(descriptors.namespace_of_tun(fd))
        finally:
            os.close(fd)
        if self._is_elsewhere(inode):
            self._things[inode].append(f"tun {device}" if device else "a tun without a device")

    def _found(self, namespace: int) -> int:
        """The inode of an open namespace, which is kept open only if nothing else shows it."""
        inode = os.fstat(namespace).st_ino
        if self._is_known(inode):
            os.close(namespace)
        else:
            self._held.namespaces[inode] = namespace, self._process.pid
        return inode

    def _is_known(self, inode: int) -> bool:
        return inode in self._known or inode in self._held.namespaces

    def _is_elsewhere(self, inode: int) -> bool:
        return inode != self._process.namespace and len(self._things.get(inode, ())) < _TOLD_MAX

    def _miss(self, what: str, error: OSError) -> None:
        if error.errno in _GONE:
            return
        self._note(_DENIED if isinstance(error, PermissionError) else f"{what}: {error.strerror}")

    def _note(self, why: str) -> None:
        self._held.unseen.setdefault(self._process.pid, proof.Unseen(pid=self._process.pid, name=self._process.name, why=why))


def _serves_at(process: Process, layout: Layout) -> dict[str, str]:
    """Names under which a service's listening socket is bound (`rpc.SocketFile`), in a directory that is the service's alone."""
    name = layout.process_of(process.uid)
    if name is None:
        return {}
    path = layout.service_socket(name) if name in names.SERVICES else layout.gateway_socket
    return {str(path.with_name(f".{process.pid}.{path.name}")): name}
