"""The SSH session that a command is run in, so that a change which would cut it can be refused.

Called by `interface move`. sshd tells it in SSH_CONNECTION (sshd(8)); sudo takes that away, but the shell above it has it still.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from crossns.v1 import impact_pb2

_VARIABLE = "SSH_CONNECTION"


def find() -> impact_pb2.OwnSession | None:
    """Of this process, else of the nearest above it; None outside of SSH."""
    return next(filter(None, map(of, _environs())), None)


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
