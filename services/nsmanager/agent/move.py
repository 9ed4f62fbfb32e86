"""Moves a link from this table to another, so that a crash at any moment leaves it in one of them, and marked.

Called by the agent's `operations`. Altnames travel with a link, and one message gives it its new namespace and name together
(tried with Linux 6.18): so it is marked before it leaves, and the marks come off only where it came from.
"""

from crossns import errors, operation
from services.nsmanager.agent import links, observe
from services.nsmanager.agent.rtnl import Refused, Rtnl, fault
from services.nsmanager.agent.target import DEFAULT, Place, Tables


def move(rtnl: Rtnl, tables: Tables, wanted: operation.MoveLink) -> None:
    """Nothing changes where the target has a link of that name."""
    with tables.open(wanted.table, rtnl) as place:
        found = observe.link(rtnl, wanted.name)
        if found is None:
            _finish(place, wanted)
            return
        _check_ours(found, tables, wanted)
        # Before anything is done: where the name is taken the kernel moves the link and only then fails to rename it.
        if not (place.is_own and found.name == wanted.new_name) and observe.is_taken(place.rtnl, wanted.new_name):
            raise links.foreign(wanted.new_name, wanted.table)
        _carry(rtnl, found, place, wanted, is_taken=tables.own == DEFAULT)
        if not wanted.mark:
            _unmark(place, wanted)


def _check_ours(found: operation.Link, tables: Tables, wanted: operation.MoveLink) -> None:
    is_card_to_take = tables.own == DEFAULT and not found.mark and bool(wanted.mark) and found.kind != "loopback"
    is_own = bool(found.mark) and wanted.mark in {"", found.mark}
    if not (is_card_to_take or is_own):
        raise links.foreign(wanted.name)


def _carry(rtnl: Rtnl, found: operation.Link, place: Place, wanted: operation.MoveLink, *, is_taken: bool) -> None:
    added = links.missing_names(found, wanted.mark, wanted.was) if is_taken and wanted.mark else []
    try:
        links.add_names(rtnl, found.index, added)
        links.change(rtnl, found.index, [("IFLA_IFNAME", wanted.new_name), *place.attributes])
    except Refused as refused:
        _undo(rtnl, place, wanted, added)
        refusal = fault(refused, f"move {wanted.name} to {wanted.table} as {wanted.new_name}", link=wanted.name)
        raise links.collision(refused, wanted.new_name, wanted.table) or refusal from refused


def _undo(rtnl: Rtnl, place: Place, wanted: operation.MoveLink, added: list[str]) -> None:
    """The kernel may have moved the link and then failed to rename it: it comes back, and what was put on comes off."""
    gone = None if place.is_own else observe.link(place.rtnl, wanted.name)
    if gone is not None and set(added) <= set(links.own_names(gone)) and observe.link(rtnl, wanted.name) is None:
        with place.from_there() as home:
            links.change(place.rtnl, gone.index, home)
    # Some of them may not have been put on.
    left = observe.link(rtnl, wanted.name)
    if left is not None:
        links.drop_names(rtnl, left.index, [name for name in added if name in links.own_names(left)])


def _finish(place: Place, wanted: operation.MoveLink) -> None:
    """The link is not here: an earlier call got as far as having moved it, or there is none."""
    there = observe.link(place.rtnl, wanted.new_name)
    if there is None or (wanted.mark and there.mark != wanted.mark):
        raise errors.PermanentError("LINK_MISSING", f"there is no link {wanted.name}", link=wanted.name)
    if not wanted.mark and there.was == there.name:
        _unmark(place, wanted)


def _unmark(place: Place, wanted: operation.MoveLink) -> None:
    there = links.required(place.rtnl, wanted.new_name)
    links.drop_names(place.rtnl, there.index, links.own_names(there))
