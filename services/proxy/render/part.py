"""What vServices are called in HAProxy: sections, listeners, servers; and the last check of whatever enters the text.

Called by `config` and by the plan, which finds in the running HAProxy what it has by these names. Values were checked when they
were parsed; here they are matched once more against what they may consist of, so that no value becomes a line of its own.
"""

import functools
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from crossns import errors, names
from services.proxy import model

_ID = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_NAMESPACE = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?\.[0-9]{1,20}")
_HOST = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){3}|[0-9a-f:]{2,39}")
_SOCKET = re.compile(r"([0-9]{1,3}(\.[0-9]{1,3}){3}|\[[0-9a-f:]{2,39}\]):[0-9]{1,5}(-[0-9]{1,5})?")
_SLOT = re.compile(r"([a-z]([a-z0-9-]{0,61}[a-z0-9])?|_[1-9][0-9]{0,3})\.[a-z]([a-z0-9-]{0,61}[a-z0-9])?\.[0-9]{1,20}")
# Where an empty slot points: nobody can connect to the limited broadcast address.
NOWHERE = "255.255.255.255:1"

_Key = TypeVar("_Key")
_Word = TypeVar("_Word")


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """A frontend or member as HAProxy knows it, whatever it calls it: the section, the namespace and `address:port`."""

    section: str
    namespace: str
    socket: str


@dataclass(frozen=True, slots=True)
class Server:
    """What can be changed of a server while it runs. `socket` with port 0 means the port at which the client arrived."""

    socket: str = NOWHERE
    weight: int = 1
    enabled: bool = False
    max_connections: int = 0


@dataclass(frozen=True, slots=True)
class Slot:
    """A server line: `<member>.<namespace>` or `_<number>.<namespace>`; `member` is who has it, None while nobody does."""

    name: str
    id: int
    member: str | None = None

    @property
    def namespace(self) -> str:
        return self.name.partition(".")[2]

    @property
    def is_spare(self) -> bool:
        """Whether it was made for whoever comes."""
        return self.name.startswith("_")


def frontend_part(vservice: str, frontend: model.Frontend, tables: Mapping[str, str]) -> Part | None:
    """With a range as `address:first-last`. None while its table has no namespace."""
    if frontend.table not in tables:
        return None
    socket = _socket(frontend.address, _port(frontend.port))
    if _port(frontend.end_port, at_least=frontend.port) != frontend.port:
        socket += f"-{frontend.end_port}"
    return Part(frontend_section(vservice, frontend.name), namespace(tables[frontend.table]), socket)


def listeners(vservice: str, frontend: model.Frontend, tables: Mapping[str, str]) -> tuple[Part, ...]:
    """One for each port; none while its table has no namespace."""
    part = frontend_part(vservice, frontend, tables)
    return tuple(Part(part.section, part.namespace, socket) for socket in frontend.sockets) if part is not None else ()


def member_part(vservice: str, pool: str, member: model.Member, tables: Mapping[str, str]) -> Part | None:
    """None while its table has no namespace."""
    if member.table not in tables:
        return None
    _id(member.name)
    socket = _socket(member.address, _port(member.port, at_least=0))
    return Part(backend_section(vservice, pool), namespace(tables[member.table]), socket)


def frontend_section(vservice: str, frontend: str) -> str:
    return f"{_prefix(vservice)}fe.{_id(frontend)}"


def backend_section(vservice: str, pool: str) -> str:
    return f"{_prefix(vservice)}po.{_id(pool)}"


def owner(section: str) -> str:
    """The resource name of the vService that a section belongs to."""
    return f"{model.COLLECTION}/{section.split('.')[1]}"


def slot_name(name: str) -> str:
    return matching(_SLOT, name)


def namespace(name: str) -> str:
    return matching(_NAMESPACE, name)


def number(value: int, at_least: int, at_most: int) -> int:
    if type(value) is not int or not at_least <= value <= at_most:
        raise errors.InvariantError(f"{errors.bounded(repr(value))} is no number of {at_least}..{at_most}")
    return value


@functools.lru_cache(maxsize=100_000)
def matching(pattern: re.Pattern[str], text: str) -> str:
    if type(text) is not str or not pattern.fullmatch(text):
        raise errors.InvariantError(f"{errors.bounded(repr(text))} reached the renderer")
    return text


def chosen(words: Mapping[_Key, _Word], key: _Key) -> _Word:
    """What stands in the text for `key`."""
    if key not in words:
        raise errors.InvariantError(f"{errors.bounded(repr(key))} reached the renderer")
    return words[key]


def with_family(socket: str) -> str:
    """So that HAProxy guesses and resolves nothing; without a port where it is that of arrival."""
    matching(_SOCKET, socket)
    family = "ipv6" if socket.startswith("[") else "ipv4"
    return f"{family}@{socket.removesuffix(':0')}"


def _prefix(vservice: str) -> str:
    """Begins the names of all sections of a vService. Ids have no dot, so it begins no other's."""
    return f"vs.{_id(names.resource_id(vservice))}."


def _id(text: str) -> str:
    return matching(_ID, text)


def _port(value: int, at_least: int = 1) -> int:
    return number(value, at_least, model.PORT_MAX)


def _socket(address: model.Address, port: int) -> str:
    if not isinstance(address, ipaddress.IPv4Address | ipaddress.IPv6Address):
        raise errors.InvariantError("an address of another type reached the renderer")
    matching(_HOST, str(address))
    return model.socket(address, port)
