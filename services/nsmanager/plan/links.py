"""Links: cards are taken out of `default` and given back, virtual links are made and deleted, both by their mark.

A card in a table carries its resource's mark and remembers its name in `default`; so it is found after any absence, and a link
without a mark is never touched. A bridge cannot change namespace: like every virtual link it is made anew in its new table, when
it has gone from the old one. A link of ours that has another one's name steps aside, so that names can be exchanged.
"""

import hashlib
from collections.abc import Iterator, Mapping

from crossns import operation
from services.nsmanager.model import BUILT_IN, Desired, Link, resource_of
from services.nsmanager.plan.observed import At, Observed


def plan(desired: Desired, observed: Observed) -> tuple[At, ...]:
    """Make names free, then make, take in and set the table's links, parents before those that sit on them."""
    aside = _aside(desired, observed)
    renamed = (
        At(resource_of(mark), desired.id, operation.SetLink(name=observed.own_links[mark].name, new_name=name))
        for mark, name in sorted(aside.items())
    )
    ordered = sorted(desired.links, key=lambda link: (_depth(link, desired), link.resource))
    made = [op for link in ordered for op in _present(link, desired, observed, aside)]
    return (*renamed, *made, *(op for link in ordered for op in _ports(link, desired, observed)))


def released(desired: Desired, observed: Observed) -> tuple[At, ...]:
    """Give back the cards, and delete the virtual links, that carry our mark and are not wanted here."""
    return tuple(
        op
        for mark, link in sorted(observed.own_links.items())
        if not _is_wanted_here(mark, link, desired)
        for op in _release(mark, link, desired)
    )


def evacuated(desired: Desired, observed: Observed) -> tuple[At, ...]:
    """Give back every card of ours, wanted elsewhere or not: the namespace goes, and its virtual links with it."""
    cards = [(mark, link) for mark, link in sorted(observed.own_links.items()) if link.was]
    return tuple(op for mark, link in cards for op in _release(mark, link, desired))


def find(link: Link, desired: Desired, observed: Observed) -> operation.Link | None:
    """The link in its table; None where it is elsewhere or nowhere, or must be made anew."""
    seen = observed.own_links.get(link.mark)
    return seen if seen is not None and _is_wanted_here(link.mark, seen, desired) else None


def is_expected(link: Link, desired: Desired, observed: Observed) -> bool:
    """Whether the link is there, or about to be: a card may be missing, a virtual link still elsewhere."""
    if find(link, desired, observed) is not None:
        return True
    return card(link, observed) is not None if link.kind == "physical" else not elsewhere(link, desired, observed)


def elsewhere(link: Link, desired: Desired, observed: Observed) -> str:
    """The table that still has the virtual link, which was moved to this one; "" where none has."""
    table, _ = observed.marked.get(link.mark, (desired.id, None))
    return table if link.kind != "physical" and table != desired.id else ""


def foreign(observed: Observed) -> tuple[str, ...]:
    """Names of the table's links that are not ours; those that every namespace has by itself left out."""
    return tuple(sorted(name for name, link in observed.links.items() if not link.mark and name not in _OF_THE_KERNEL))


def card(link: Link, observed: Observed) -> tuple[str, operation.Link] | None:
    """Where the card is that is not in its table, and what it looks like there. One that was taken before is known by its MAC
    address, too, should somebody have taken its mark off and given it another name."""
    if link.mark in observed.marked:
        return observed.marked[link.mark]
    chosen = next((seen for seen in observed.cards if _fits(link, seen)), None)
    found = chosen or next((seen for seen in observed.cards if (seen.mac, seen.kind) == observed.macs.get(link.mark)), None)
    return (BUILT_IN, found) if found is not None else None


def is_known(link: Link, seen: operation.Link) -> bool:
    """Whether a virtual link that carries the mark is as the spec says, so that it need not be made anew; what the spec does not
    say must not be there."""
    keys = (seen.attributes.keys() | link.attributes.keys()) - _MUTABLE
    return seen.kind == link.kind and all(seen.attributes.get(key, "") == link.attributes.get(key, "") for key in keys)


# What the kernel puts into each namespace, some of it only with a module (Documentation/admin-guide/sysctl/net.rst, fb_tunnels).
_OF_THE_KERNEL = frozenset(("lo", "tunl0", "sit0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6tnl0", "ip6_vti0", "ip6gre0"))
# Attributes that can be changed on a living link.
_MUTABLE = frozenset({"stp"})


def missing_ports(link: Link, desired: Desired, observed: Observed) -> tuple[str, ...]:
    """Resources that should be ports of the bridge or bond and are not."""
    joined = {seen.mark for seen in observed.own_links.values() if seen.master == link.name}
    return tuple(port for port in link.ports if port not in desired.all_links or desired.all_links[port].mark not in joined)


def _depth(link: Link, desired: Desired) -> int:
    """How many parents a link has below it; a loop ends at the number of links."""
    depth = 0
    while link.parent in desired.all_links and depth <= len(desired.all_links):
        link = desired.all_links[link.parent]
        depth += 1
    return depth


