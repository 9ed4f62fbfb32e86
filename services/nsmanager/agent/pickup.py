"""Whether connection tracking takes up TCP that it did not see begin: a sysctl that each namespace has for itself.

Called by the agent's `budgets`. Taken up, each packet of a flood of ACKs would be an entry; and a session that is older than the
tracking would have to be counted, and be cut where there are too many.
"""

from pathlib import Path

# Documentation/networking/nf_conntrack-sysctl.rst
_PATH = Path("/proc/sys/net/netfilter/nf_conntrack_tcp_loose")
REFUSED = "0"
_BY_DEFAULT = "1"


def read() -> str:
    """As the kernel begins with it, where connection tracking is not loaded yet."""
    try:
        return _PATH.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return _BY_DEFAULT


def write(value: str) -> bool:
    """Whether it was another one."""
    if read() == value:
        return False
    _PATH.write_text(value, encoding="ascii")
    return True
