"""How vServices stand, as far as one route table is concerned: what nsmanager tells that table's agent.

Pure values, of the closed set that `operation` describes. The agent holds them for whatever works in the table; its answer is the
acknowledgement, and what it holds is compared with what it should: so either side's restart is followed by what is missing.
"""

from crossns.message import Message

# vService and part.
Key = tuple[str, str]


class Standing(Message, frozen=True):
    """One frontend (`dmz`) or member (`main/a1`) in the table. `state` is a name of State in status.proto, `reason` one of
    errors.proto, or "OK"; both as the vService's owner says."""

    vservice: str
    part: str
    address: str
    port: int
    state: str
    reason: str = ""

    @property
    def key(self) -> Key:
        return self.vservice, self.part


class PutStandings(Message, frozen=True):
    """These are as given, and those of `gone` are no more; refused by the agent of any table but `table`. -> None"""

    table: str
    standings: tuple[Standing, ...]
    gone: tuple[Key, ...] = ()


class ReadStandings(Message, frozen=True):
    """-> Standings"""


class Standings(Message, frozen=True):
    """All that the agent holds, by key."""

    items: tuple[Standing, ...] = ()


Operation = PutStandings | ReadStandings
