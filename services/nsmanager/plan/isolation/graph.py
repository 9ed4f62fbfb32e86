"""Follows links through all namespaces of the device: which tables share a network, and over which links.

Nodes are links, VLANs on links, and the routing of a namespace (its link 0); edges join the two ends of a veth, a port and its
bridge, a macvlan and what it sits on, a tunnel and the routing that its packets take, the links between which a namespace routes.
An edge from one namespace into another is declared where a resource says so; what only declared ones join is told as allowed.
"""

import enum
import itertools
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from crossns import proof
from services.nsmanager.plan.isolation.declared import Declared
from services.nsmanager.plan.isolation.evidence import full

# Namespace, index (0: its routing), VLAN id (0: what is untagged, or the link itself).
Node = tuple[int, int, int]
_ROUTING = 0
# A VRF's ports share its routes, not its frames.
_ROUTED = frozenset(("vrf",))
# Kinds of whose underlay the kernel tells nothing.
_UNTOLD = frozenset(("wireguard",))


class _Over(enum.Enum):
    """Which edges between namespaces a path may take."""

    UNDECLARED = enum.auto()
    DECLARED = enum.auto()
    ANY = enum.auto()


@dataclass(frozen=True, slots=True)
class Path:
    """From the first table to the last; `words` says over what, `declared` which resources say so."""

    tables: tuple[str, str]
    words: str
    declared: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Joins:
    """`same`: tables that are one namespace. `links`: by table, those that lead into another. `lost`: where it is not known
    where links lead, as (table, words). `meeting`: tables that lead into one namespace, which joins them not."""

    same: tuple[tuple[str, ...], ...] = ()
    leaks: tuple[Path, ...] = ()
    allowed: tuple[Path, ...] = ()
    links: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    lost: tuple[tuple[str, str], ...] = ()
    meeting: tuple[tuple[tuple[str, ...], str], ...] = ()
    followed: int = 0


def joins(surveyed: proof.Surveyed, tables: Iterable[str], declared: Declared) -> Joins:
    """What joins any of `tables` with another one."""
    return _Graph(surveyed, frozenset(tables), declared).joins()


def where(namespace: proof.Namespace) -> str:
    return full(namespace.tables[0]) if namespace.tables else f"the namespace {namespace.place}"


