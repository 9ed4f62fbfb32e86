"""Judges a trial: each table came to hold the same, marked with its own number, and shows whose marks it sees.

A number that is another table's is a leak, wherever it turns up. So each table is compared with all others by one look at it.
"""

import errno
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from services.nsmanager.plan.isolation.evidence import Evidence, Finding, Layer, Played, Verdict, full, listed

_TAKEN = frozenset((errno.EEXIST, errno.EADDRINUSE))
_BY_NAME = {layer.name.lower(): layer for layer in Layer}
# Of the pair of links that a trial makes.
_LINKS = 2


def findings(evidence: Evidence) -> Iterator[Finding]:
    tried = _tried(evidence)
    whose = {each.number: each.table for each in evidence.played}
    failed = [*_not_held(evidence.played, tried), *_one_place(evidence.played, tried)]
    for each in evidence.played:
        failed += _seen(each, whose, tried)
        failed += _lost(each, tried)
        failed += _unanswered(each, tried)
        failed += _filtered(each, tried)
    yield from failed
    for layer in Layer:
        if not any(finding.layer is layer for finding in failed):
            yield Finding(layer, Verdict.ISOLATED, tried[layer], _shown(layer, evidence.played))


def _tried(evidence: Evidence) -> Mapping[Layer, str]:
    ground = evidence.ground
    return {
        Layer.INTERFACE: f"the same link name, MAC address, {ground.network} and IPv6 address in each at the same time",
        Layer.ROUTING: "a route and a rule of its own number put into each",
        Layer.NEIGHBOR: "another MAC address for one neighbour put into each, an ARP request and a solicitation to each",
        Layer.FIREWALL: "a rule put into each that drops whatever has not its own number",
        Layer.SOCKET: f"TCP and UDP port {ground.port} of the same addresses bound in each, and a datagram to each",
    }


def _not_held(played: Sequence[Played], tried: Mapping[Layer, str]) -> Iterator[Finding]:
    """What could not be put where it should be: because it is there already, or because this kernel has no such thing."""
    for each in played:
        for step in each.held.steps:
            if step.code:
                layer = _BY_NAME[step.layer]
                verdict = Verdict.LEAK if step.code in _TAKEN else Verdict.UNPROVEN
                words = f"{full(each.table)} did not take {step.what}: {step.words}"
                yield Finding(layer, verdict, tried[layer], words, (each.table,))


def _one_place(played: Sequence[Played], tried: Mapping[Layer, str]) -> Iterator[Finding]:
    by_cookie = Counter(each.traces.cookie for each in played)
    for cookie, count in by_cookie.items():
        if count > 1:
            tables = tuple(each.table for each in played if each.traces.cookie == cookie)
            words = f"the agents of {listed(tables)} are in the same namespace (cookie {cookie})"
            yield Finding(Layer.INTERFACE, Verdict.LEAK, tried[Layer.INTERFACE], words, tables)


def _seen(each: Played, whose: Mapping[int, str], tried: Mapping[Layer, str]) -> Iterator[Finding]:
    """Marks of other tables in this one, and marks of its own that are not there any more."""
    traces = each.traces
    if len(traces.links) != _LINKS:
        words = f"{full(each.table)} shows the throwaway links {', '.join(traces.links) or 'of nobody'}"
        yield Finding(Layer.INTERFACE, Verdict.LEAK, tried[Layer.INTERFACE], words, (each.table,))
    for layer, what, numbers in (
        (Layer.ROUTING, "the route", traces.routes),
        (Layer.ROUTING, "the rule", traces.rules),
        (Layer.NEIGHBOR, "the neighbour", traces.neighbors),
        (Layer.NEIGHBOR, "the answer to an ARP request", traces.arp_answers),
        (Layer.SOCKET, "the datagram", traces.datagrams),
    ):
        for number in sorted(set(numbers) - {each.number}):
            other = whose.get(number)
            words = f"{full(each.table)} shows {what} of {full(other) if other else f'nobody (number {number})'}"
            yield Finding(layer, Verdict.LEAK, tried[layer], words, tuple(filter(None, (each.table, other))))
    expected = Counter(step.what.partition(" ")[0] for step in each.held.steps if not step.code)
    for layer, what, numbers in (
        (Layer.ROUTING, "route", traces.routes),
        (Layer.ROUTING, "rule", traces.rules),
        (Layer.NEIGHBOR, "neighbour", traces.neighbors),
    ):
        if numbers.count(each.number) != expected[what]:
            words = f"{full(each.table)} holds {numbers.count(each.number)} of its {expected[what]} {what}s: somebody took it"
            yield Finding(layer, Verdict.LEAK, tried[layer], words, (each.table,))


def _lost(each: Played, tried: Mapping[Layer, str]) -> Iterator[Finding]:
    """What the throwaway rules let pass and the table's own firewall drops is the table's business."""
    arrived, counted = each.traces.datagrams.count(each.number), each.traces.counted
    if arrived < each.traces.sent and (counted is None or counted[0] < each.traces.sent):
        words = f"{arrived} of the {each.traces.sent} datagrams that {full(each.table)} sent itself arrived"
        yield Finding(Layer.SOCKET, Verdict.UNPROVEN, tried[Layer.SOCKET], words, (each.table,))


def _unanswered(each: Played, tried: Mapping[Layer, str]) -> Iterator[Finding]:
    """A table may answer one family alone, for its firewall or its ARP behaviour. One that answers nothing shows nothing."""
    if each.traces.sent and each.number not in each.traces.arp_answers:
        words = f"{full(each.table)} answered none of the {each.traces.sent} requests on its own link"
        yield Finding(Layer.NEIGHBOR, Verdict.UNPROVEN, tried[Layer.NEIGHBOR], words, (each.table,))


def _filtered(each: Played, tried: Mapping[Layer, str]) -> Iterator[Finding]:
    """Each sent as many datagrams with its own number as without one."""
    counted = each.traces.counted
    if counted is None or counted == (each.traces.sent, each.traces.sent):
        return
    verdict = Verdict.LEAK if any(counted) else Verdict.UNPROVEN
    words = (
        f"the rules of {full(each.table)} let {counted[0]} pass and dropped {counted[1]}, "
        f"where it sent {each.traces.sent} to pass and {each.traces.sent} to be dropped"
    )
    yield Finding(Layer.FIREWALL, verdict, tried[Layer.FIREWALL], words, (each.table,))


def _shown(layer: Layer, played: Sequence[Played]) -> str:
    traces = [each.traces for each in played]
    match layer:
        case Layer.INTERFACE:
            return f"{len(played)} tables hold them together; each shows its own pair of links and no other"
        case Layer.ROUTING:
            return (
                f"{sum(len(each.routes) for each in traces)} routes and {sum(len(each.rules) for each in traces)} rules, "
                "each found in the table that it was put into and in no other"
            )
        case Layer.NEIGHBOR:
            return (
                f"{sum(len(each.neighbors) for each in traces)} entries, each in its own table only; "
                f"{sum(len(each.arp_answers) for each in traces)} of {sum(each.sent for each in traces)} requests answered, "
                "each by the table that was asked"
            )
        case Layer.FIREWALL:
            passed, dropped = (sum(each.counted[index] for each in traces if each.counted) for index in (0, 1))
            return f"{passed} datagrams passed and {dropped} dropped, as many as each table sent itself"
        case Layer.SOCKET:
            sent, arrived = sum(each.sent for each in traces), sum(len(each.datagrams) for each in traces)
            return f"{len(played)} tables bound it together; {arrived} of {sent} datagrams arrived, each where it belongs"
