"""How far a resource is from what is waited for.

Pure. Called by `wait` for each resource that something has changed about. What is waited for is the device, not the world
beyond it: a backend that is not up yet makes nobody wait.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from crossns import names, store
from crossns.resource import Resource, Status, condition, load, merged
from crossns.v1 import config_pb2, status_pb2

# The type of the conditions that speak of others' health, such as that of a vService's members.
_HEALTH = "Healthy"


@dataclass(frozen=True, slots=True)
class Goal:
    """`generation` in effect, or `deleted`. `incarnation`: the create revision of what stood there when it began, 0 for none."""

    name: str
    generation: int
    deleted: bool
    incarnation: int


def progress(goal: Goal, entry: store.Entry | None, parts: Mapping[str, Status]) -> config_pb2.WaitResponse | None:
    """What is told of it; `parts` are the services' own. None where nothing is there that could come into effect."""
    if goal.deleted and (entry is None or entry.create_revision != goal.incarnation):
        return config_pb2.WaitResponse(name=goal.name, done=True)
    if entry is None:
        return None
    desired = load(names.collection(goal.name), entry.value)
    seen = merged(desired, entry.mod_revision, parts)
    is_observed = seen.status.observed_generation >= goal.generation and not seen.reconciling
    unmet = [each for each in seen.status.conditions if each.status != status_pb2.CONDITION_STATUS_TRUE]
    missing = _uncleared(parts) if goal.deleted else _unobserved(desired, parts)
    return config_pb2.WaitResponse(
        name=goal.name,
        done=is_observed and _is_in_effect(seen.status.state, unmet) and not goal.deleted,
        state=seen.status.state,
        conditions=[*unmet, *missing],
    )


def _is_in_effect(state: status_pb2.State.ValueType, unmet: Sequence[status_pb2.Condition]) -> bool:
    """Whether the device is as wanted. A state that is not READY must be explained by health, and by nothing else."""
    return all(each.type == _HEALTH for each in unmet) and (bool(unmet) or state == status_pb2.STATE_READY)


def _unobserved(desired: Resource, parts: Mapping[str, Status]) -> Iterator[status_pb2.Condition]:
    """Who has not said anything about the present generation yet: where a service is down, it is named here."""
    for service in names.OBSERVERS[names.collection(desired.name)]:
        if service not in parts or parts[service].observed_generation < desired.generation:
            yield condition(
                "Observed", service, "IN_PROGRESS", f"{service} has not worked on generation {desired.generation} yet"
            )


def _uncleared(parts: Mapping[str, Status]) -> Iterator[status_pb2.Condition]:
    for service in parts:
        yield condition("Cleared", service, "IN_PROGRESS", f"{service} has not cleared its part yet")
