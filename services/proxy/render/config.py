"""HAProxy's configuration file as a pure function of the vServices, of the namespaces that there are and of who has which slot.

Called by `plan`. Every bind and every server line names its namespace (one in `default-server` is ignored without a word:
haproxy#2038), and a frontend or member whose route table has none is left out: nothing ever falls back to another domain.
The same vServices give the same text in whatever order they come. The text has everything, so that a HAProxy that starts with
it is as the one that ran; its structure is what only a reload can change, and stands as a digest in the text itself.
"""

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from services.proxy import model
from services.proxy.render import head, part
from services.proxy.render.part import Part, Server, Slot

# By name, the `defaults` that sections begin with.
_DEFAULTS: Mapping[model.Protocol, str] = {"tcp": "tcp", "http": "http"}
_PATH = re.compile(r"(/[A-Za-z0-9_.-]+)+")
_LIMIT_MAX = 1_000_000
_TIMEOUT_MAX_MS = 24 * 3600 * 1000
_SERVER_ID_MAX = 2**31 - 1

_ALGORITHMS: Mapping[model.Algorithm, Sequence[str]] = {
    "round robin": ("balance roundrobin",),
    "least connections": ("balance leastconn",),
    # By the servers' ids: who comes or goes takes only his own clients along.
    "source hash": ("balance source", "hash-type consistent"),
    "random": ("balance random",),
    "first": ("balance first",),
}
_SEND_PROXY = {0: "", 1: " send-proxy", 2: " send-proxy-v2"}
# Of a client that is counted: how many are remembered, and for how long after their last connection.
_CLIENTS = "stick-table type ipv6 size 100k expire 30s store conn_cur"


@dataclass(frozen=True, slots=True)
class Limits:
    """`open_files`: how many one HAProxy process may have; `engine_dir`: where its sockets are."""

    open_files: int
    engine_dir: Path


@dataclass(frozen=True, slots=True)
class Config:
    """`structure` is the digest of what only a reload changes."""

    # Not shown: megabytes would end up in logs and spans.
    text: str
    structure: str

    def __repr__(self) -> str:
        return f"Config(structure={self.structure!r}, {len(self.text)} characters)"


@dataclass(frozen=True, slots=True)
class Arrangement:
    """What else there is to know beside the vServices.

    `tables`: the namespace of each route table that has one (`dmz.4711`); `left_out`: parts that HAProxy does not start with;
    `slots`: by section, every server line and who has it; `servers`: how each line is to be, by section and slot.
    """

    tables: Mapping[str, str]
    left_out: Collection[Part]
    slots: Mapping[str, Sequence[Slot]]
    servers: Mapping[tuple[str, str], Server]


class _Line(NamedTuple):
    """A line, and what of it is structure."""

    text: str
    structure: str


class Piece(NamedTuple):
    """One vService's sections, what of them is structure, and how many listeners they are."""

    text: str
    structure: str
    listeners: int


def piece(vservice: model.VService, wanted: Arrangement) -> Piece:
    """What the file has of one vService."""
    lines = list(_sections(vservice, wanted))
    ports = sum(frontend.ports for frontend, _ in _listening(vservice, wanted))
    return Piece("\n".join(line.text for line in lines), "\n".join(line.structure for line in lines), ports)


def file(pieces: Sequence[Piece], limits: Limits) -> Config:
    """The whole file, of vServices ordered by name."""
    connections = head.max_connections(limits.open_files, sum(each.listeners for each in pieces))
    directory = part.matching(_PATH, str(limits.engine_dir))
    structure = head.render(connections, directory, "")
    digest = _digest([structure, *(each.structure for each in pieces)])
    top = head.render(connections, directory, digest)
    return Config("\n".join([top, *(each.text for each in pieces), ""]), digest)