def _fits(link: Link, seen: operation.Link) -> bool:
    return seen.name == link.card_name if link.card_name else seen.mac == link.card_mac


def _is_wanted_here(mark: str, seen: operation.Link, desired: Desired) -> bool:
    wanted = desired.all_links.get(resource_of(mark))
    if wanted is None:
        return False
    if wanted.kind == "physical":
        # A card that is wanted elsewhere is pulled by the table that wants it.
        return True
    return wanted.table == desired.id and is_known(wanted, seen)


def _release(mark: str, seen: operation.Link, desired: Desired) -> Iterator[At]:
    resource = resource_of(mark)
    if not seen.was:
        yield At(resource, desired.id, operation.DeleteLink(name=seen.name, mark=mark))
    elif desired.is_built_in:
        # Its name first: once the mark is off, nobody knows any more what it was.
        if seen.name != seen.was:
            yield At(resource, BUILT_IN, operation.SetLink(name=seen.name, new_name=seen.was))
        yield At(resource, BUILT_IN, operation.MarkLink(name=seen.was, mark=""))
    else:
        yield At(resource, desired.id, operation.MoveLink(name=seen.name, table=BUILT_IN, new_name=seen.was, mark=""))


def _aside(desired: Desired, observed: Observed) -> dict[str, str]:
    """Links that stay, or wait for the table that pulls them, under a name that another link of the table wants: mark -> the name
    that they take meanwhile. An agent's sweep leaves it alone."""
    wanted = {link.name: link.mark for link in desired.links}
    return {
        mark: f"~~{hashlib.sha256(mark.encode()).hexdigest()[:10]}"
        for mark, seen in observed.own_links.items()
        if wanted.get(seen.name, mark) != mark and _is_wanted_here(mark, seen, desired)
    }


def _present(link: Link, desired: Desired, observed: Observed, aside: Mapping[str, str]) -> Iterator[At]:
    seen = find(link, desired, observed)
    if seen is not None:
        yield from _settings(link, seen, aside.get(link.mark, seen.name), desired.id)
        return
    if link.kind != "physical":
        if elsewhere(link, desired, observed):
            return
        yield _created(link, desired)
        yield from _settings(link, None, link.name, desired.id)
        return
    place = card(link, observed)
    if place is None:
        return
    table, there = place
    if table == desired.id:
        yield At(link.resource, table, operation.MarkLink(name=there.name, mark=link.mark))
        yield from _settings(link, there, there.name, desired.id)
    else:
        was = link.card_name if not there.mark else ""
        taken = operation.MoveLink(name=there.name, table=desired.id, new_name=link.name, mark=link.mark, was=was)
        yield At(link.resource, table, taken)
        yield from _settings(link, None, link.name, desired.id)


def _created(link: Link, desired: Desired) -> At:
    """A link on a parent is made where the parent is, into this table."""
    parent = desired.all_links.get(link.parent)
    where = parent.table if parent is not None else desired.id
    create = operation.CreateLink(
        name=link.name,
        mark=link.mark,
        kind=link.kind,  # type: ignore[arg-type]
        parent=parent.name if parent is not None else "",
        table="" if where == desired.id else desired.id,
        attributes=dict(link.attributes),
    )
    return At(link.resource, where, create)


def _settings(link: Link, seen: operation.Link | None, name: str, table: str) -> Iterator[At]:
    """Bring name, MTU, state and changeable attributes in line. `seen` None: it was just made, or moved in, and is down."""
    new_name = link.name if name != link.name else None
    mtu = link.mtu if link.mtu and (seen is None or seen.mtu != link.mtu) else None
    up = link.up if seen is None or seen.up != link.up else None
    attributes = {
        key: value
        for key, value in link.attributes.items()
        if seen is not None and key in _MUTABLE and seen.attributes.get(key) != value
    }
    if new_name is not None or mtu is not None or attributes or up or (up is not None and seen is not None):
        yield At(link.resource, table, operation.SetLink(name=name, new_name=new_name, mtu=mtu, up=up, attributes=attributes))


def _ports(link: Link, desired: Desired, observed: Observed) -> Iterator[At]:
    """Join the ports of a bridge or bond, let go of those that are ours and no longer named."""
    if link.kind not in ("bridge", "bond"):
        return
    wanted = {desired.all_links[port].mark: desired.all_links[port] for port in link.ports if port in desired.all_links}
    for mark, port in sorted(wanted.items()):
        seen = observed.own_links.get(mark)
        is_coming = port.kind != "physical" or card(port, observed) is not None
        if port.table == desired.id and (seen.master != link.name if seen is not None else is_coming):
            yield At(link.resource, desired.id, operation.SetLink(name=port.name, master=link.name))
    for mark, seen in sorted(observed.own_links.items()):
        if seen.master == link.name and mark not in wanted:
            yield At(link.resource, desired.id, operation.SetLink(name=seen.name, master=""))
