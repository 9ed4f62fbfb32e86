"""Who calls: the gateway finds it out and tells the services in metadata, over sockets that only the gateway's uid can open.

Pure. The guard of a server puts the caller where `caller` finds it; a service that calls another passes it on.
"""

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass

# Weakest first: each may do what the ones before it may.
ROLES = ("anonymous", "viewer", "admin")
IDENTITY_KEY = "crossns-identity"
ROLE_KEY = "crossns-role"
# What the gateway strips from clients' metadata: nobody says himself who he is.
RESERVED_PREFIX = "crossns-"


@dataclass(frozen=True, slots=True)
class Identity:
    """`name` is for logs and messages; `role` is one of ROLES."""

    name: str
    role: str

    def holds(self, role: str) -> bool:
        return ROLES.index(self.role) >= ROLES.index(role)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """As a service behind the gateway reads it. The name is kept to what metadata may carry."""
        name = "".join(letter if " " <= letter <= "~" else "?" for letter in self.name)
        return (IDENTITY_KEY, name), (ROLE_KEY, self.role)


ANONYMOUS = Identity("anonymous", "anonymous")
_caller: ContextVar[Identity] = ContextVar("caller", default=ANONYMOUS)


def of_metadata(metadata: Mapping[str, str | bytes]) -> Identity:
    """The identity that the gateway sent; ANONYMOUS without one, or with a role that is none."""
    name, role = metadata.get(IDENTITY_KEY), metadata.get(ROLE_KEY)
    if not isinstance(name, str) or not isinstance(role, str) or role not in ROLES:
        return ANONYMOUS
    return Identity(name, role)


def caller() -> Identity:
    """Who made the call that is being served."""
    return _caller.get()


def set_caller(identity: Identity) -> None:
    """For the guard: holds for the task that serves one call."""
    _caller.set(identity)
