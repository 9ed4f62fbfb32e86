"""Frontends and members of a vService: what is said about each, who serves, and the same vService with members in another state.

Pure. Called by `member`, which changes them, and by `columns` and `statistics`, which show them. A member is named
`pool/member` here, as in the vService's status.
"""

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet

from crossns import errors
from crossns.cli.kinds import near
from crossns.v1 import status_pb2, v_service_pb2

_WORST_FIRST = (
    status_pb2.STATE_ERROR,
    status_pb2.STATE_DEGRADED,
    status_pb2.STATE_PENDING,
    status_pb2.STATE_UNSPECIFIED,
    status_pb2.STATE_DELETING,
    status_pb2.STATE_READY,
)
# As many names as an error message lists.
_LISTED_MAX = 20


def members(service: v_service_pb2.VService) -> Iterator[tuple[str, v_service_pb2.Member]]:
    """All members in the order of the spec; what is done to them is done to `service`."""
    for pool in service.spec.pools:
        for member in pool.members:
            yield f"{pool.name}/{member.name}", member


def pool_of(service: v_service_pb2.VService, frontend: v_service_pb2.Frontend) -> str:
    """The pool of a frontend; where it names none there is only one."""
    return frontend.pool or next((pool.name for pool in service.spec.pools), "")


def observed(name: str, statuses: Sequence[v_service_pb2.PartStatus]) -> tuple[status_pb2.State.ValueType, str]:
    """The worst that any service says of a part, and why; PENDING as long as none has said anything."""
    said = [each for each in statuses if each.name == name]
    if not said:
        return status_pb2.STATE_PENDING, "nobody has said anything yet"
    worst = min(said, key=lambda each: _WORST_FIRST.index(each.state))
    return worst.state, "" if worst.reason == "OK" else worst.message or worst.reason


def wanted(member: v_service_pb2.Member) -> v_service_pb2.MemberState.ValueType:
    """The member's state; what does not say any is ENABLED."""
    return member.state or v_service_pb2.MEMBER_STATE_ENABLED


def word(state: v_service_pb2.MemberState.ValueType) -> str:
    return v_service_pb2.MemberState.Name(state).removeprefix("MEMBER_STATE_")


def enabled(service: v_service_pb2.VService) -> set[str]:
    return {name for name, member in members(service) if wanted(member) == v_service_pb2.MEMBER_STATE_ENABLED}


def serving(service: v_service_pb2.VService) -> set[str]:
    """The members that take new connections now: enabled, and READY by all that is said."""
    told = service.status.members
    return {name for name in enabled(service) if observed(name, told)[0] == status_pb2.STATE_READY}


def choose(service: v_service_pb2.VService, given: str) -> list[str]:
    """The members that a person means: `member` in every pool that has it, or `pool/member`. NotFound names those there are."""
    everyone = [name for name, _ in members(service)]
    chosen = [name for name in everyone if given in (name, name.partition("/")[2])]
    if not chosen:
        more = f" and {len(everyone) - _LISTED_MAX} more" if len(everyone) > _LISTED_MAX else ""
        known = ", ".join(everyone[:_LISTED_MAX]) + more
        close = near(given, {*everyone, *(name.partition("/")[2] for name in everyone)})
        raise errors.NotFound("NOT_FOUND", f"{service.name} has no member {errors.bounded(given)!r}: it has {known}{close}")
    return chosen


def with_state(
    service: v_service_pb2.VService, chosen: Sequence[str], state: v_service_pb2.MemberState.ValueType
) -> v_service_pb2.VService:
    """What to send for the chosen members to be in `state`: name, etag, all pools. The others are as they were."""
    changed = v_service_pb2.VService(name=service.name, etag=service.etag)
    changed.spec.pools.extend(service.spec.pools)
    for name, member in members(changed):
        if name in chosen and wanted(member) != state:
            # As most files have it: who drains and enables again is where he began, and `diff` shows nothing.
            member.state = state if state != v_service_pb2.MEMBER_STATE_ENABLED else v_service_pb2.MEMBER_STATE_UNSPECIFIED
    return changed


def changed_since(
    service: v_service_pb2.VService, chosen: Sequence[str], state: v_service_pb2.MemberState.ValueType
) -> list[str]:
    """Which of the chosen members are not wanted in `state` any more, and what became of them."""
    now = {name: f"{name} is wanted {word(wanted(member))}" for name, member in members(service) if wanted(member) != state}
    gone = set(chosen).difference(name for name, _ in members(service))
    return [now.get(name, f"{name} is gone") for name in chosen if name in now or name in gone]


def left_alone(service: v_service_pb2.VService, leaving: AbstractSet[str]) -> list[str]:
    """The pools of which no member would take new connections without those that are leaving, though one does now. Of a pool in
    which none does at present, those count that are enabled."""
    now, may = serving(service), enabled(service)
    result = []
    for pool in service.spec.pools:
        own = {f"{pool.name}/{member.name}" for member in pool.members}
        able = own & now or own & may
        if able and able <= leaving:
            result.append(pool.name)
    return result


def is_in_effect(service: v_service_pb2.VService, chosen: Sequence[str], generation: int) -> bool:
    """Whether the device has the chosen members as `generation` wants them. One that does not accept connections is in effect,
    too: that is the world beyond the device."""
    for name in chosen:
        said = [each for each in service.status.members if each.name == name]
        if not said or any(each.observed_generation < generation for each in said):
            return False
        if any(each.state != status_pb2.STATE_READY and each.reason != "MEMBER_DOWN" for each in said):
            return False
    return True
