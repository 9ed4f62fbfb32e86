"""Bundles as values: what one holds, in which order it is applied, what differs from what is stored.

Pure. Called by the Config servicer, which does what a plan says.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from google.protobuf.message import Message

from crossns import errors, names
from crossns.resource import Resource, overwrite
from crossns.v1 import config_pb2
from gateway import kind, reference

# Each stands on the ones before it. A route stands on interfaces, too: its gateways must lie in a prefix of one. A rule comes
# after the routes that it sends packets to.
ORDER = ("routeTables", "interfaces", "routes", "rules", "neighbors", "vServices")


@dataclass(frozen=True, slots=True)
class Step:
    """What is done about one resource. `wanted` None: it is deleted. `generation` and `etag` are those of what is stored."""

    name: str
    action: config_pb2.Action.ValueType
    wanted: Resource | None = None
    etag: str = ""
    generation: int = 0
    changed_fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps level by level: those of one level do not need each other."""

    changes: tuple[tuple[Step, ...], ...]
    deletions: tuple[tuple[Step, ...], ...]

    @property
    def steps(self) -> tuple[Step, ...]:
        return tuple(step for level in (*self.changes, *self.deletions) for step in level)


def parse(resources: Iterable[config_pb2.Resource]) -> tuple[Resource, ...]:
    """What clients may say of each resource: name, spec, labels. Raises InvalidSpec, or RequestError DUPLICATE_RESOURCE."""
    parsed: dict[str, Resource] = {}
    for index, wrapped in enumerate(resources):
        given = kind.unwrapped(wrapped)
        if given is None:
            raise errors.InvalidSpec(
                f"resources[{index}]", "is empty or of an unknown kind: is the client newer than the device?"
            )
        collection = _collection(wrapped)
        name = names.check(given.name, collection, f"resources[{index}].{kind.KINDS[collection].field}.name")
        if name in parsed:
            message = f"{name} stands twice in the bundle: remove one"
            raise errors.RequestError("DUPLICATE_RESOURCE", message, resource=name)
        parsed[name] = stripped(given)
    return tuple(parsed.values())


def _collection(wrapped: config_pb2.Resource) -> str:
    held = wrapped.WhichOneof("kind")
    return next(each.collection for each in kind.KINDS.values() if each.field == held)


def stripped(resource: Resource) -> Resource:
    """Without everything that only the device says."""
    result = type(resource)(name=resource.name, labels=resource.labels)
    if resource.HasField("spec"):
        overwrite(result.spec, resource.spec)
    return result


def is_wanted(resource: Resource) -> bool:
    """Whether somebody wants it as it is: not what is being deleted, nor `default` as it came with the device."""
    is_as_it_came = resource.name == names.DEFAULT_TABLE and resource.generation <= 1 and not resource.labels
    return not (resource.HasField("delete_time") or is_as_it_came)


def is_deletable(resource: Resource) -> bool:
    return not resource.HasField("delete_time") and resource.name != names.DEFAULT_TABLE


def carries(resource: Resource, labels: Mapping[str, str]) -> bool:
    return all(resource.labels.get(key) == value for key, value in labels.items())


def ordered(resources: Iterable[Resource]) -> tuple[tuple[Resource, ...], ...]:
    """Levels in which resources can be made, by name within a level. What stands on itself comes last; its owner refuses it."""
    levels: list[tuple[Resource, ...]] = []
    by_name = sorted(resources, key=lambda resource: resource.name)
    for collection in ORDER:
        left = {resource.name: resource for resource in by_name if names.collection(resource.name) == collection}
        while left:
            free = [each for each in left.values() if not any(name in left for name in reference.underneath(each))]
            level = tuple(free or left.values())
            levels.append(level)
            for each in level:
                del left[each.name]
    return tuple(levels)


def plan(wanted: Iterable[Resource], stored: Mapping[str, Resource], prune: Iterable[Resource] = ()) -> Plan:
    """What makes `stored` (with etags) be as `wanted`, and takes `prune` away.

    Deletions come last: until then others may still refer to what is deleted, or take over from it.
    """
    changes = tuple(tuple(_step(each, stored.get(each.name)) for each in level) for level in ordered(wanted))
    deletions = tuple(tuple(map(_deletion, level)) for level in reversed(ordered(prune)))
    return Plan(changes, deletions)


def _step(wanted: Resource, stored: Resource | None) -> Step:
    if stored is None or stored.HasField("delete_time"):
        return Step(wanted.name, config_pb2.ACTION_CREATE, wanted)
    changed = changed_fields(stored.spec, wanted.spec)
    if stored.labels != wanted.labels:
        changed = (*changed, "labels")
    action = config_pb2.ACTION_UPDATE if changed else config_pb2.ACTION_NONE
    return Step(wanted.name, action, wanted, stored.etag, stored.generation, changed)


def _deletion(stored: Resource) -> Step:
    return Step(stored.name, config_pb2.ACTION_DELETE, etag=stored.etag)


def changed_fields(before: Message, after: Message, above: str = "") -> tuple[str, ...]:
    """Paths of the fields that differ, as in a field mask; lists and maps as a whole."""
    old = {descriptor.name: value for descriptor, value in before.ListFields()}
    new = {descriptor.name: value for descriptor, value in after.ListFields()}
    changed: list[str] = []
    for name in (descriptor.name for descriptor in before.DESCRIPTOR.fields):
        if isinstance(old.get(name), Message) and isinstance(new.get(name), Message):
            changed += changed_fields(old[name], new[name], f"{above}{name}.")
        elif old.get(name) != new.get(name):
            changed.append(f"{above}{name}")
    return tuple(changed)
