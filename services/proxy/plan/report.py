"""What a round has to say about each vService: by frontend and member, and in sum.

A part is READY when the running HAProxy has it and the configuration is the wanted one. While that cannot be applied, what was
READY in this generation and is still there stays so: a fault in one vService is no news of the others.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from crossns import errors, resource
from crossns.resource import Status
from crossns.v1 import status_pb2, v_service_pb2
from services.proxy import model, render
from services.proxy.plan import difference, place, wish
from services.proxy.plan.engine import Observed

SERVICE = "proxy"
# Reasons that time takes away.
_PENDING = frozenset({"IN_PROGRESS", "ROUTE_TABLE_ABSENT"})
# The one that says nothing about HAProxy.
_DOWN = "MEMBER_DOWN"


@dataclass(frozen=True, slots=True)
class _Round:
    """What the parts are judged by. `reason` and `message` are for those that HAProxy ought to have and has not."""

    observed: Observed
    tables: Mapping[str, str]
    wish: wish.Wish | None
    is_current: bool
    reason: str = "IN_PROGRESS"
    message: str = "HAProxy has not taken it yet"
    pending: frozenset[str] = _PENDING

    def failed(self, failure: errors.CrossnsError | None) -> "_Round":
        """The same behind an operation that did not succeed."""
        if failure is None:
            return self
        temporary = {failure.reason} if isinstance(failure, errors.TemporaryError) else set()
        return replace(self, reason=failure.reason, message=failure.message, pending=_PENDING | temporary)


@dataclass(frozen=True, slots=True)
class _Judgement:
    """What is said of one part. `message` is for a person."""

    name: str
    reason: str = "OK"
    message: str = ""


@dataclass(frozen=True, slots=True)
class _Before:
    """By part: which were READY; why which members were down."""

    ready: frozenset[str] = frozenset()
    down: Mapping[str, str] = field(default_factory=dict)


def report(
    desired: model.Desired,
    observed: Observed,
    failures: Mapping[str, errors.CrossnsError],
    previous: Mapping[str, Status],
) -> Mapping[str, Status | None]:
    """None for a vService that is being deleted and that HAProxy has nothing of. `previous` has the parts as last reported."""
    failure = failures.get(model.UNIT)
    judged = _round(desired, observed).failed(failure)
    result: dict[str, Status | None] = {
        vservice.name: _vservice(vservice, judged.failed(failures.get(vservice.name)), previous.get(vservice.name))
        for vservice in desired.services
    }
    result |= {each.name: _refused(each) for each in desired.invalid}
    if judged.is_current:
        result |= dict.fromkeys(desired.leaving)
    elif failure is not None:
        result |= {name: _stuck(failure, previous.get(name)) for name in desired.leaving}
    return result


def _round(desired: model.Desired, observed: Observed) -> _Round:
    """A text that is not kept yet for the next start takes nothing from what runs."""
    if not desired.services:
        return _Round(observed, {}, None, is_current=not observed.running)
    wanted = wish.wish(desired, observed)
    is_current = wanted.config.structure == observed.structure and not difference.closed(desired, observed)
    # What was refused of another generation says nothing of this one.
    return _Round(
        replace(observed, refused=wish.left_out(desired, observed)), wish.entered(desired, observed), wanted, is_current
    )


def _vservice(vservice: model.VService, judged: _Round, previous: Status | None) -> v_service_pb2.VServiceStatus:
    # What was said before counts only where the running HAProxy does not tell all.
    before = _before(vservice, previous) if judged.observed.unknown or not judged.is_current else _Before()
    found = (
        tuple(_frontend(vservice, each, judged, was_ready=each.name in before.ready) for each in vservice.frontends),
        tuple(_member(vservice, pool, each, judged, before) for pool in vservice.pools for each in pool.members),
    )
    # Most are as they were the last time.
    remembered, status = vservice.memo.get("report", (None, None))
    if remembered != (found, judged.pending) or not isinstance(status, v_service_pb2.VServiceStatus):
        status = _said(vservice, *found, judged.pending)
        vservice.memo["report"] = (found, judged.pending), status
    return status


def _said(
    vservice: model.VService, frontends: Sequence[_Judgement], members: Sequence[_Judgement], pending: AbstractSet[str]
) -> v_service_pb2.VServiceStatus:
    def part(found: _Judgement) -> v_service_pb2.PartStatus:
        state = status_pb2.STATE_PENDING if found.reason in pending else status_pb2.STATE_ERROR
        return v_service_pb2.PartStatus(
            name=found.name,
            state=status_pb2.STATE_READY if found.reason == "OK" else state,
            reason=found.reason,
            message=found.message,
            service=SERVICE,
            observed_generation=vservice.generation,
        )

    ways, ends = [part(each) for each in frontends], [part(each) for each in members]
    return v_service_pb2.VServiceStatus(
        observed_generation=vservice.generation,
        state=_sum({part.state for part in ways}, {part.state for part in ends}),
        conditions=[_condition("Programmed", [*ways, *ends]), _condition("Healthy", ends)],
        frontends=ways,
        members=ends,
    )


def _frontend(vservice: model.VService, frontend: model.Frontend, judged: _Round, *, was_ready: bool) -> _Judgement:
    places = place.places(vservice, judged.tables)
    part = places.frontends[frontend.name]
    if part is None:
        return _absent(frontend.name, frontend.table)
    is_open = judged.observed.listeners.issuperset(places.listeners[frontend.name])
    return _judge(frontend.name, part, judged, is_taken=is_open and (judged.is_current or was_ready))


def _member(vservice: model.VService, pool: model.Pool, member: model.Member, judged: _Round, before: _Before) -> _Judgement:
    name = f"{pool.name}/{member.name}"
    part = place.places(vservice, judged.tables).members[pool.name, member.name]
    if part is None:
        return _absent(name, member.table)
    found = _judge(name, part, judged, is_taken=_is_taken(part, member, judged, was_ready=name in before.ready))
    asked = model.target_of(vservice, pool, member, part.namespace)
    # What a process before this one said holds until it is known better.
    said = before.down.get(name) if asked in judged.observed.unknown else None
    why = judged.observed.down.get(asked, said)
    if found.reason == "OK" and why is not None and member.state != "disabled":
        return _Judgement(name, _DOWN, why)
    return found


def _is_taken(part: render.Part, member: model.Member, judged: _Round, *, was_ready: bool) -> bool:
    """Whether the running HAProxy has the member as it should be. What was so stays so as long as it is there."""
    servers = judged.observed.servers.get(part.section, {})
    if judged.wish is None or not judged.is_current:
        pointing = {(name.partition(".")[2], seen.server.socket) for name, seen in servers.items()}
        return was_ready and (part.namespace, part.socket) in pointing
    line = judged.wish.lines.get((part.section, member.name), "")
    return line in servers and difference.is_like(servers[line].server, judged.wish.servers[part.section, line])


def _absent(name: str, table: str) -> _Judgement:
    return _Judgement(name, "ROUTE_TABLE_ABSENT", f"{table} has no namespace yet")


def _judge(name: str, part: render.Part, judged: _Round, *, is_taken: bool) -> _Judgement:
    if is_taken:
        return _Judgement(name)
    refusal = judged.observed.refused.get(part)
    if refusal is not None:
        why = "left out, because HAProxy does not start with it (is its port in use?): "
        return _Judgement(name, refusal.reason, f"{why if refusal.reason == 'ENGINE_REFUSED' else ''}{refusal.words}")
    return _Judgement(name, judged.reason, judged.message)


def _refused(invalid: model.Invalid) -> v_service_pb2.VServiceStatus:
    """The others are served."""
    return v_service_pb2.VServiceStatus(
        observed_generation=invalid.generation,
        state=status_pb2.STATE_ERROR,
        conditions=[resource.condition("Programmed", SERVICE, invalid.reason, invalid.message)],
    )


def _stuck(failure: errors.CrossnsError, previous: Status | None) -> v_service_pb2.VServiceStatus:
    """The status of a vService that is being deleted and that HAProxy does not let go."""
    status = v_service_pb2.VServiceStatus()
    if isinstance(previous, v_service_pb2.VServiceStatus):
        status.CopyFrom(previous)
    status.ClearField("conditions")
    status.conditions.append(resource.condition("Removed", SERVICE, failure.reason, failure.message))
    return status


def _before(vservice: model.VService, previous: Status | None) -> _Before:
    """What was said last. READY counts for this very generation only."""
    if not isinstance(previous, v_service_pb2.VServiceStatus):
        return _Before()
    parts = (*previous.frontends, *previous.members)
    ready = (each for each in parts if each.state == status_pb2.STATE_READY and each.observed_generation == vservice.generation)
    return _Before(frozenset(each.name for each in ready), {each.name: each.message for each in parts if each.reason == _DOWN})


def _condition(kind: str, parts: Sequence[v_service_pb2.PartStatus]) -> status_pb2.Condition:
    """What is wrong first, errors before what is still to come. `Healthy` speaks of members alone, `Programmed` of HAProxy."""
    concerned = [part for part in parts if part.state != status_pb2.STATE_READY and (part.reason == _DOWN) == (kind == "Healthy")]
    concerned.sort(key=lambda part: part.state != status_pb2.STATE_ERROR)
    if not concerned:
        return resource.condition(kind, SERVICE)
    return resource.condition(kind, SERVICE, concerned[0].reason, f"{concerned[0].name}: {concerned[0].message}")


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
