"""What resources have to do with each other: which route tables one concerns, and what must be there before it.

Pure. Events and export are filtered by the first, bundles are ordered by the second.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from crossns import names
from crossns.resource import Resource

# What the name alone tells.
_BY_NAME: Mapping[str, Callable[[str], tuple[str, ...]]] = {
    "routeTables": lambda name: (name,),
    **dict.fromkeys(names.NESTED, lambda name: (names.parent(name),)),
}


def _of_v_service(resource: Any) -> Iterable[str]:
    yield from (frontend.route_table for frontend in resource.spec.frontends)
    yield from (member.route_table for pool in resource.spec.pools for member in pool.members)


_BY_SPEC: Mapping[str, Callable[[Any], Iterable[str]]] = {
    "interfaces": lambda resource: (resource.spec.route_table,),
    "vServices": _of_v_service,
}
# Whose names do not tell.
TOLD_BY_SPEC = tuple(_BY_SPEC)


def tables_by_name(name: str) -> tuple[str, ...]:
    """The route tables that a resource concerns, as far as its name tells."""
    find = _BY_NAME.get(names.collection(name))
    return () if find is None else find(name)


def tables(resource: Resource) -> tuple[str, ...]:
    """The route tables that a resource concerns, each once, by name."""
    find = _BY_SPEC.get(names.collection(resource.name))
    return tables_by_name(resource.name) if find is None else tuple(sorted({table for table in find(resource) if table}))


def _under_interface(resource: Any) -> Iterable[str]:
    spec = resource.spec
    return (spec.macvlan.parent, spec.vlan.parent, *spec.bridge.ports, *spec.bond.members)


# Where resources of one kind stand on others of the same kind.
_SAME_KIND: Mapping[str, Callable[[Any], Iterable[str]]] = {"interfaces": _under_interface}


def underneath(resource: Resource) -> tuple[str, ...]:
    """Resources of the same kind that must be there before this one."""
    find = _SAME_KIND.get(names.collection(resource.name))
    return () if find is None else tuple(dict.fromkeys(name for name in find(resource) if name))