def _digest(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def _sections(vservice: model.VService, wanted: Arrangement) -> Iterator[_Line]:
    """A pool without members is there too: HAProxy refuses its clients at once, where a missing one would stop HAProxy."""
    defaults = part.chosen(_DEFAULTS, vservice.protocol)
    for frontend, listener in _listening(vservice, wanted):
        yield from _section(f"frontend {listener.section} from {defaults}", _frontend(vservice, frontend, listener))
    for pool in sorted(vservice.pools, key=lambda pool: pool.name):
        section = part.backend_section(vservice.name, pool.name)
        balance = part.chosen(_ALGORITHMS, pool.algorithm)
        yield from _section(f"backend {section} from {defaults}", [*balance, *_member_side(vservice)])
        for slot in wanted.slots.get(section, ()):
            yield _server(slot, wanted.servers[section, slot.name], pool)


def _listening(vservice: model.VService, wanted: Arrangement) -> Iterator[tuple[model.Frontend, Part]]:
    for frontend in sorted(vservice.frontends, key=lambda frontend: frontend.name):
        listener = part.frontend_part(vservice.name, frontend, wanted.tables)
        if listener is not None and listener not in wanted.left_out:
            yield frontend, listener


def _section(title: str, lines: Sequence[str]) -> Iterator[_Line]:
    for line in ("", title, *(f"    {line}" for line in lines)):
        yield _Line(line, line)


def _frontend(vservice: model.VService, frontend: model.Frontend, listener: Part) -> list[str]:
    # `transparent`: a VIP that is not there yet does not stop HAProxy, whatever the table's sysctls say.
    flags = "transparent v6only" if frontend.address.version == 6 else "transparent"
    told = " accept-proxy" if frontend.accept_proxy else ""
    bind = f"bind {part.with_family(listener.socket)} namespace {listener.namespace} name {listener.namespace} {flags}{told}"
    pool = part.backend_section(vservice.name, frontend.pool)
    return [bind, *_limits(frontend.limits), *_client_side(vservice), *_log(vservice), f"default_backend {pool}"]


def _limits(limits: model.Limits) -> Iterator[str]:
    if limits.connections:
        yield f"maxconn {part.number(limits.connections, 1, _LIMIT_MAX)}"
    if limits.connection_rate:
        yield f"rate-limit sessions {part.number(limits.connection_rate, 1, _LIMIT_MAX)}"
    if limits.connections_per_client:
        most = part.number(limits.connections_per_client, 1, _LIMIT_MAX)
        # `session`, not `connection`: a client that the PROXY protocol tells of is known only then.
        yield from (_CLIENTS, "tcp-request session track-sc0 src", f"tcp-request session reject if {{ sc0_conn_cur gt {most} }}")


def _client_side(vservice: model.VService) -> Iterator[str]:
    timeouts = vservice.timeouts
    yield from _timeout("client", timeouts.client_idle_ms)
    yield from _timeout("http-request", timeouts.http_request_ms)
    yield from _timeout("http-keep-alive", timeouts.http_keep_alive_ms)


def _member_side(vservice: model.VService) -> Iterator[str]:
    timeouts = vservice.timeouts
    yield from _timeout("connect", timeouts.connect_ms)
    yield from _timeout("server", timeouts.member_idle_ms)
    yield from _timeout("queue", timeouts.queue_ms)


def _timeout(name: str, milliseconds: int | None) -> Iterator[str]:
    if milliseconds is not None:
        yield f"timeout {name} {part.number(milliseconds, 1, _TIMEOUT_MAX_MS)}ms"


def _log(vservice: model.VService) -> Sequence[str]:
    return ("log global", f"log-format {head.LOG_FORMATS[vservice.protocol]}") if vservice.access_log else ()


def _server(slot: Slot, server: Server, pool: model.Pool) -> _Line:
    name = part.slot_name(slot.name)
    address = part.with_family(server.socket)
    told = part.chosen(_SEND_PROXY, pool.send_proxy)
    fixed = f"id {part.number(slot.id, 1, _SERVER_ID_MAX)} namespace {part.namespace(slot.namespace)}{told}"
    changing = f"weight {part.number(server.weight, 0, model.WEIGHT_MAX)}"
    if server.max_connections:
        changing += f" maxconn {part.number(server.max_connections, 1, _LIMIT_MAX)}"
    if not server.enabled:
        changing += " disabled"
    # HAProxy does not take another address where the port is that of arrival.
    structure = f"    server {name} {address if server.socket.endswith(':0') else ''} {fixed}"
    return _Line(f"    server {name} {address} {fixed} {changing}", structure)
