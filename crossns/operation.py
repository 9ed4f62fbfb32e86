"""The closed set of typed messages between services and the privileged tree: launcher and agents.

Pure values (msgspec, MessagePack on the wire). The plan room of nsmanager emits the agent operations as they are; nothing
else crosses the line into the privileged processes. Deleting what is gone and adding what is there are successes.
"""

from typing import Literal

import msgspec

from crossns import budget, counter, entry, examination, keepsake, kernel, listener, message, proof, standing, sysctl

# The mark of what is ours: rtm_protocol of routes, IFA_PROTO of addresses (two values, so that a VIP is told from an
# interface's own address). 0..31 are the kernel's and iproute2's; these are unassigned in rt_protos.
ROUTE_PROTOCOL = 0xC5
ADDRESS_PROTOCOL = 0xC5
VIP_PROTOCOL = 0xC6
# Altname of a link that is ours: its resource's name, a dot for the slash.
MARK_PREFIX = "interfaces."
# Altname that remembers the name which a network card had in `default`.
WAS_PREFIX = "was."


Message = message.Message
# What the kernel shows.
Link = kernel.Link
Address = kernel.Address
NextHop = kernel.NextHop
Route = kernel.Route


class Token(msgspec.Struct, frozen=True):
    """Fencing token: the etcd cluster and the create revision of the service's leader key in it."""

    cluster_id: int
    revision: int


class Hello(Message, frozen=True):
    """First message of a session. `service` must be what the peer's uid runs as; root may say any."""

    service: str
    token: Token


class Welcome(Message, frozen=True):
    """`cookie`: SO_NETNS_COOKIE of the namespace that the peer is in."""

    boot_id: str
    pid: int
    cookie: int = 0


class CreateNamespace(Message, frozen=True):
    """Make the table's namespace and its agent; succeeds when both are there and the agent answers. -> Namespace"""

    table: str


class AttachNamespace(Message, frozen=True):
    """Show the table's living namespace under its name in /run/netns again. -> Namespace"""

    table: str


class DestroyNamespace(Message, frozen=True):
    """End the agent, drop every mount of the namespace. Links must have been moved out before. -> None"""

    table: str


class ListNamespaces(Message, frozen=True):
    """All, or only `table`'s. -> Namespaces"""

    table: str = ""


class Namespace(Message, frozen=True):
    """One table's namespace. `attached`: /run/netns/<table> is this namespace; `occupied`: something else stands there."""

    table: str
    cookie: int
    attached: bool
    occupied: bool = False
    agent_pid: int = 0
    agent_restarts: int = 0


class Namespaces(Message, frozen=True):
    items: tuple[Namespace, ...] = ()


class StartEngine(Message, frozen=True):
    """Check `config` and start the engine with it, or reload it where it runs. -> Engine"""

    engine: Literal["haproxy"]
    config: str


class SaveEngine(Message, frozen=True):
    """Check `config` and keep it for the engine's next start; what runs, runs on as it is. -> Engine"""

    engine: Literal["haproxy"]
    config: str


class EndWorkers(Message, frozen=True):
    """End these workers, of those that a reload has replaced; the current one is never ended. -> None"""

    engine: Literal["haproxy"]
    pids: tuple[int, ...]


class StopEngine(Message, frozen=True):
    """-> None"""

    engine: Literal["haproxy"]


class ListEngines(Message, frozen=True):
    """-> Engines"""


class Engine(Message, frozen=True):
    """`config_digest`: SHA-256 (hex) of the configuration that it last took; "" when it never did."""

    engine: str
    pid: int
    config_digest: str
    restarts: int = 0
    reloads: int = 0


class Engines(Message, frozen=True):
    """`open_files`: how many one process of an engine may have open (RLIMIT_NOFILE, getrlimit(2))."""

    items: tuple[Engine, ...] = ()
    open_files: int = 0


class Statistics(Message, frozen=True):
    """What a privileged process did since it started. -> Counters"""


class Counters(Message, frozen=True):
    """`writes`: kernel changes made; `refused`: operations refused for a stale token or a foreign peer."""

    operations: int
    writes: int
    refused: int


class Snapshot(Message, frozen=True):
    """Everything that nsmanager plans with, of one namespace. `routes`, `rules` and `neighbors` hold only those with our mark."""

    cookie: int
    links: tuple[Link, ...]
    addresses: tuple[Address, ...]
    routes: tuple[Route, ...]
    sysctls: dict[str, str]
    rules: tuple[entry.Rule, ...] = ()
    neighbors: tuple[entry.Neighbor, ...] = ()
    budget_seen: budget.Seen | None = None


class Changed(Message, frozen=True):
    """Event: the namespace changed in one of these ways since the last one; look again."""

    kinds: tuple[Literal["link", "address", "route", "rule", "neighbor", "budget", "overrun"], ...]


class Dump(Message, frozen=True):
    """-> Snapshot"""


class ReadCounters(Message, frozen=True):
    """What the kernel has counted in the namespace. -> counter.KernelCounters"""


