"""The session that a command is run in, so that a change which would cut it can be refused.

Called by `interface move` and `table delete --dry-run`. On the device itself it is that of SSH: sshd tells it in SSH_CONNECTION
(sshd(8)); sudo takes that away, but the shell above it has it still. From elsewhere it is the connection to the gateway.
"""

import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

from crossns.cli.client import Connection
from crossns.v1 import impact_pb2

_VARIABLE = "SSH_CONNECTION"


def find(connection: Connection) -> impact_pb2.OwnSession | None:
    """That of this process, else of the nearest above it; None where there is none."""
    if not connection.is_local:
        return to(connection.target)
    return next(filter(None, map(of, _environs())), None)


def to(target: str) -> impact_pb2.OwnSession | None:
    """The connection to a gateway at `HOST:PORT`, with the address by which this machine reaches it. Nothing is sent."""
    host, _, port = target.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)
        family, kind, _, _, address = found[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)
            return impact_pb2.OwnSession(local_address=str(address[0]), remote_address=str(probe.getsockname()[0]))
    except (OSError, ValueError, IndexError):
        return None


def of(environ: Mapping[str, str]) -> impact_pb2.OwnSession | None:
    """SSH_CONNECTION is client address, client port, server address, server port. A scope (`fe80::1%eth0`) is part of neither."""
    words = environ.get(_VARIABLE, "").split()
    if len(words) != 4:
        return None
    remote, _, local, _ = (word.partition("%")[0] for word in words)
    return impact_pb2.OwnSession(local_address=local, remote_address=remote)


def _environs() -> Iterator[Mapping[str, str]]:
    yield os.environ
    pid = os.getppid()
    while pid > 1:
        directory = Path("/proc") / str(pid)
        try:
            pairs = (directory / "environ").read_bytes().split(b"\0")
            status = (directory / "stat").read_text(errors="replace")
        except OSError:
            # Somebody else's, or gone.
            return
        yield {key: value for key, _, value in (pair.decode(errors="replace").partition("=") for pair in pairs)}
        # The name before it may hold anything, a parenthesis too (proc_pid_stat(5)).
        pid = int(status.rpartition(")")[2].split()[1])
