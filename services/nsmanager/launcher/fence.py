"""The fence: for each service the newest token that any privileged process has accepted, device-wide.

Called by the sessions of launcher and agents, at every hello and before every change. Once one of them has accepted a newer
token, the older session can change nothing through any of them; a cluster id that was replaced never comes back.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from crossns import errors, operation
from services.nsmanager.launcher import records


class Accepted(msgspec.Struct, frozen=True):
    cluster_id: int
    revision: int
    retired: tuple[int, ...] = ()


class Fence:
    """`directory` is shared by all privileged processes of the device."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def accept(self, service: str, token: operation.Token) -> None:
        """Let the holder of `token` act for `service`, and nobody older; FENCED for one who is older."""
        with self._locked():
            known = self._read(service)
            if known is None:
                admitted = Accepted(token.cluster_id, token.revision)
            elif known.cluster_id != token.cluster_id and token.cluster_id not in known.retired:
                admitted = Accepted(token.cluster_id, token.revision, (*known.retired, known.cluster_id))
            elif known.cluster_id == token.cluster_id and known.revision <= token.revision:
                admitted = Accepted(token.cluster_id, token.revision, known.retired)
            else:
                raise _fenced(service)
            if admitted != known:
                records.write(self._directory / service, admitted)

    def check(self, service: str, token: operation.Token) -> None:
        """FENCED unless `token` is the newest accepted one."""
        known = self._read(service)
        if known is None or (known.cluster_id, known.revision) != (token.cluster_id, token.revision):
            raise _fenced(service)

    def _read(self, service: str) -> Accepted | None:
        return records.read(self._directory / service, Accepted)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # Held for one read and one write of a small file in memory.
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def _fenced(service: str) -> errors.FailedPrecondition:
    message = f"a newer process acts for {service} by now: this one has to stop"
    return errors.FailedPrecondition("FENCED", message, service=service)
