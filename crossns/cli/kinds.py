"""The kinds of resources as people name them: `table`, `routeTables`, `RouteTable` are the same.

Pure. A new resource enters the command line here and in `columns`.
"""

import difflib
from dataclasses import dataclass

from crossns import errors, names


@dataclass(frozen=True, slots=True)
class Kind:
    """`name` is the proto message and the file's `kind`; `field` the resource's field in requests."""

    name: str
    collection: str
    field: str
    aliases: tuple[str, ...]


KINDS = (
    Kind("RouteTable", "routeTables", "route_table", ("table", "tables", "rt")),
    Kind("Interface", "interfaces", "interface", ("if", "link", "links")),
    Kind("Route", "routes", "route", ("r",)),
    Kind("Rule", "rules", "rule", ()),
    Kind("Neighbor", "neighbors", "neighbor", ("neighbour", "neighbours", "neigh", "arp")),
    Kind("VService", "vServices", "v_service", ("service", "services", "svc")),
)
BY_COLLECTION = {kind.collection: kind for kind in KINDS}
BY_NAME = {kind.name: kind for kind in KINDS}
_BY_WORD = {
    word.lower(): kind for kind in KINDS for word in (kind.name, kind.collection, kind.field.replace("_", ""), *kind.aliases)
}


def find(word: str) -> Kind:
    """The kind that a person means by `word`."""
    kind = _BY_WORD.get(word.lower())
    if kind is None:
        known = ", ".join(kind.collection for kind in KINDS)
        raise errors.InvalidSpec("KIND", f"{errors.bounded(word)!r} is none: use one of {known}{near(word, _BY_WORD)}")
    return kind


def of_name(name: str) -> Kind:
    """The kind of the resource that a full name such as `routeTables/tenant-a` names."""
    kind = BY_COLLECTION.get(names.collection(name))
    if kind is None:
        forms = "routeTables/ID, interfaces/ID, routeTables/ID/routes/ID (or rules, neighbors) or vServices/ID"
        raise errors.InvalidSpec("NAME", f"{errors.bounded(name)!r} is not the full name of a resource: write {forms}")
    names.check(name, kind.collection, "NAME")
    return kind


def full_name(kind: Kind, name: str) -> str:
    """The full name for what a person wrote: an id, `TABLE/ID` for what is below a table, or the full name."""
    if names.collection(name) == kind.collection:
        return names.check(name, kind.collection, "NAME")
    if kind.collection not in names.NESTED:
        return f"{kind.collection}/{names.check_id(name, 'NAME')}"
    table, _, below = name.partition("/")
    return f"routeTables/{names.check_id(table, 'TABLE')}/{kind.collection}/{names.check_id(below, kind.field.upper())}"


def short_name(name: str) -> str:
    """As `full_name` takes it beside the kind: the id, `TABLE/ID` for what is below a table."""
    above = names.parent(name)
    return f"{names.resource_id(above)}/{names.resource_id(name)}" if above else names.resource_id(name)


def near(word: str, known: object) -> str:
    """`: did you mean ...?` where something known is close to what was written."""
    close = difflib.get_close_matches(word, [str(each) for each in known], n=1)  # type: ignore[attr-defined]
    return f"; did you mean {close[0]!r}?" if close else ""
