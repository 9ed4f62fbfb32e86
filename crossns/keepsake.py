"""What others gave to links, as the kernel told it, so that it can be made again should the links lose it.

Pure values (msgspec): the answer to `Remember`, which `GiveBack` takes. A record is the netlink message that makes the thing, so
that none of its attributes has to be known to be kept. Only the indices of links in it may be others by then.
"""

from crossns.message import Message


class Record(Message, frozen=True):
    """`kind` is RTM_NEW*, `body` what follows its header. `links`: where in it the index of a link stands, and whose."""

    kind: int
    body: bytes
    links: tuple[tuple[int, str], ...] = ()


class Remember(Message, frozen=True):
    """Tell what others have on `links`, and what they would lose elsewhere with them. Reads only. -> Kept"""

    links: tuple[str, ...]


class Kept(Message, frozen=True):
    """In the order in which it can be made again."""

    records: tuple[Record, ...] = ()


class GiveBack(Message, frozen=True):
    """Make it again; what is there already stays. -> Refused"""

    records: tuple[Record, ...]


class Refusal(Message, frozen=True):
    """`number` counts the records from 0; `words` say what it is, and why it was not made."""

    number: int
    words: str


class Refused(Message, frozen=True):
    items: tuple[Refusal, ...] = ()


Operation = Remember | GiveBack
Result = Kept | Refused
