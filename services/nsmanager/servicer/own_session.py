"""Refuses what would cut the session that the operator works in, unless he says that it may be cut.

Called by Interfaces before each write of an interface, by the moves, and by the evacuation of a table. Where the session goes is
asked of the table's agent at that moment: one that does not answer refuses the change, too.
"""

from typing import Any

from crossns import errors, names, operation, resource
from crossns.registry import Registry
from crossns.v1 import interface_pb2
from services.nsmanager import model
from services.nsmanager.servicer.impact import Impacts


class OwnSession:
    def __init__(self, registry: Registry, impacts: Impacts) -> None:
        self._registry = registry
        self._impacts = impacts

    async def check_created(self, request: Any) -> None:
        """A card that is taken out of `default` leaves its addresses there."""
        if _is_asked(request):
            await self._check_taken(f"interfaces/{request.interface_id}", request.interface, request)

    async def check_updated(self, request: Any) -> None:
        if not _is_asked(request):
            return
        name = names.check(request.interface.name, "interfaces", "interface.name")
        current = await self._current(name)
        if current is None:
            await self._check_taken(name, request.interface, request)
            return
        after = resource.masked(current, request.interface, request.update_mask)
        if _cuts(_link(current), _link(after), request.own_session.local_address):
            await self._check_lost(_link(current), request)

    async def check_deleted(self, request: Any) -> None:
        current = await self._current(request.name) if _is_asked(request) else None
        if current is not None:
            await self._check_lost(_link(current), request)

    async def _current(self, name: str) -> resource.Resource | None:
        try:
            return await self._registry.get(name)
        except errors.NotFound:
            return None

    async def _check_taken(self, name: str, given: interface_pb2.Interface, request: Any) -> None:
        wanted = interface_pb2.Interface(name=name, spec=given.spec)
        link = model.interface(wanted)

        def is_card(seen: operation.Link) -> bool:
            return seen.name == link.card_name or (bool(link.card_mac) and seen.mac == link.card_mac)

        if link.kind == "physical" and link.table != model.BUILT_IN:
            check(await self._impacts.carries(model.BUILT_IN, is_card, request.own_session), name, request)

    async def _check_lost(self, link: model.Link, request: Any) -> None:
        carried = await self._impacts.carries(link.table, lambda seen: seen.mark == link.mark, request.own_session)
        check(carried, link.resource, request)


def check(is_carried: bool, name: str, request: Any) -> None:
    """FailedPrecondition OWN_SESSION."""
    if is_carried and not request.cut_own_session:
        how = "set cut_own_session (on the command line --cut-my-session) if it may be cut"
        raise errors.FailedPrecondition(
            "OWN_SESSION", f"{name} carries the session that you are working in: {how}", resource=name
        )


def _link(message: resource.Resource) -> model.Link:
    assert isinstance(message, interface_pb2.Interface)  # noqa: S101 - by its kind
    return model.interface(message)


def _is_asked(request: Any) -> bool:
    return request.HasField("own_session") and not request.cut_own_session


def _cuts(before: model.Link, after: model.Link, address: str) -> bool:
    """Whether a session of that address of the device's ends where it went over the link."""
    lost = {_host(each) for each in before.addresses} - {_host(each) for each in after.addresses}
    return after.table != before.table or (before.up and not after.up) or address in lost


def _host(prefix: str) -> str:
    return prefix.partition("/")[0]
