"""How isolation is proven, as nsmanager, launcher and agents speak of it: what there is, and a trial that leaves nothing.

Pure values, of the closed set that `operation` describes. A trial goes through its four steps in all tables at once: each table
comes to hold the same, marked with a number of its own, and is then looked at. So many tables cost as often as one, not as pairs.
"""

import msgspec

from crossns.message import Message

# Of links: those that begin with it are thrown away with the operation or trial that made them. No resource can have such a name.
PROVISIONAL_PREFIX = "~"
# Rules and routes of a trial, by FRA_PROTOCOL and rtm_protocol.
TRIAL_PROTOCOL = 0xC7


class End(msgspec.Struct, frozen=True, array_like=True):
    """A link anywhere on the device; 0 is the routing of its namespace, into which tunnels lead. `namespace` is the inode, 0 for
    one that is not found."""

    namespace: int
    index: int


class Link(Message, frozen=True):
    """`master`: the link of the same namespace that it is a port of. `lower`: the other end of a veth, what a macvlan sits on,
    the namespace in which a tunnel's packets leave where that is another one."""

    index: int
    name: str
    kind: str = ""
    marks: tuple[str, ...] = ()
    master: int = 0
    lower: End | None = None
    vlan_id: int = 0


class Namespace(Message, frozen=True):
    """`tables`: which route tables it is, one at most where all is well; `place` says where it was found; `dark`: why its links
    are not known, "" where they are; `forwards`: whether packets go from one of its links to another one."""

    inode: int
    tables: tuple[str, ...]
    place: str
    links: tuple[Link, ...]
    forwards: bool = False
    dark: str = ""


class Holder(Message, frozen=True):
    """A process that is in one namespace and holds sockets, tun devices or threads in others.

    `things`: namespace -> what they are, for people; `service`: which of crossns it is, whose agents made them; "" for others.
    """

    pid: int
    name: str
    namespace: int
    things: dict[int, tuple[str, ...]]
    service: str = ""


class Unseen(Message, frozen=True):
    """A process of which something could not be seen, and why."""

    pid: int
    name: str
    why: str


class Survey(Message, frozen=True):
    """Look at every network namespace of the device and at what processes hold; changes nothing. -> Surveyed"""


class Surveyed(Message, frozen=True):
    """`processes`: how many were looked at; `own`: agents and engines among them, which are no holders."""

    namespaces: tuple[Namespace, ...]
    holders: tuple[Holder, ...]
    processes: int
    own: int
    unseen: tuple[Unseen, ...] = ()


class Ground(msgspec.Struct, frozen=True):
    """What all tables of a trial come to hold: the first address of `network` and a port on it."""

    network: str
    port: int


class ProbeGround(Message, frozen=True):
    """Which of these are in nobody's way here; changes nothing. -> FreeGround"""

    networks: tuple[str, ...]
    ports: tuple[int, ...]


class FreeGround(Message, frozen=True):
    networks: tuple[str, ...]
    ports: tuple[int, ...]


class BeginTrial(Message, frozen=True):
    """Make a pair of links and hold on it what the other tables hold, too, and what only this one does (`number`, from 1).

    It ends by itself when nothing is heard of it for `patience_s`. `seal` tells this trial from every other. -> Held
    """

    ground: Ground
    number: int
    seal: int
    patience_s: float = 15.0


class Step(msgspec.Struct, frozen=True, array_like=True):
    """Something that a table was to hold; `code` is the errno where it does not."""

    layer: str
    what: str
    code: int = 0
    words: str = ""


class Held(Message, frozen=True):
    steps: tuple[Step, ...]


class PlayTrial(Message, frozen=True):
    """Send what the trial sends, on its own pair of links. -> None"""


class ReadTrial(Message, frozen=True):
    """-> Traces"""


class EndTrial(Message, frozen=True):
    """Take away what it left. -> None"""


class Traces(Message, frozen=True):
    """What a table shows of the trial: numbers of tables, each as often as it was seen; its own are among them.

    `counted`: what the throwaway rules of its firewall let pass and dropped, None where it has none.
    """

    cookie: int
    links: tuple[str, ...]
    routes: tuple[int, ...]
    rules: tuple[int, ...]
    neighbors: tuple[int, ...]
    arp_answers: tuple[int, ...]
    datagrams: tuple[int, ...]
    counted: tuple[int, int] | None
    sent: int


LauncherOperation = Survey
AgentOperation = ProbeGround | BeginTrial | PlayTrial | ReadTrial | EndTrial
Result = Surveyed | FreeGround | Held | Traces
