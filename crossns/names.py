"""Resource names and etcd keys: one string is the API name, the queue key, the log field and the end of the etcd key.

Pure. Called by everything; nobody else builds or takes apart a name or a key.
"""

import re
from dataclasses import dataclass

from crossns import errors

# The services that own resources, in the order in which they are drawn. A reference or a status part stands below one of them.
SERVICES = ("nsmanager", "proxy")
# Collection -> the service whose `desired/` holds it.
OWNERS = {
    "routeTables": "nsmanager",
    "interfaces": "nsmanager",
    "routes": "nsmanager",
    "rules": "nsmanager",
    "neighbors": "nsmanager",
    "vServices": "proxy",
}
# Collection below a route table -> the variable of its ids.
NESTED = {"routes": "route", "rules": "rule", "neighbors": "neighbor"}

ID_MAX = 63
_ID = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
# Collection -> the services whose parts make up its status: all of them must agree before a resource is READY.
OBSERVERS = {
    "routeTables": ("nsmanager",),
    "interfaces": ("nsmanager",),
    "routes": ("nsmanager",),
    "rules": ("nsmanager",),
    "neighbors": ("nsmanager",),
    "vServices": ("proxy", "nsmanager"),
}
DEFAULT_TABLE = "routeTables/default"


def check_id(value: str, field: str) -> str:
    """`value` if it is a resource id; InvalidSpec otherwise."""
    if not value:
        raise errors.InvalidSpec(field, "is required: give an id such as `tenant-a`", reason="REQUIRED_FIELD")
    if not _ID.fullmatch(value):
        shown = errors.bounded(repr(value))
        raise errors.InvalidSpec(
            field,
            f"{shown} is not an id: use 1 to {ID_MAX} of a-z, 0-9 and -, beginning with a letter, not ending with -",
            reason="INVALID_NAME",
            value=shown,
        )
    return value


def collection(name: str) -> str:
    """The collection of a resource name: `routes` of `routeTables/a/routes/r`."""
    return name.rsplit("/", 2)[-2] if "/" in name else ""


def resource_id(name: str) -> str:
    """The last part of a resource name."""
    return name.rsplit("/", 1)[-1]


def parent(name: str) -> str:
    """The parent of a nested resource name; "" for a top-level one."""
    return name.rsplit("/", 2)[0] if name.count("/") == 3 else ""


def owner(name: str) -> str:
    """The service that owns the resource."""
    return OWNERS[collection(name)]


def check(name: str, expected: str, field: str) -> str:
    """`name` if it is a well-formed name of the collection `expected`; InvalidSpec otherwise."""
    is_nested = expected in NESTED
    form = f"routeTables/{{table}}/{expected}/{{{NESTED[expected]}}}" if is_nested else f"{expected}/{{id}}"
    if not name:
        raise errors.InvalidSpec(field, f"is required: give `{form}`", reason="REQUIRED_FIELD")
    parts = name.split("/")
    shape = ["routeTables", None, expected, None] if is_nested else [expected, None]
    fits = len(parts) == len(shape) and all(want in (None, part) for part, want in zip(parts, shape, strict=True))
    if not fits or not all(_ID.fullmatch(part) for part, want in zip(parts, shape, strict=True) if want is None):
        shown = errors.bounded(repr(name))
        raise errors.InvalidSpec(field, f"{shown} is not of the form `{form}`", reason="INVALID_NAME", value=shown)
    return name


@dataclass(frozen=True, slots=True)
class Keys:
    """The etcd keys of one service on one device (architecture, section 2)."""

    device: str
    service: str

    @property
    def device_prefix(self) -> str:
        return f"/crossns/{self.device}/"

    @property
    def prefix(self) -> str:
        return f"{self.device_prefix}{self.service}/"

    def of(self, service: str) -> "Keys":
        return Keys(self.device, service)

    def desired(self, name: str) -> str:
        return f"{self.prefix}desired/{name}"

    def status(self, name: str) -> str:
        return f"{self.prefix}status/{name}"

    def claim(self, kind: str, key: str) -> str:
        """`kind`: index, link, rule, vip, deleting and others."""
        return f"{self.prefix}claims/{kind}/{key}"

    def ref(self, target: str, referrer: str) -> str:
        return f"{self.refs_to(target)}{referrer}"

    def refs_to(self, target: str) -> str:
        """The prefix of this service's references to `target`; `//` ends the target, so that no other name can be below it."""
        return f"{self.prefix}refs/{target}//"

    def trace(self, name: str) -> str:
        return f"{self.prefix}trace/{name}"

    def request(self, request_id: str) -> str:
        return f"{self.prefix}requests/{request_id}"

    @property
    def instance(self) -> str:
        return f"{self.prefix}instance"

    @property
    def leader(self) -> str:
        return f"{self.prefix}leader"

    def parse(self, key: str) -> tuple[str, str, str] | None:
        """(service, family, rest) of a key of this device, such as (nsmanager, desired, routeTables/a); None for another's."""
        if not key.startswith(self.device_prefix):
            return None
        service, _, rest = key[len(self.device_prefix) :].partition("/")
        family, _, rest = rest.partition("/")
        return service, family, rest
