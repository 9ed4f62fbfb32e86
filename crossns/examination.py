"""All that hangs on some links of a namespace, whoever put it there: what an agent finds when a link is about to leave.

Pure values, the answer to `Examine`. A snapshot holds what is ours of a whole table; this holds everything of a few links.
"""

from crossns import kernel
from crossns.message import Message


class Examine(Message, frozen=True):
    """Look at what hangs on `links`, and for the session between `local` and `remote`, "" for none; where `forwarded`, count what
    is forwarded, too, which takes a while in a busy namespace. -> Examination"""

    links: tuple[str, ...]
    local: str = ""
    remote: str = ""
    forwarded: bool = False


class LookUp(Message, frozen=True):
    """Ask by which link the kernel would send to each of these addresses now. -> Ways"""

    destinations: tuple[str, ...]


class Ways(Message, frozen=True):
    """By destination the link's name, "" where no route leads there."""

    links: dict[str, str]


class FindObstacles(Message, frozen=True):
    """Would a link of that name, and these routes of ours (of which only the key counts), be refused for what somebody else has
    here? -> Obstacles"""

    link_name: str
    routes: tuple[kernel.Route, ...] = ()


class Obstacles(Message, frozen=True):
    """`is_name_taken`: by a link's name or altname; `routes`: those in whose place there is somebody else's, or the kernel's."""

    is_name_taken: bool = False
    routes: tuple[kernel.Route, ...] = ()


Operation = Examine | LookUp | FindObstacles


class Hop(Message, frozen=True):
    gateway: str = ""
    link: str = ""
    weight: int = 1


class Route(Message, frozen=True):
    """A route that leads out of one of the links, or would not be without their addresses. `kind` is a name of RTN_*, `protocol`
    is rtm_protocol. `stays`: the kernel keeps it with its next hops over other links, where it has such."""

    destination: str
    kernel_table: int
    metric: int
    kind: str
    protocol: int
    hops: tuple[Hop, ...]
    stays: bool = False


class Neighbor(Message, frozen=True):
    """`learned`: the kernel found it out by itself, and forgets it by itself."""

    link: str
    address: str
    mac: str = ""
    proxy: bool = False
    learned: bool = False
    protocol: int = 0


class Rule(Message, frozen=True):
    """A rule that names a link: where packets come from, or (`is_output`) go to."""

    family: str
    priority: int
    link: str
    is_output: bool
    protocol: int


class Examination(Message, frozen=True):
    """`sessions`: established TCP sessions of the namespace over addresses of the links; `carries_session`: whether the session
    that was asked for goes over one of them. `forwarded`: established sessions of others that are forwarded over one of them, as
    connection tracking knows them; there may be `more` than were looked at."""

    routes: tuple[Route, ...] = ()
    neighbors: tuple[Neighbor, ...] = ()
    rules: tuple[Rule, ...] = ()
    sessions: int = 0
    carries_session: bool = False
    forwarded: int = 0
    more: bool = False
