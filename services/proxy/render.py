"""HAProxy's configuration file as a pure function of the vServices and of the namespaces that there are.

Called by `plan`. Every bind and every server line names its namespace (one in `default-server` is ignored without a word:
haproxy#2038), and a frontend or member whose route table has none is left out: nothing ever falls back to another domain.
Whatever enters the text is matched once more against what it may consist of, so that no value becomes a line of its own.
The same vServices give the same text in whatever order they come.
"""

import ipaddress
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crossns import errors, names
from services.proxy import model

# Files that a HAProxy process needs beside connections and listeners: control sockets, polls, what the old worker hands over.
_FILES_RESERVED = 256
# Where the limit of files is none in effect: HAProxy allocates tables for all connections that it may have.
_CONNECTIONS_MAX = 50_000
_ID = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_NAMESPACE = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?\.[0-9]{1,20}")
_HOST = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){3}|[0-9a-f:]{2,39}")
_PATH = re.compile(r"(/[A-Za-z0-9_.-]+)+")

# A worker that is told to stop closes its namespaces at once (HAProxy 2.6 to 3.4, namespace.c): what it has accepted and not
# forwarded yet would be lost. It gets this long, in which it still takes a part of what comes in.
GRACE_S = 0.1

_HEAD = """\
# Made by crossns from its vServices; what is changed here is overwritten.
global
    maxconn {connections}
    grace {grace_ms}ms
    # A quarter more throughput than with the usual 16 KiB; only a busy connection holds buffers.
    tune.bufsize 65536
    # For a person who wants to look; with it the file is valid even while no frontend can be in it.
    stats socket {socket} mode 660 level user

defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    timeout client-fin 30s
    timeout server-fin 30s
    # A peer that is gone without a word is noticed by the kernel.
    option clitcpka
    option srvtcpka
    # A member that refuses costs a client nothing: the next one has its turn at once.
    retries 3
    option redispatch 1
    # Shows each listener by itself, with its namespace for a name.
    option socket-stats
"""


@dataclass(frozen=True, slots=True)
class Limits:
    """`open_files`: how many one HAProxy process may have; `stats_socket`: where it may be asked."""

    open_files: int
    stats_socket: Path


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """What HAProxy makes of a frontend or member, as its statistics show it: the section, the listener's or server's name (which
    says in which namespace it is) and `address:port`."""

    section: str
    name: str
    socket: str


def render(services: Sequence[model.VService], tables: Mapping[str, str], left_out: Collection[Part], limits: Limits) -> str:
    """The whole file but for the parts `left_out`. `tables` has the namespace of each route table that has one: `dmz.4711`."""
    ordered = sorted(services, key=lambda vservice: vservice.name)
    sections = [text for vservice in ordered for text in _sections(vservice, tables, left_out)]
    listeners = sum(text.startswith("frontend ") for text in sections)
    socket = _matching(_PATH, str(limits.stats_socket))
    connections = max_connections(limits.open_files, listeners)
    head = _HEAD.format(connections=connections, grace_ms=round(GRACE_S * 1000), socket=socket)
    return "\n".join([head, *sections])


def max_connections(open_files: int, listeners: int) -> int:
    """A connection takes two files, a listener one. HAProxy does not start with more than its limit of files lets it have."""
    return min(max((open_files - _FILES_RESERVED - listeners) // 2, 1), _CONNECTIONS_MAX)


def frontend_part(vservice: str, frontend: model.Frontend, tables: Mapping[str, str]) -> Part | None:
    """None while its table has no namespace."""
    if frontend.table not in tables:
        return None
    section = f"{_prefix(vservice)}fe.{_matching(_ID, frontend.name)}"
    return Part(section, _matching(_NAMESPACE, tables[frontend.table]), _socket(frontend))


def member_part(vservice: str, pool: str, member: model.Member, tables: Mapping[str, str]) -> Part | None:
    """None while its table has no namespace."""
    if member.table not in tables:
        return None
    name = f"{_matching(_ID, member.name)}.{_matching(_NAMESPACE, tables[member.table])}"
    return Part(_backend(vservice, pool), name, _socket(member))


def _prefix(vservice: str) -> str:
    """Begins the names of all sections of a vService. Ids have no dot, so it begins no other's."""
    return f"vs.{_matching(_ID, names.resource_id(vservice))}."


def _backend(vservice: str, pool: str) -> str:
    return f"{_prefix(vservice)}po.{_matching(_ID, pool)}"


def _sections(vservice: model.VService, tables: Mapping[str, str], left_out: Collection[Part]) -> Iterator[str]:
    """A pool without members is there too: HAProxy refuses its clients at once, where a missing one would stop HAProxy."""
    for frontend in sorted(vservice.frontends, key=lambda frontend: frontend.name):
        part = frontend_part(vservice.name, frontend, tables)
        if part is not None and part not in left_out:
            # `transparent`: a VIP that is not there yet does not stop HAProxy, whatever the table's sysctls say.
            flags = "transparent v6only" if frontend.address.version == 6 else "transparent"
            bind = f"bind {_with_family(part.socket)} namespace {part.name} name {part.name} {flags}"
            yield _section(f"frontend {part.section}", [bind, f"default_backend {_backend(vservice.name, frontend.pool)}"])
    for pool in sorted(vservice.pools, key=lambda pool: pool.name):
        members = sorted(pool.members, key=lambda member: member.name)
        parts = [member_part(vservice.name, pool.name, member, tables) for member in members]
        servers = [_server(part) for part in parts if part is not None and part not in left_out]
        yield _section(f"backend {_backend(vservice.name, pool.name)}", ["balance roundrobin", *servers])


def _server(part: Part) -> str:
    _, _, namespace = part.name.partition(".")
    return f"server {part.name} {_with_family(part.socket)} namespace {namespace}"


def _section(title: str, lines: Sequence[str]) -> str:
    return "".join([f"{title}\n", *(f"    {line}\n" for line in lines)])


def _with_family(socket: str) -> str:
    """So that HAProxy guesses and resolves nothing."""
    return f"ipv6@{socket}" if socket.startswith("[") else f"ipv4@{socket}"


def _socket(part: model.Frontend | model.Member) -> str:
    if not isinstance(part.address, ipaddress.IPv4Address | ipaddress.IPv6Address):
        raise errors.InvariantError(f"{part.name}: an address of another type reached the renderer")
    if type(part.port) is not int or not 1 <= part.port <= model.PORT_MAX:
        raise errors.InvariantError(f"{part.name}: what is no port reached the renderer")
    _matching(_HOST, str(part.address))
    return model.socket_of(part)


def _matching(pattern: re.Pattern[str], text: str) -> str:
    if not pattern.fullmatch(text):
        raise errors.InvariantError(f"{errors.bounded(repr(text))} reached the renderer")
    return text
