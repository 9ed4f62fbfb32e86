"""The etcd that the suite starts itself: where it lives and the command that runs it. Imports no gRPC.

Called by the supervisor, the systemd unit and the compose file's writer, and the tests. It listens on unix sockets only, in its
working directory, which etcd 3.4 needs: it takes no path in a unix URL. Who may open the socket is the directory's group.
"""

import os
import uuid
from pathlib import Path

from crossns.layout import Layout

_CLIENT_URL = "unix://client:0"
_PEER_URL = "unix://peer:0"
# Exit status when another etcd runs there already (EX_TEMPFAIL).
ALREADY_RUNNING = 75
# etcd does not take over a socket file that a killed one left behind, so they are removed; under a lock, lest a second etcd take
# them from a running one. The umask opens the socket to the group.
_PREPARED = 'umask 007; rm -f client:0 peer:0; exec "$0" "$@"'

# Which any etcd that serves the suite needs, or is the better for.
LIMITS = (
    # A resource is written in one transaction with its claims and references (architecture, section 2).
    "--max-txn-ops=2048",
    "--auto-compaction-mode=periodic",
    "--auto-compaction-retention=1h",
    # A hundred times what a large device needs; it bounds the history of one hour as well.
    "--quota-backend-bytes=536870912",
    # The default of 3.4 keeps 100,000 log entries in memory.
    "--snapshot-count=10000",
    "--logger=zap",
    "--log-level=warn",
    "--log-outputs=stderr",
)

# A single member elects itself after up to this time; the defaults, made for networks, cost a start more than a second. The ticks
# go on for ever, so there are no more of them than that needs.
_ALONE = ("--heartbeat-interval=40", "--election-timeout=200")


def data_dir(layout: Layout) -> Path:
    return layout.state / "etcd"


def prepare(layout: Layout) -> None:
    """Make its directories, as root: data for its uid alone, sockets for the store's group. Idempotent."""
    uid = layout.uid("etcd")
    for path, gid, mode in ((data_dir(layout), uid, 0o700), (layout.etcd_dir, layout.store_gid, 0o2750)):
        path.mkdir(parents=True, exist_ok=True)
        os.chown(path, uid, gid)
        path.chmod(mode)


def argv(layout: Layout) -> tuple[str, ...]:
    """The command, to be run in `layout.etcd_dir`, under etcd's uid where there is one.

    The token counts only where the data directory is new: it then gives the cluster an id that no other ever had, by which the
    device tells that fencing tokens of before are void.
    """
    lock = ("flock", "--nonblock", "--no-fork", "--conflict-exit-code", str(ALREADY_RUNNING), ".")
    listen = (
        f"--listen-client-urls={_CLIENT_URL}",
        f"--advertise-client-urls={_CLIENT_URL}",
        f"--listen-peer-urls={_PEER_URL}",
        f"--initial-advertise-peer-urls={_PEER_URL}",
        f"--initial-cluster=default={_PEER_URL}",
        f"--initial-cluster-token={uuid.uuid4().hex}",
    )
    return (*lock, "sh", "-c", _PREPARED, "etcd", f"--data-dir={data_dir(layout)}", *listen, *_ALONE, *LIMITS)
