"""Changes of links. A link is touched only if it carries a mark of ours, or is a card of `default` that is being taken.

Called by the agent's `operations`. No step leaves a link of ours without a mark: a virtual link is made under a provisional
name that the next agent sweeps away, and a card is marked before it leaves `default` and unmarked after it is back.
"""

import errno
import hashlib
import re
from collections.abc import Callable

from pyroute2.netlink.rtnl import RTM_DELLINK, RTM_NEWLINK
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from crossns import errors, operation
from services.nsmanager.agent import kind, observe, tap
from services.nsmanager.agent.rtnl import NLM_F_CREATE, NLM_F_EXCL, Attributes, Refused, Rtnl, fault
from services.nsmanager.agent.target import Place, Tables

# linux/rtnetlink.h, not in pyroute2's names for messages.
_RTM_NEWLINKPROP, _RTM_DELLINKPROP = 108, 109
_IFF_UP = 0x1
_PROVISIONAL = re.compile(r"~([0-9a-f]{10}|trial-[ab])")
# A kind that the kernel was built without, and an older kernel's way to say so.
_UNSUPPORTED = {errno.EOPNOTSUPP, errno.ENODEV}


def change(rtnl: Rtnl, index: int, attributes: Attributes, *, up: bool | None = None) -> None:
    """One RTM_NEWLINK for an existing link; raises Refused."""
    request = ifinfmsg()
    request["index"] = index
    request["attrs"] = attributes
    if up is not None:
        request["change"] = _IFF_UP
        request["flags"] = _IFF_UP if up else 0
    rtnl.change(RTM_NEWLINK, request)


def add_names(rtnl: Rtnl, index: int, names: list[str]) -> None:
    _properties(rtnl, _RTM_NEWLINKPROP, index, names)


def drop_names(rtnl: Rtnl, index: int, names: list[str]) -> None:
    _properties(rtnl, _RTM_DELLINKPROP, index, names)


def _properties(rtnl: Rtnl, message_kind: int, index: int, names: list[str]) -> None:
    if not names:
        return
    request = ifinfmsg()
    request["index"] = index
    request["attrs"] = [("IFLA_PROP_LIST", {"attrs": [("IFLA_ALT_IFNAME", name) for name in names]})]
    rtnl.change(message_kind, request, NLM_F_CREATE | NLM_F_EXCL if message_kind == _RTM_NEWLINKPROP else 0)


def remove(rtnl: Rtnl, index: int) -> None:
    request = ifinfmsg()
    request["index"] = index
    rtnl.change(RTM_DELLINK, request)


def sweep(rtnl: Rtnl) -> None:
    """Delete what an agent that was killed had not finished making."""
    for link in observe.links(rtnl):
        if _PROVISIONAL.fullmatch(link.name):
            try:
                remove(rtnl, link.index)
            except Refused as refused:
                # It went with its other end.
                if refused.code != errno.ENODEV:
                    raise


def create(rtnl: Rtnl, tables: Tables, wanted: operation.CreateLink) -> None:
    """Make the link under a provisional name, mark it, then give it its name and place in one step."""
    with tables.open(wanted.table, rtnl) as place:
        if _is_there(place, wanted):
            return
        provisional = f"~{hashlib.sha256(wanted.mark.encode()).hexdigest()[:10]}"
        _remove_provisional(rtnl, provisional)
        try:
            _make(rtnl, provisional, wanted)
        except Refused as refused:
            if refused.code in _UNSUPPORTED:
                message = f"this device's kernel does not offer links of kind {wanted.kind}"
                raise errors.PermanentError("KIND_UNSUPPORTED", message, kind=wanted.kind) from refused
            raise fault(refused, f"make {wanted.kind} {wanted.name}", link=wanted.name) from refused
        _place(rtnl, required(rtnl, provisional), place, wanted)


def _remove_provisional(rtnl: Rtnl, name: str) -> None:
    leftover = observe.link(rtnl, name)
    if leftover:
        remove(rtnl, leftover.index)


def _place(rtnl: Rtnl, made: operation.Link, place: Place, wanted: operation.CreateLink) -> None:
    try:
        add_names(rtnl, made.index, [wanted.mark])
        change(rtnl, made.index, [("IFLA_IFNAME", wanted.name), *place.attributes])
    except Refused as refused:
        remove(rtnl, made.index)
        refusal = fault(refused, f"place {wanted.name}", link=wanted.name)
        raise collision(refused, wanted.name, wanted.table) or refusal from refused


def _is_there(place: Place, wanted: operation.CreateLink) -> bool:
    """Whether the very link is there already; a link of that name without our mark is FOREIGN_OBJECT."""
    found = observe.link(place.rtnl, wanted.name)
    if found is None and observe.is_taken(place.rtnl, wanted.name):
        raise foreign(wanted.name, wanted.table)
    if found is None:
        return False
    if found.mark != wanted.mark:
        raise foreign(wanted.name, wanted.table)
    if found.kind != wanted.kind:
        message = f"{wanted.name} is there as {found.kind}, not {wanted.kind}: delete it first"
        raise errors.PermanentError("KERNEL_REFUSED", message, link=wanted.name)
    return True


def _make(rtnl: Rtnl, name: str, wanted: operation.CreateLink) -> None:
    if wanted.kind == "tap":
        tap.create(name, int(wanted.attributes.get("owner_uid", "0")))
        rtnl.tally.writes += 1
        return
    attributes: Attributes = [("IFLA_IFNAME", name)]
    if wanted.parent:
        attributes.append(("IFLA_LINK", _parent(rtnl, wanted.parent).index))
    request = ifinfmsg()
    request["attrs"] = [*attributes, *_encoded(wanted.kind, wanted.attributes)]
    rtnl.change(RTM_NEWLINK, request, NLM_F_CREATE | NLM_F_EXCL)


