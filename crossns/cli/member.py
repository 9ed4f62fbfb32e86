"""Puts members of a vService into another state, and waits for them.

Called by `service drain`, `enable` and `disable`. What is sent is the vService as it was read, with its etag, so that nobody's
change is lost. Waited for are those members only: another part that cannot be must not hold up the draining of this one.
"""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import click
from google.protobuf.field_mask_pb2 import FieldMask

from crossns import errors
from crossns.cli import columns, exits, part, progress, statistics
from crossns.cli.client import Client
from crossns.v1 import status_pb2, v_service_pb2, v_service_pb2_grpc

# How often a change is begun anew when somebody else has written in between: more than there are people at one vService.
_ATTEMPTS = 10
_POLL_S = 0.1
# Connections end in their own time.
_IDLE_POLL_S = 0.5
# A member that has been in ERROR for so long will not become as wanted by more time.
_HOPELESS_S = 2.0


@dataclass(frozen=True, slots=True)
class Change:
    """`member` of the vService `name`, as a person names it. `yes`: also where a pool is left without a member that serves."""

    name: str
    member: str
    state: v_service_pb2.MemberState.ValueType
    yes: bool = False

    @property
    def word(self) -> str:
        return part.word(self.state)


@dataclass(frozen=True, slots=True)
class _Stored:
    """What stands in the store now. `chosen`: the members that were meant, as `pool/member`."""

    generation: int
    chosen: tuple[str, ...]
    is_changed: bool


async def make(api: Client, change: Change, *, no_wait: bool, until_idle: bool = False) -> int:
    """Store the change and wait as asked; the exit status."""
    stored = await _store(api, change)
    if not stored.is_changed:
        click.echo(f"{columns.few(stored.chosen)} of {change.name} is {change.word} already: nothing changed")
    if no_wait:
        return exits.DONE
    status = await _wait_until_in_effect(api, change, stored)
    if status != exits.DONE or not until_idle:
        return status
    return await _wait_until_idle(api, change, stored.chosen)


async def _store(api: Client, change: Change) -> _Stored:
    """StaleEtag where others have written in between each time."""
    agreed: list[str] = []
    attempts = _ATTEMPTS
    while True:
        attempts -= 1
        found = await _get(api, change)
        chosen = part.choose(found, change.member)
        changed = part.with_state(found, chosen, change.state)
        if changed.spec.pools == found.spec.pools:
            return _Stored(found.generation, tuple(chosen), is_changed=False)
        left = part.left_alone(found, set(chosen)) if change.state != v_service_pb2.MEMBER_STATE_ENABLED else []
        if left and left != agreed:
            _agree(" ".join(_consequence(found, pool, change) for pool in left), yes=change.yes)
            agreed = left
        try:
            return _Stored((await _update(api, changed)).generation, tuple(chosen), is_changed=True)
        except errors.StaleEtag:
            if not attempts:
                raise


async def _get(api: Client, change: Change) -> v_service_pb2.VService:
    found = await api.get(change.name)
    assert isinstance(found, v_service_pb2.VService)  # noqa: S101 - by its name
    return found


async def _update(api: Client, changed: v_service_pb2.VService) -> v_service_pb2.VService:
    request = v_service_pb2.UpdateVServiceRequest(v_service=changed, update_mask=FieldMask(paths=["spec.pools"]))
    stub = v_service_pb2_grpc.VServicesStub(api.channel)
    stored: v_service_pb2.VService = await api.call(stub.UpdateVService, request)
    return stored


def _agree(consequence: str, *, yes: bool) -> None:
    """Go on only with consent to what would happen."""
    if yes:
        click.echo(f"note: {consequence}", err=True)
    elif not sys.stdin.isatty():
        raise click.ClickException(f"{consequence} Nothing was changed: give --yes if that is wanted.")
    elif not click.confirm(f"{consequence} Go on?", err=True):
        raise click.ClickException("nothing was changed")


