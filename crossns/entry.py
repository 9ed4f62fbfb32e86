"""Rules and neighbours of a route table, as services and agents speak of them: what there is, and the operations on it.

Pure values, of the closed set that `operation` describes. Adding what is there and removing what is gone are successes.
"""

from typing import Literal

from crossns.message import Message

# The mark of what is ours: FRA_PROTOCOL of rules, NDA_PROTOCOL of neighbours. The same number as that of routes.
PROTOCOL = 0xC5


class Rule(Message, frozen=True):
    """A rule of policy routing. What is "" or 0 selects nothing; `kernel_table` is 0 unless one is looked up."""

    family: Literal["inet", "inet6"]
    priority: int
    source: str = ""
    destination: str = ""
    link: str = ""
    mark: int = 0
    mark_mask: int = 0
    action: Literal["lookup", "blackhole", "unreachable", "prohibit"] = "lookup"
    kernel_table: int = 0


class Neighbor(Message, frozen=True):
    """A static entry, or (`proxy`, without `mac`) an address that is answered for. `permanent` is false where somebody made of
    ours one that the kernel changes or forgets."""

    link: str
    address: str
    mac: str = ""
    proxy: bool = False
    permanent: bool = True


class PutRule(Message, frozen=True):
    """Add a rule with our mark. -> None"""

    rule: Rule


class RemoveRule(Message, frozen=True):
    """Remove a rule with our mark, and no other that selects more. -> None"""

    rule: Rule


class PutNeighbor(Message, frozen=True):
    """Add or replace an entry with our mark; what the kernel has learned by itself gives way. -> None"""

    neighbor: Neighbor


class RemoveNeighbor(Message, frozen=True):
    """Remove an entry with our mark. -> None"""

    neighbor: Neighbor


Operation = PutRule | RemoveRule | PutNeighbor | RemoveNeighbor