def _encoded(link_kind: str, attributes: dict[str, str]) -> Attributes:
    try:
        return kind.encoded(link_kind, attributes)
    except (KeyError, ValueError) as error:
        message = f"{attributes} are no attributes of a {link_kind}"
        raise errors.FailedPrecondition("INVALID_FIELD", message, kind=link_kind) from error


def _parent(rtnl: Rtnl, name: str) -> operation.Link:
    found = observe.link(rtnl, name)
    if found is None:
        message = f"the parent {name} is not there (yet)"
        raise errors.AgentUnavailable("PARENT_MISSING", message, link=name)
    return found


def delete(rtnl: Rtnl, wanted: operation.DeleteLink) -> None:
    found = observe.link(rtnl, wanted.name)
    if found is None:
        return
    if found.mark != wanted.mark:
        raise foreign(wanted.name)
    if not found.kind or found.was:
        message = f"{wanted.name} is a network card: it goes back to default, it is not deleted"
        raise errors.PermanentError("KERNEL_REFUSED", message, link=wanted.name)
    _carry_out(f"delete {wanted.name}", wanted.name, lambda: remove(rtnl, found.index))


def update(rtnl: Rtnl, wanted: operation.SetLink) -> None:
    """Change what is given and differs."""
    found = required(rtnl, wanted.name)
    if not found.mark:
        raise foreign(wanted.name)
    if wanted.new_name is not None and wanted.new_name != found.name:
        name = wanted.new_name
        _carry_out(f"rename {wanted.name}", name, lambda: _rename(rtnl, found, name))
    attributes: Attributes = []
    if wanted.mtu is not None and wanted.mtu != found.mtu:
        attributes.append(("IFLA_MTU", wanted.mtu))
    changed = {name: text for name, text in wanted.attributes.items() if found.attributes.get(name) != text}
    if changed:
        attributes += _encoded(found.kind, changed)
    up = wanted.up if wanted.up != found.up else None
    if attributes or up is not None:
        _carry_out(f"change {wanted.name}", wanted.name, lambda: change(rtnl, found.index, attributes, up=up))
    master = wanted.master
    if master is not None and master != found.master:
        _carry_out(f"join {wanted.name} to {master or 'nothing'}", wanted.name, lambda: _join(rtnl, found, master))


def _rename(rtnl: Rtnl, link: operation.Link, name: str) -> None:
    try:
        change(rtnl, link.index, [("IFLA_IFNAME", name)])
    except Refused as refused:
        # Before Linux 6.2 a link that is up keeps its name.
        if refused.code != errno.EBUSY or not link.up:
            raise
        change(rtnl, link.index, [], up=False)
        change(rtnl, link.index, [("IFLA_IFNAME", name)])
        change(rtnl, link.index, [], up=True)


def _join(rtnl: Rtnl, port: operation.Link, master: str) -> None:
    if not master:
        change(rtnl, port.index, [("IFLA_MASTER", 0)])
        return
    found = _parent(rtnl, master)
    # A bond takes only members that are down.
    is_lowered = found.kind == "bond" and port.up
    if is_lowered:
        change(rtnl, port.index, [], up=False)
    change(rtnl, port.index, [("IFLA_MASTER", found.index)])
    if is_lowered:
        change(rtnl, port.index, [], up=True)


def mark(rtnl: Rtnl, wanted: operation.MarkLink) -> None:
    """Take a card of this table for a resource where it is, or give it up."""
    found = required(rtnl, wanted.name)
    if not wanted.mark:
        _carry_out(f"unmark {wanted.name}", wanted.name, lambda: drop_names(rtnl, found.index, own_names(found)))
        return
    if found.mark not in {"", wanted.mark}:
        raise foreign(wanted.name)
    _carry_out(f"mark {wanted.name}", wanted.name, lambda: add_names(rtnl, found.index, missing_names(found, wanted.mark)))


def own_names(link: operation.Link) -> list[str]:
    """The altnames that we put on it."""
    return [name for name in (link.mark, f"{operation.WAS_PREFIX}{link.was}" if link.was else "") if name]


def missing_names(card: operation.Link, mark_name: str, was: str = "") -> list[str]:
    """The altnames that a card in `default` lacks to be taken under `mark_name`. `was`: the name to remember, if not its own."""
    names = [] if card.mark == mark_name else [mark_name]
    return names if card.was else [*names, f"{operation.WAS_PREFIX}{was or card.name}"]


def required(rtnl: Rtnl, name: str) -> operation.Link:
    """The link, or LINK_MISSING."""
    found = observe.link(rtnl, name)
    if found is None:
        raise errors.PermanentError("LINK_MISSING", f"there is no link {name}", link=name)
    return found


def foreign(name: str, table: str = "") -> errors.PermanentError:
    where = f" in {table}" if table else ""
    message = f"there is a link {name}{where} that is not ours: it stays untouched; remove it or choose another name"
    return errors.PermanentError("FOREIGN_OBJECT", message, link=name)


def collision(refused: Refused, name: str, table: str = "") -> errors.CrossnsError | None:
    """A name that is taken, as an error that says so; None for other refusals."""
    return foreign(name, table) if refused.code == errno.EEXIST else None


def _carry_out(what: str, name: str, act: Callable[[], None]) -> None:
    """`name`: the link, or the name that it shall get."""
    try:
        act()
    except Refused as refused:
        if refused.code == errno.ENODEV:
            raise errors.AgentUnavailable("LINK_MISSING", f"{name} went away meanwhile", link=name) from refused
        raise collision(refused, name) or fault(refused, what, link=name) from refused