def _consequence(found: v_service_pb2.VService, pool: str, change: Change) -> str:
    fronts = [columns.endpoint(front) for front in found.spec.frontends if part.pool_of(found, front) == pool]
    is_http = found.spec.protocol == v_service_pb2.PROTOCOL_HTTP
    fate = "requests would be answered 503" if is_http else "new connections would be closed"
    living = "end" if change.state == v_service_pb2.MEMBER_STATE_DISABLED else "go on"
    where = f"at {columns.few(fronts)} {fate}, connections that there are would {living}" if fronts else "no frontend leads there"
    return f"No other member of the pool {pool} of {found.name} serves: {where}."


async def _wait_until_in_effect(api: Client, change: Change, stored: _Stored) -> int:
    """Until the device has the members as wanted, the time is up, or they stay in ERROR; the exit status."""
    loop = asyncio.get_running_loop()
    why, last_good = "", loop.time()
    with progress.spinner() as tell:
        while True:
            try:
                found = await _get(api, change)
                if others := part.changed_since(found, stored.chosen, change.state):
                    return _failed(f"somebody has changed {change.name} meanwhile: {', '.join(others)}")
                if part.is_in_effect(found, stored.chosen, stored.generation):
                    break
                states, why = _said(found, stored.chosen)
                last_good = last_good if states == {status_pb2.STATE_ERROR} else loop.time()
            except errors.DeadlineExceeded:
                return _failed(f"{change.name} is not as wanted{_after(api)}: {why}", exits.TIMED_OUT)
            except errors.TemporaryError as error:
                why, last_good = error.message, loop.time()
            if loop.time() - last_good > _HOPELESS_S:
                return _failed(f"{change.name} is not as wanted: {why}")
            tell(f"{change.name} {why}")
            await asyncio.sleep(_POLL_S)
    if stored.is_changed:
        _tell(found, change, stored.chosen)
    return exits.DONE


def _said(found: v_service_pb2.VService, chosen: Sequence[str]) -> tuple[set[status_pb2.State.ValueType], str]:
    """The states of the members, and what is said of one that is not READY."""
    observed = {name: part.observed(name, found.status.members) for name in chosen}
    texts = [f"{name}: {why}" for name, (_, why) in observed.items() if why]
    return {state for state, _ in observed.values()}, next(iter(texts), f"{', '.join(chosen)}: not taken up yet")


def _tell(found: v_service_pb2.VService, change: Change, chosen: Sequence[str]) -> None:
    for name in chosen:
        state, why = part.observed(name, found.status.members)
        but = f", but it does not serve: {why}" if why and state != status_pb2.STATE_READY else ""
        click.echo(f"{name} of {change.name} is {change.word}{but}")


async def _wait_until_idle(api: Client, change: Change, chosen: Sequence[str]) -> int:
    """Until the members have no connection left, or the time is up; the exit status."""
    text, shown = f"{change.name} has not told yet how many connections there are", ""
    with progress.spinner() as tell:
        while True:
            try:
                counted, why = await statistics.ask(api, change.name)
            except errors.DeadlineExceeded:
                return _failed(f"{text}{_after(api)}; the state stays {change.word}", exits.TIMED_OUT)
            count = statistics.connections(counted, chosen) if counted is not None else None
            if count == 0:
                break
            text = f"nothing is counted at present: {why}" if count is None else _remaining(change, chosen, count)
            tell(text)
            if text != shown and not sys.stderr.isatty():
                click.echo(text, err=True)
            shown = text
            await asyncio.sleep(_IDLE_POLL_S)
    click.echo(f"{columns.few(chosen)} of {change.name} has no connection left")
    return exits.DONE


def _remaining(change: Change, chosen: Sequence[str], count: int) -> str:
    return f"{columns.few(chosen)} of {change.name} has {count:,} connection{'s' if count > 1 else ''} left"


def _after(api: Client) -> str:
    return f" after {api.connection.timeout_s:g} s" if api.connection.timeout_s else ""


def _failed(message: str, status: int = exits.FAILED) -> int:
    exits.complain(message)
    return status
