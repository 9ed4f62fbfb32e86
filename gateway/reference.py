"""What resources have to do with each other: which route tables one concerns, and what must be there before it.

Pure. Events and export are filtered by the first, bundles are ordered by the second.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from crossns import names
from crossns.resource import Resource


def _of_v_service(resource: Any) -> Iterable[str]:
    yield from (frontend.route_table for frontend in resource.spec.frontends)
    yield from (member.route_table for pool in resource.spec.pools for member in pool.members)


_TABLES: Mapping[str, Callable[[Any], Iterable[str]]] = {
    "routeTables": lambda resource: (resource.name,),
    "interfaces": lambda resource: (resource.spec.route_table,),
    "routes": lambda resource: (names.parent(resource.name),),
    "vServices": _of_v_service,
}


def tables(resource: Resource) -> tuple[str, ...]:
    """The route tables that a resource concerns, each once, by name."""
    return tuple(sorted({table for table in _TABLES[names.collection(resource.name)](resource) if table}))


def _under_interface(resource: Any) -> Iterable[str]:
    spec = resource.spec
    return (spec.macvlan.parent, spec.vlan.parent, *spec.bridge.ports, *spec.bond.members)


# Where resources of one kind stand on others of the same kind.
_SAME_KIND: Mapping[str, Callable[[Any], Iterable[str]]] = {"interfaces": _under_interface}


def underneath(resource: Resource) -> tuple[str, ...]:
    """Resources of the same kind that must be there before this one."""
    find = _SAME_KIND.get(names.collection(resource.name))
    return () if find is None else tuple(dict.fromkeys(name for name in find(resource) if name))
