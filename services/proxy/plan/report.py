"""What a round has to say about each vService: by frontend and member, and in sum.

A part is READY when the running HAProxy has it and the configuration is the wanted one. While that cannot be applied, what was
READY in this generation and is still there stays so: a fault in one vService is no news of the others.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from crossns import errors, resource
from crossns.resource import Status
from crossns.v1 import status_pb2, v_service_pb2
from services.proxy import model, render
from services.proxy.plan import difference
from services.proxy.plan.engine import Observed

SERVICE = "proxy"
# Reasons that time takes away.
_PENDING = frozenset({"IN_PROGRESS", "ROUTE_TABLE_ABSENT"})


@dataclass(frozen=True, slots=True)
class _Round:
    """What the parts are judged by. `reason` and `message` are for those that HAProxy ought to have and has not."""

    observed: Observed
    tables: Mapping[str, str]
    is_current: bool
    reason: str = "IN_PROGRESS"
    message: str = "HAProxy has not taken it yet"
    pending: frozenset[str] = _PENDING


def report(
    desired: model.Desired,
    observed: Observed,
    failures: Mapping[str, errors.CrossnsError],
    previous: Mapping[str, Status],
) -> Mapping[str, Status | None]:
    """None for a vService that is being deleted and that HAProxy has nothing of. `previous` has the parts as last reported."""
    failure = failures.get(model.UNIT)
    judged = _round(desired, observed, failure)
    result: dict[str, Status | None] = {
        vservice.name: _vservice(vservice, judged, previous.get(vservice.name)) for vservice in desired.services
    }
    if judged.is_current:
        result |= dict.fromkeys(desired.leaving)
    elif failure is not None:
        result |= {name: _stuck(failure, previous.get(name)) for name in desired.leaving}
    return result


def _round(desired: model.Desired, observed: Observed, failure: errors.CrossnsError | None) -> _Round:
    judged = _Round(observed, difference.entered(desired, observed), difference.is_current(desired, observed))
    if failure is None:
        return judged
    temporary = {failure.reason} if isinstance(failure, errors.TemporaryError) else set()
    return replace(judged, reason=failure.reason, message=failure.message, pending=_PENDING | temporary)


def _vservice(vservice: model.VService, judged: _Round, previous: Status | None) -> v_service_pb2.VServiceStatus:
    kept = _ready_before(vservice, previous)

    def part(name: str, table: str, found: render.Part | None) -> v_service_pb2.PartStatus:
        reason, message = _judge(table, found, judged, was_ready=name in kept)
        state = status_pb2.STATE_PENDING if reason in judged.pending else status_pb2.STATE_ERROR
        return v_service_pb2.PartStatus(
            name=name,
            state=status_pb2.STATE_READY if reason == "OK" else state,
            reason=reason,
            message=message,
            service=SERVICE,
            observed_generation=vservice.generation,
        )

    frontends = [
        part(each.name, each.table, render.frontend_part(vservice.name, each, judged.tables)) for each in vservice.frontends
    ]
    members = [
        part(f"{pool.name}/{each.name}", each.table, render.member_part(vservice.name, pool.name, each, judged.tables))
        for pool in vservice.pools
        for each in pool.members
    ]
    return v_service_pb2.VServiceStatus(
        observed_generation=vservice.generation,
        state=_sum({part.state for part in frontends}, {part.state for part in members}),
        conditions=[_condition([*frontends, *members])],
        frontends=frontends,
        members=members,
    )


def _stuck(failure: errors.CrossnsError, previous: Status | None) -> v_service_pb2.VServiceStatus:
    """The status of a vService that is being deleted and that HAProxy does not let go."""
    status = v_service_pb2.VServiceStatus()
    if isinstance(previous, v_service_pb2.VServiceStatus):
        status.CopyFrom(previous)
    status.ClearField("conditions")
    status.conditions.append(resource.condition("Removed", SERVICE, failure.reason, failure.message))
    return status


def _ready_before(vservice: model.VService, previous: Status | None) -> frozenset[str]:
    """The parts that were READY when last reported, of this very generation."""
    if not isinstance(previous, v_service_pb2.VServiceStatus):
        return frozenset()
    return frozenset(
        part.name
        for part in (*previous.frontends, *previous.members)
        if part.state == status_pb2.STATE_READY and part.observed_generation == vservice.generation
    )


def _judge(table: str, part: render.Part | None, judged: _Round, *, was_ready: bool) -> tuple[str, str]:
    if part is None:
        return "ROUTE_TABLE_ABSENT", f"{table} has no namespace yet"
    if part in judged.observed.serving and (judged.is_current or was_ready):
        return "OK", ""
    refused = judged.observed.trial.refused
    if part in refused:
        return "ENGINE_REFUSED", f"left out, because HAProxy does not start with it (is its port in use?): {refused[part]}"
    return judged.reason, judged.message


def _condition(parts: Sequence[v_service_pb2.PartStatus]) -> status_pb2.Condition:
    """What is wrong first, errors before what is still to come."""
    wrong = [part for state in (status_pb2.STATE_ERROR, status_pb2.STATE_PENDING) for part in parts if part.state == state]
    if not wrong:
        return resource.condition("Programmed", SERVICE)
    return resource.condition("Programmed", SERVICE, wrong[0].reason, f"{wrong[0].name}: {wrong[0].message}")


def _sum(
    frontends: AbstractSet[status_pb2.State.ValueType], members: AbstractSet[status_pb2.State.ValueType]
) -> status_pb2.State.ValueType:
    """PENDING while anything may still come; else DEGRADED where some way leads through, ERROR where none does."""
    if frontends | members == {status_pb2.STATE_READY}:
        return status_pb2.STATE_READY
    if status_pb2.STATE_PENDING in frontends | members:
        return status_pb2.STATE_PENDING
    is_served = status_pb2.STATE_READY in frontends and status_pb2.STATE_READY in members
    return status_pb2.STATE_DEGRADED if is_served else status_pb2.STATE_ERROR
