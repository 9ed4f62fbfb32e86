"""What the running suite costs: its processes, and the memory that is theirs.

Called by `command` at the end, while everything is still there.
"""

from collections import defaultdict
from collections.abc import Sequence

from rich.table import Table

from crossns.cli.processes import Process

MIB = 2**20
_WHAT = {
    "etcd": "desired and observed state",
    "launcher": "the privileged process",
    "zygote": "what agents are forked from",
    "spare": "an agent that waits for a table",
    "agent": "one per route table",
    "nsmanager": "route tables, interfaces, routes",
    "proxy": "vServices",
    "haproxy": "carries the traffic",
    "gateway": "the one way in",
    "supervisor": "`crossns up`",
}


def table(processes: Sequence[Process]) -> Table:
    """A row for each kind of process, and the sum. Memory is PSS: what several share is divided among them."""
    kinds: defaultdict[str, list[int]] = defaultdict(list)
    for process in processes:
        kinds[process.name.partition(" ")[0]].append(process.pss_bytes or 0)
    result = Table(box=None, padding=(0, 2), show_footer=True)
    everything = [each for found in kinds.values() for each in found]
    result.add_column("process", "in all")
    result.add_column("number", str(len(everything)), justify="right")
    result.add_column("MiB each", justify="right")
    result.add_column("MiB", _mib(sum(everything)), justify="right")
    result.add_column("what it is for")
    for kind, found in kinds.items():
        each = _mib(sum(found) / len(found)) if len(found) > 1 else ""
        result.add_row(kind, str(len(found)), each, _mib(sum(found)), _WHAT.get(kind, ""))
    return result


def _mib(size_bytes: float) -> str:
    return f"{size_bytes / MIB:.1f}"