class CreateLink(Message, frozen=True):
    """Make a virtual link, marked, in `table`'s namespace (this agent's own unless given). -> None

    A macvlan or vlan is made by the agent of its parent's table.
    """

    name: str
    mark: str
    kind: Literal["bridge", "macvlan", "vlan", "vxlan", "bond", "dummy", "tap"]
    parent: str = ""
    table: str = ""
    attributes: dict[str, str] = msgspec.field(default_factory=dict)


class DeleteLink(Message, frozen=True):
    """Delete a virtual link; refused unless it carries `mark`. -> None"""

    name: str
    mark: str


class MoveLink(Message, frozen=True):
    """Move a link to another table ("default" too) under `new_name`, with `mark` ("" takes the mark off). -> None

    Only a link that carries a mark of ours, or one of `default` that is being taken, is moved. The name in `default` is
    remembered in an altname `was.<name>` (`was`, where it has another one by now), taken off again when the link returns.
    """

    name: str
    table: str
    new_name: str
    mark: str
    was: str = ""


class MarkLink(Message, frozen=True):
    """Put `mark` (and `was.<name>`, as for a link that moves) on a card that stays where it is; "" takes both off. -> None"""

    name: str
    mark: str


class SetLink(Message, frozen=True):
    """Change what is given of a link; `master` "" releases it. -> None"""

    name: str
    new_name: str | None = None
    mtu: int | None = None
    up: bool | None = None
    master: str | None = None
    attributes: dict[str, str] = msgspec.field(default_factory=dict)


class AddAddress(Message, frozen=True):
    """Add an address and announce it (gratuitous ARP, RFC 5227; unsolicited NA, RFC 4861 7.2.6). -> None"""

    link: str
    prefix: str
    protocol: int


class RemoveAddress(Message, frozen=True):
    """Remove an address; refused unless its IFA_PROTO is `protocol`. -> None"""

    link: str
    prefix: str
    protocol: int


class PutRoute(Message, frozen=True):
    """Add or replace a route with our mark. -> None"""

    route: Route


class RemoveRoute(Message, frozen=True):
    """Remove a route with our mark. -> None"""

    route: Route


class OpenSocket(Message, frozen=True):
    """Make a socket in the namespace under the fsuid of `owner_uid`. -> None, with the file descriptor beside the reply"""

    family: Literal["inet", "inet6"]
    kind: Literal["stream", "dgram"]
    owner_uid: int = 0


LauncherOperation = (
    CreateNamespace
    | AttachNamespace
    | DestroyNamespace
    | ListNamespaces
    | StartEngine
    | SaveEngine
    | EndWorkers
    | StopEngine
    | ListEngines
    | Statistics
    | proof.LauncherOperation
)
AgentOperation = (
    Dump
    | ReadCounters
    | CreateLink
    | DeleteLink
    | MoveLink
    | MarkLink
    | SetLink
    | AddAddress
    | RemoveAddress
    | PutRoute
    | RemoveRoute
    | entry.Operation
    | sysctl.Operation
    | kernel.Operation
    | standing.Operation
    | budget.Operation
    | OpenSocket
    | listener.OpenListener
    | examination.Operation
    | keepsake.Operation
    | Statistics
    | proof.AgentOperation
)
Request = Hello | LauncherOperation | AgentOperation
_Looks = examination.Examination | examination.Ways | examination.Obstacles
_Told = counter.KernelCounters | _Looks | keepsake.Result | proof.Result | standing.Standings
Result = Welcome | Namespace | Namespaces | Engine | Engines | Counters | Snapshot | _Told


class Fault(msgspec.Struct, frozen=True):
    """An error on the wire: a class of `errors`, its reason and message."""

    kind: Literal["request", "temporary", "permanent", "fenced", "invariant"]
    reason: str
    message: str
    metadata: dict[str, str] = {}


class Call(msgspec.Struct, frozen=True):
    """A request. `traceparent` joins the caller's trace; "" for none."""

    id: int
    operation: Request
    traceparent: str = ""


class Reply(msgspec.Struct, frozen=True, tag=True):
    id: int
    result: Result | None = None
    fault: Fault | None = None


class EngineExited(Message, frozen=True):
    """Event of the launcher: an engine ended; it starts it again by itself."""

    engine: str
    pid: int
    status: int


class EngineReloaded(Message, frozen=True):
    """Event of the launcher: an engine runs with a configuration anew, also one that the launcher tried again by itself."""

    engine: str


class AgentExited(Message, frozen=True):
    """Event of the launcher: an agent ended; it starts it again by itself."""

    table: str
    pid: int


class NamespaceChanged(Message, frozen=True):
    """Event of the launcher: somebody else added or removed /run/netns/<table> (seen by inotify)."""

    table: str


class AgentStarted(Message, frozen=True):
    """Event of the launcher: an agent is there (again) and answers. `restarts` counts since its namespace is there."""

    table: str
    pid: int
    restarts: int


Event = Changed | kernel.News | AgentStarted | EngineExited | EngineReloaded | AgentExited | NamespaceChanged


class Notice(msgspec.Struct, frozen=True, tag=True):
    """An event pushed to the session."""

    event: Event