class _Graph:
    def __init__(self, surveyed: proof.Surveyed, tables: frozenset[str], declared: Declared) -> None:
        self._declared = declared
        self._namespaces = {each.inode: each for each in surveyed.namespaces}
        self._tables = {each.inode: tuple(sorted(tables & set(each.tables))) for each in surveyed.namespaces}
        self._links = {(each.inode, link.index): link for each in surveyed.namespaces for link in each.links}
        # Node -> node -> the resource that declares the edge, "" for none; None within a namespace.
        self._edges: defaultdict[Node, dict[Node, str | None]] = defaultdict(dict)
        self._lost: dict[Node, str] = {}
        for (inode, _), link in self._links.items():
            self._add(inode, link)
        for each in surveyed.namespaces:
            self._add_routing(each)

    def joins(self) -> Joins:
        leaks = {path.tables: path for path in (*self._mixed(), *self._paths(_Over.UNDECLARED))}
        allowed = [path for path in self._paths(_Over.DECLARED) if path.tables not in leaks]
        return Joins(
            same=tuple(tables for tables in self._tables.values() if len(tables) > 1),
            leaks=tuple(leaks.values()),
            allowed=tuple(allowed),
            links=self._leading(),
            lost=tuple(self._lost_ends()),
            meeting=tuple(self._meeting()),
            followed=len(self._links),
        )

    def _add(self, inode: int, link: proof.Link) -> None:
        node = (inode, link.index, 0)
        self._edges[node] |= {}
        master = self._links.get((inode, link.master))
        if master is not None and master.kind not in _ROUTED:
            self._join(node, (inode, link.master, 0), None)
        if link.kind in _UNTOLD:
            self._lost[node] = "the kernel does not tell in which namespace the packets leave of"
        if link.lower is None:
            return
        there, index = link.lower.namespace, link.lower.index
        below = self._links.get((there, index))
        if below is None and not (index == _ROUTING and there in self._namespaces):
            self._lost[node] = "in no namespace that is found is the other end of"
            return
        declared = None if there == inode else self._declaration(inode, link, there, below)
        self._join(node, (there, index, link.vlan_id), declared)

    def _declaration(self, inode: int, link: proof.Link, there: int, below: proof.Link | None) -> str:
        """The resource that says that `link` leads to `below`, "" for none."""
        ends = [
            [(table, mark) for table in self._namespaces[namespace].tables for mark in (end.marks if end else ())]
            for namespace, end in ((inode, link), (there, below))
        ]
        return next(filter(None, (self._declared.get(frozenset(pair), "") for pair in itertools.product(*ends))), "")

    def _add_routing(self, namespace: proof.Namespace) -> None:
        """A namespace that forwards joins its links. One in which a tunnel's packets leave joins that with each of them, and is
        taken to join these, too. What a chosen table joins begins or ends in it: it needs no way through."""
        routing = (namespace.inode, _ROUTING, 0)
        if not self._tables[namespace.inode] and (namespace.forwards or routing in self._edges):
            for link in namespace.links:
                self._join(routing, (namespace.inode, link.index, 0), None)

    def _join(self, one: Node, other: Node, declared: str | None) -> None:
        self._edges[one][other] = self._edges[other][one] = declared

    def _components(self, over: _Over) -> Iterator[set[Node]]:
        """Nodes that reach each other."""
        seen: set[Node] = set()
        for node in self._edges:
            if node not in seen:
                component = set(self._reached([node], over))
                seen |= component
                yield component

    def _reached(self, begin: Iterable[Node], over: _Over) -> dict[Node, Node | None]:
        """Every node that is reached from `begin`, with the one before it."""
        before: dict[Node, Node | None] = dict.fromkeys(begin)
        queue = deque(before)
        while queue:
            node = queue.popleft()
            for other, declared in self._edges[node].items():
                if other not in before and _passes(declared, over):
                    before[other] = node
                    queue.append(other)
        return before

    def _in_tables(self, component: Iterable[Node]) -> dict[str, AbstractSet[Node]]:
        """The chosen tables in it, by name, with their nodes. A namespace that is several tables counts as its first."""
        found: defaultdict[str, set[Node]] = defaultdict(set)
        for node in component:
            for table in self._tables[node[0]][:1]:
                found[table].add(node)
        return dict(sorted(found.items()))

    def _paths(self, over: _Over) -> Iterator[Path]:
        """From the first table of each component to each other one."""
        for component in self._components(over):
            first, *others = self._in_tables(component).items() or [("", set())]
            before = self._reached(first[1], over) if others else {}
            for table, nodes in others:
                yield self._path((first[0], table), nodes, before)

    def _mixed(self) -> Iterator[Path]:
        """Where declared edges lead on from what is not declared: between parts that declared ones alone do not join."""
        parts = {node: number for number, part in enumerate(self._components(_Over.DECLARED)) for node in part}
        for component in self._components(_Over.ANY):
            if not any(any(self._edges[node].values()) for node in component):
                continue
            by_part: defaultdict[int, dict[str, set[Node]]] = defaultdict(dict)
            for table, nodes in self._in_tables(component).items():
                for node in nodes:
                    by_part[parts[node]].setdefault(table, set()).add(node)
            first, *others = by_part.values() or [{}]
            before = {table: self._reached(nodes, _Over.ANY) for table, nodes in list(first.items())[:2]}
            for other in others:
                pair = next(((one, two) for one in before for two in other if one != two), None)
                if pair is not None:
                    yield self._path(pair, other[pair[1]], before[pair[0]])

    def _path(self, tables: tuple[str, str], ends: AbstractSet[Node], before: Mapping[Node, Node | None]) -> Path:
        """To the nearest of `ends`; tables in the order of their names."""
        nodes = [next(node for node in before if node in ends)]
        while (previous := before[nodes[-1]]) is not None:
            nodes.append(previous)
        one, two = tables
        if one < two:
            nodes.reverse()
        declared = {self._edges[each][other] for each, other in itertools.pairwise(nodes)} - {"", None}
        words = " - ".join(self._words(node) for node in nodes)
        return Path((min(one, two), max(one, two)), words, tuple(sorted(filter(None, declared))))

    def _words(self, node: Node) -> str:
        namespace = self._namespaces[node[0]]
        if node[1] == _ROUTING:
            return f"routing in {where(namespace)}"
        link = self._links[node[0], node[1]]
        vlan = f" (VLAN {node[2]})" if node[2] else ""
        return f"{f'{link.kind} ' if link.kind else ''}{link.name}{vlan} in {where(namespace)}"

    def _leading(self) -> dict[str, tuple[str, ...]]:
        found: defaultdict[str, list[str]] = defaultdict(list)
        for component in self._components(_Over.UNDECLARED):
            inside = self._in_tables(component)
            for table, nodes in inside.items() if len(inside) > 1 else ():
                found[table] += sorted({self._links[node[0], node[1]].name for node in nodes if node[1] != _ROUTING})
        return {table: tuple(names) for table, names in found.items() if names}

    def _lost_ends(self) -> Iterator[tuple[str, str]]:
        """Of links that a chosen table reaches."""
        for component in self._components(_Over.UNDECLARED) if self._lost else ():
            for table in list(self._in_tables(component))[:1]:
                for node in sorted(component & self._lost.keys()):
                    yield table, f"{self._lost[node]} {self._words(node)}"

    def _meeting(self) -> Iterator[tuple[tuple[str, ...], str]]:
        met: defaultdict[int, list[set[str]]] = defaultdict(list)
        for component in self._components(_Over.ANY):
            inside = set(self._in_tables(component))
            for inode in {node[0] for node in component} if inside else ():
                if not self._tables[inode]:
                    met[inode].append(inside)
        for inode, groups in met.items():
            tables = set[str]().union(*groups)
            if len(groups) > 1 and len(tables) > 1:
                yield tuple(sorted(tables)), where(self._namespaces[inode])


def _passes(declared: str | None, over: _Over) -> bool:
    return declared is None or over is _Over.ANY or bool(declared) == (over is _Over.DECLARED)
