"""How many sessions may come into a route table, in its agent's words.

Pure values, of the closed set that `operation` describes.
"""

import msgspec

from crossns.message import Message


class Budget(msgspec.Struct, frozen=True):
    """`max_sessions` stand at a time; of new ones `burst` at once and `new_sessions_per_second` on. 0 is no limit."""

    max_sessions: int = 0
    new_sessions_per_second: int = 0
    burst: int = 0


class Seen(msgspec.Struct, frozen=True):
    """The nftables table of a budget, as it is in the namespace. `budget` None: somebody has changed it."""

    budget: Budget | None


class PutBudget(Message, frozen=True):
    """Have new sessions limited so; what stands is not touched, and counters go on. -> None"""

    budget: Budget


class RemoveBudget(Message, frozen=True):
    """-> None"""


Operation = PutBudget | RemoveBudget
