"""How far a resource is from what is waited for.

Pure. Called by `wait` for each resource that something has changed about.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from crossns import names, store
from crossns.resource import Resource, Status, condition, load, merged
from crossns.v1 import config_pb2, status_pb2


@dataclass(frozen=True, slots=True)
class Goal:
    """`generation` READY, or `deleted`. `incarnation`: the create revision of what stood there when it began, 0 for nothing."""

    name: str
    generation: int
    deleted: bool
    incarnation: int


def progress(goal: Goal, entry: store.Entry | None, parts: Mapping[str, Status]) -> config_pb2.WaitResponse | None:
    """What is told of it; `parts` are the services' own. None where nothing is there that could become READY."""
    if goal.deleted and (entry is None or entry.create_revision != goal.incarnation):
        return config_pb2.WaitResponse(name=goal.name, done=True)
    if entry is None:
        return None
    desired = load(names.collection(goal.name), entry.value)
    seen = merged(desired, entry.mod_revision, parts)
    is_ready = seen.status.state == status_pb2.STATE_READY and seen.status.observed_generation >= goal.generation
    missing = _uncleared(parts) if goal.deleted else _unobserved(desired, parts)
    return config_pb2.WaitResponse(
        name=goal.name,
        done=is_ready and not goal.deleted,
        state=seen.status.state,
        conditions=[*(each for each in seen.status.conditions if each.status != status_pb2.CONDITION_STATUS_TRUE), *missing],
    )


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
