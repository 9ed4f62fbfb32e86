"""Follows links through all namespaces of the device: which tables share a network below IP, and over which links.

Nodes are links, and VLANs on links; edges join the two ends of a veth, a port and its bridge, a macvlan and what it sits on. An
edge is declared where a resource or the system made it; it does not join tables, it is told as allowed.
"""

import itertools
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from crossns import operation, proof
from services.nsmanager.plan.isolation.evidence import full

# Namespace, index, VLAN id (0: what is untagged, or the link itself).
Node = tuple[int, int, int]
_PAIRED = frozenset(("veth", "netkit"))
# A VRF's ports share its routes, not its frames.
_ROUTED = frozenset(("vrf",))


@dataclass(frozen=True, slots=True)
class Path:
    """From the first table to the last; `words` says over what, `marks` what on it was declared."""

    tables: tuple[str, str]
    words: str
    marks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Joins:
    """`same`: tables that are one namespace. `links`: by table, those that lead into another. `lost`: ends that were not found,
    as (table, words)."""

    same: tuple[tuple[str, ...], ...] = ()
    leaks: tuple[Path, ...] = ()
    allowed: tuple[Path, ...] = ()
    links: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    lost: tuple[tuple[str, str], ...] = ()
    followed: int = 0


def joins(surveyed: proof.Surveyed, tables: Iterable[str]) -> Joins:
    """What joins any of `tables` with another one."""
    return _Graph(surveyed, frozenset(tables)).joins()


class _Graph:
    def __init__(self, surveyed: proof.Surveyed, tables: frozenset[str]) -> None:
        self._namespaces = {each.inode: each for each in surveyed.namespaces}
        self._tables = {each.inode: tuple(sorted(tables & set(each.tables))) for each in surveyed.namespaces}
        self._links = {(each.inode, link.index): link for each in surveyed.namespaces for link in each.links}
        # Node -> node -> the mark that declares the edge, "" for none.
        self._edges: defaultdict[Node, dict[Node, str]] = defaultdict(dict)
        self._lost: dict[Node, str] = {}
        for (inode, _), link in self._links.items():
            self._add(inode, link)

    def joins(self) -> Joins:
        leaks = list(self._paths(declared=False))
        known = {path.tables for path in leaks}
        allowed = [path for path in self._paths(declared=True) if path.tables not in known and path.marks]
        return Joins(
            same=tuple(tables for tables in self._tables.values() if len(tables) > 1),
            leaks=tuple(leaks),
            allowed=tuple(allowed),
            links=self._leading(),
            lost=tuple(self._lost_ends()),
            followed=len(self._links),
        )

    def _add(self, inode: int, link: proof.Link) -> None:
        node = (inode, link.index, 0)
        self._edges[node] |= {}
        master = self._links.get((inode, link.master))
        if master is not None and master.kind not in _ROUTED:
            self._join(node, (inode, link.master, 0), "")
        if link.lower is None:
            return
        below = self._links.get((link.lower.namespace, link.lower.index))
        if below is None:
            self._lost[node] = f"{link.kind} {link.name}"
            return
        self._join(node, (link.lower.namespace, link.lower.index, link.vlan_id), _declared(link, below))

    def _join(self, one: Node, other: Node, mark: str) -> None:
        self._edges[one][other] = self._edges[other][one] = mark

    def _components(self, *, declared: bool) -> Iterator[set[Node]]:
        """Nodes that reach each other; over declared edges too, where asked."""
        seen: set[Node] = set()
        for node in self._edges:
            if node not in seen:
                component = set(self._reached([node], declared=declared))
                seen |= component
                yield component

    def _reached(self, begin: Iterable[Node], *, declared: bool) -> dict[Node, Node | None]:
        """Every node that is reached from `begin`, with the one before it."""
        before: dict[Node, Node | None] = dict.fromkeys(begin)
        queue = deque(before)
        while queue:
            node = queue.popleft()
            for other, mark in self._edges[node].items():
                if other not in before and (declared or not mark):
                    before[other] = node
                    queue.append(other)
        return before

    def _in_tables(self, component: Iterable[Node]) -> dict[str, list[Node]]:
        """The chosen tables in it, by name, with their nodes. A namespace that is several tables counts as its first."""
        found: defaultdict[str, list[Node]] = defaultdict(list)
        for node in component:
            for table in self._tables[node[0]][:1]:
                found[table].append(node)
        return dict(sorted(found.items()))

    def _paths(self, *, declared: bool) -> Iterator[Path]:
        """From the first table of each component to each other one."""
        for component in self._components(declared=declared):
            first, *others = self._in_tables(component).items() or [("", [])]
            before = self._reached(first[1], declared=declared) if others else {}
            for table, nodes in others:
                nearest = next(node for node in before if node in nodes)
                yield self._path((first[0], table), nearest, before)

    def _path(self, tables: tuple[str, str], end: Node, before: Mapping[Node, Node | None]) -> Path:
        nodes = [end]
        while (previous := before[nodes[-1]]) is not None:
            nodes.append(previous)
        nodes.reverse()
        marks = {self._edges[one][other] for one, other in itertools.pairwise(nodes)} - {""}
        return Path(tables, " - ".join(self._words(node) for node in nodes), tuple(sorted(marks)))

    def _words(self, node: Node) -> str:
        link = self._links[node[0], node[1]]
        namespace = self._namespaces[node[0]]
        vlan = f" (VLAN {node[2]})" if node[2] else ""
        return f"{f'{link.kind} ' if link.kind else ''}{link.name}{vlan} in {where(namespace)}"

    def _leading(self) -> dict[str, tuple[str, ...]]:
        found: defaultdict[str, list[str]] = defaultdict(list)
        for component in self._components(declared=False):
            inside = self._in_tables(component)
            for table, nodes in inside.items() if len(inside) > 1 else ():
                found[table] += sorted({self._links[node[0], node[1]].name for node in nodes})
        return {table: tuple(names) for table, names in found.items()}

    def _lost_ends(self) -> Iterator[tuple[str, str]]:
        """Of links that a chosen table reaches."""
        for component in self._components(declared=False) if self._lost else ():
            for table in list(self._in_tables(component))[:1]:
                for node in sorted(component & self._lost.keys()):
                    yield table, self._words(node)


def where(namespace: proof.Namespace) -> str:
    return full(namespace.tables[0]) if namespace.tables else f"the namespace {namespace.place}"


def _declared(link: proof.Link, below: proof.Link) -> str:
    """The mark that says that `link` leads to `below` on purpose."""
    if link.kind in _PAIRED:
        common = sorted(set(link.marks) & set(below.marks))
        return next((mark for mark in common if mark.startswith(proof.CROSSINGS)), "")
    return next((mark for mark in link.marks if mark.startswith(operation.MARK_PREFIX)), "")
