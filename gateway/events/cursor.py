"""How far a reader of events has come, and the token that says so to whoever comes back.

Pure. A token names a place in the history of one etcd cluster (all of a revision, and so many events behind it), and one in what
each service tells by itself. It does not depend on what the reader filters, and nothing is kept about it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from crossns import errors

_TOKEN = re.compile(r"([0-9a-f]{1,16})\.([0-9a-f]{1,16})\.([0-9a-f]{1,8})")
# What a service's own token is made of is its affair.
_TOLD = re.compile(r"([a-z]{1,32}):([0-9a-f.]{1,64})")


@dataclass(frozen=True, slots=True)
class Cursor:
    """Everything up to `revision` is told, and of what comes behind it the first `told` events."""

    cluster_id: int
    revision: int
    told: int = 0

    @property
    def token(self) -> str:
        return f"{self.cluster_id:x}.{self.revision:x}.{self.told:x}"


@dataclass(frozen=True, slots=True)
class Place:
    """In the whole stream. `told`: service -> its own token."""

    stored: Cursor
    told: Mapping[str, str] = field(default_factory=dict)

    @property
    def token(self) -> str:
        return "~".join((self.stored.token, *(f"{service}:{token}" for service, token in sorted(self.told.items()) if token)))


def parse(token: str) -> Place:
    stored, *told = token.split("~")
    match = _TOKEN.fullmatch(stored)
    parts = [_TOLD.fullmatch(each) for each in told]
    if match is None or None in parts:
        raise errors.InvalidSpec(
            "resume_token", "is none of this API: give the last event's as it was, or none to begin from now"
        )
    own = {part[1]: part[2] for part in parts if part is not None}
    return Place(Cursor(*(int(part, 16) for part in match.groups())), own)
