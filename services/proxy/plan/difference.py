"""The one question: does HAProxy run what the vServices make, with every listener of it open and every server as it should be?"""

from collections.abc import Iterator

from services.proxy import model, render
from services.proxy.plan import place, slots, wish
from services.proxy.plan.engine import Observed, Operation, SaveEngine, SetServer, StartEngine, StopEngine, digest
from services.proxy.plan.wish import Wish


def plan(desired: model.Desired, observed: Observed) -> tuple[Operation, ...]:
    """A reload where the structure is another one; else the servers that changed, and the text for HAProxy's next start."""
    if not desired.services:
        return (StopEngine(),) if observed.running else ()
    wanted = wish.wish(desired, observed)
    missing = closed(desired, observed)
    if wanted.config.structure != observed.structure or missing or not _has_lines(wanted, observed):
        generations = {vservice.name: vservice.generation for vservice in desired.services}
        return (StartEngine(wanted.config.text, _ended(wanted), generations),)
    changes = tuple(_changes(wanted, observed))
    is_kept = observed.digest == digest(wanted.config.text)
    return changes if is_kept else (*changes, SaveEngine(wanted.config.text))


def _has_lines(wanted: Wish, observed: Observed) -> bool:
    """Structure and servers are asked for one after the other, and the worker may have been replaced between them."""
    return all(name in observed.servers.get(section, {}) for section, name in wanted.servers)


def closed(desired: model.Desired, observed: Observed) -> frozenset[render.Part]:
    """The frontends that should be open and are not, at each of their ports."""
    tables, left_out = wish.entered(desired, observed), wish.left_out(desired, observed)
    return frozenset(
        part
        for vservice in desired.services
        for places in (place.places(vservice, tables),)
        for name, part in places.frontends.items()
        if part is not None and part not in left_out and not observed.listeners.issuperset(places.listeners[name])
    )


def _changes(wanted: Wish, observed: Observed) -> Iterator[SetServer]:
    """Those that rest first: whoever comes may follow somebody who leaves."""
    for (section, name), server in sorted(wanted.servers.items(), key=lambda each: (each[1].enabled, each[0])):
        seen = observed.servers[section][name]
        is_disabled = _is_disabled(wanted, section, name)
        if not is_like(seen.server, server) or (is_disabled and seen.is_busy):
            # Where the member is, and where it was a moment ago.
            sockets = {seen.server.socket, server.socket} if is_disabled else set()
            ended = frozenset(render.Part(section, slots.namespace(name), socket) for socket in sockets)
            yield SetServer(section, name, seen.server, server, render.owner(section), ended)


def is_like(seen: render.Server, wanted: render.Server) -> bool:
    """Whether a server is as wanted; where it points is of no interest while nobody has it."""
    return seen == wanted or (not seen.enabled and wanted == render.Server())


def _is_disabled(wanted: Wish, section: str, name: str) -> bool:
    member = wanted.owners.get((section, name))
    return member is not None and member.state == "disabled"


def _ended(wanted: Wish) -> frozenset[render.Part]:
    """All disabled members: which workers have connections to them only they know."""
    return frozenset(
        render.Part(section, slots.namespace(name), member.socket)
        for (section, name), member in wanted.owners.items()
        if member.state == "disabled"
    )
