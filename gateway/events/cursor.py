"""How far a reader of events has come, and the token that says so to whoever comes back.

Pure. A token names a place in the history of one etcd cluster: all of a revision, and so many events behind it. It does not
depend on what the reader filters, and nothing is kept about it.
"""

import re
from dataclasses import dataclass

from crossns import errors

_TOKEN = re.compile(r"([0-9a-f]{1,16})\.([0-9a-f]{1,16})\.([0-9a-f]{1,8})")


@dataclass(frozen=True, slots=True)
class Cursor:
    """Everything up to `revision` is told, and of what comes behind it the first `told` events."""

    cluster_id: int
    revision: int
    told: int = 0

    @property
    def token(self) -> str:
        return f"{self.cluster_id:x}.{self.revision:x}.{self.told:x}"


def parse(token: str) -> Cursor:
    match = _TOKEN.fullmatch(token)
    if match is None:
        raise errors.InvalidSpec(
            "resume_token", "is none of this API: give the last event's as it was, or none to begin from now"
        )
    return Cursor(*(int(part, 16) for part in match.groups()))
