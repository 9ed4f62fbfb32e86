"""Judges what exists: where links lead, what leaves over those that lead into another table, who holds sockets elsewhere."""

import ipaddress
from collections.abc import Iterator

from crossns import examination, proof
from services.nsmanager.plan.isolation.evidence import Evidence, Finding, Layer, Verdict, full, listed
from services.nsmanager.plan.isolation.graph import Joins, Path, where

_LINKS = "where links lead: veths, bridges, macvlans, VLANs, tunnels, and routing, through every namespace of the device"
_ROUTES = "routes that leave over a link into another table"
_NEIGHBORS = "neighbours on a link into another table"
_SOCKETS = "processes with sockets, tun devices or threads in another table than their own"
_SAME = "whether each table is a namespace of its own"


def findings(evidence: Evidence, joins: Joins) -> Iterator[Finding]:
    yield from _one_namespace(joins)
    yield from _astray(evidence)
    yield from _links(evidence, joins)
    yield from _ways(evidence, joins)
    yield from _sockets(evidence)


def _one_namespace(joins: Joins) -> Iterator[Finding]:
    """Two tables that are one have nothing between them."""
    for tables in joins.same:
        for layer in Layer:
            yield Finding(layer, Verdict.LEAK, _SAME, f"{listed(tables)} are the same network namespace", tables)


def _astray(evidence: Evidence) -> Iterator[Finding]:
    """Whoever goes by the name, as `ip netns` does, works in another table than he believes."""
    for table in evidence.astray:
        words = f"/run/netns/{table} is another namespace than {full(table)}: somebody mounted it there"
        yield Finding(Layer.INTERFACE, Verdict.LEAK, _SAME, words, (table,))


def _links(evidence: Evidence, joins: Joins) -> Iterator[Finding]:
    for path in joins.leaks:
        yield Finding(Layer.INTERFACE, Verdict.LEAK, _LINKS, path.words, path.tables)
    for table, words in joins.lost:
        yield Finding(Layer.INTERFACE, Verdict.UNPROVEN, _LINKS, words, (table,))
    dark = [each for each in evidence.surveyed.namespaces if each.dark]
    for each in dark:
        words = f"the links of {where(each)} could not be looked at: {each.dark}"
        yield Finding(Layer.INTERFACE, Verdict.UNPROVEN, _LINKS, words)
    for path in joins.allowed:
        yield Finding(Layer.INTERFACE, Verdict.ALLOWED, _LINKS, _declaration(path), path.tables)
    for tables, words in joins.meeting:
        met = f"{_few(tuple(map(full, tables)))} lead into {words}, which neither routes nor bridges between them"
        yield Finding(Layer.INTERFACE, Verdict.ISOLATED, _LINKS, met, tables)
    if not (joins.leaks or joins.lost or dark):
        namespaces = len(evidence.surveyed.namespaces)
        words = f"{joins.followed} links in {namespaces} namespaces followed: none leads into another table"
        yield Finding(Layer.INTERFACE, Verdict.ISOLATED, _LINKS, words + (" but those below" if joins.allowed else ""))


def _declaration(path: Path) -> str:
    return f"declared by {', '.join(path.declared)}: {path.words}"


def _ways(evidence: Evidence, joins: Joins) -> Iterator[Finding]:
    for layer, tried, of in ((Layer.ROUTING, _ROUTES, _routes_of), (Layer.NEIGHBOR, _NEIGHBORS, _neighbors_of)):
        found = {table: words for table, ways in evidence.ways.items() if (words := of(ways))}
        for table, words in sorted(found.items()):
            yield Finding(layer, Verdict.LEAK, tried, f"{full(table)}: {_few(words)}", (table,))
        if not found:
            links = sum(map(len, joins.links.values()))
            yield Finding(
                layer, Verdict.ISOLATED, tried, f"{links} such links, nothing on them" if links else "there is no such link"
            )


def _routes_of(ways: examination.Examination) -> tuple[str, ...]:
    """Without those that every link has by itself."""
    return tuple(f"{each.destination} {_over(each)}" for each in ways.routes if each.kind == "unicast" and not _is_own(each))


def _over(route: examination.Route) -> str:
    return ", ".join(f"via {hop.gateway} dev {hop.link}" if hop.gateway else f"dev {hop.link}" for hop in route.hops)


def _is_own(route: examination.Route) -> bool:
    network = ipaddress.ip_network(route.destination)
    return network.is_multicast or (network.is_link_local and network.version == 6)


def _neighbors_of(ways: examination.Examination) -> tuple[str, ...]:
    return tuple(f"{each.address} is {each.mac} on {each.link}" for each in ways.neighbors if each.mac)


def _few(words: tuple[str, ...], most: int = 3) -> str:
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return "; ".join(words[:most]) + more


def _sockets(evidence: Evidence) -> Iterator[Finding]:
    surveyed = evidence.surveyed
    tables = {each.inode: tuple(sorted(set(each.tables) & set(evidence.tables))) for each in surveyed.namespaces}
    held = [finding for holder in surveyed.holders if (finding := _held(holder, tables)) is not None]
    yield from held
    if surveyed.unseen:
        told = _few(tuple(f"process {each.pid} ({each.name}): {each.why}" for each in surveyed.unseen))
        yield Finding(Layer.SOCKET, Verdict.UNPROVEN, _SOCKETS, f"what could not be seen: {told}")
    if not surveyed.unseen and all(finding.verdict is Verdict.ALLOWED for finding in held):
        words = f"{surveyed.processes} processes looked into: none; {surveyed.own} of them are agents and engines, which may"
        yield Finding(Layer.SOCKET, Verdict.ISOLATED, _SOCKETS, words)


def _held(holder: proof.Holder, tables: dict[int, tuple[str, ...]]) -> Finding | None:
    """A process that touches two of the tables, by where it is and by what it holds."""
    touched = sorted({table for inode in (holder.namespace, *holder.things) for table in tables.get(inode, ())[:1]})
    if len(touched) < 2:
        return None
    own = listed(tables.get(holder.namespace, ())[:1]) or "no table"
    things = sorted(each for each in holder.things.items() if tables.get(each[0]))
    held = (f"{', '.join(words)} in {full(tables[inode][0])}" for inode, words in things)
    words = f"process {holder.pid} ({holder.name}) of {own} holds {'; '.join(held)}"
    if holder.service:
        return Finding(Layer.SOCKET, Verdict.ALLOWED, _SOCKETS, f"given to {holder.service} by agents: {words}", tuple(touched))
    return Finding(Layer.SOCKET, Verdict.LEAK, _SOCKETS, words, tuple(touched))
