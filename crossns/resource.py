"""What all resources have in common, as pure functions: drafts with claims and references, update masks, etags, merged status.

`registry` stores by it, `reconcile` reports by it, the servicers describe their kinds with it.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
from google.protobuf import field_mask_pb2
from google.protobuf.message import Message

from crossns import errors, names
from crossns.v1 import interface_pb2, neighbor_pb2, route_pb2, route_table_pb2, rule_pb2, status_pb2, v_service_pb2

Resource = (
    route_table_pb2.RouteTable
    | interface_pb2.Interface
    | route_pb2.Route
    | rule_pb2.Rule
    | neighbor_pb2.Neighbor
    | v_service_pb2.VService
)
Status = (
    route_table_pb2.RouteTableStatus
    | interface_pb2.InterfaceStatus
    | route_pb2.RouteStatus
    | rule_pb2.RuleStatus
    | neighbor_pb2.NeighborStatus
    | v_service_pb2.VServiceStatus
)
MESSAGES: Mapping[str, type[Resource]] = {
    "routeTables": route_table_pb2.RouteTable,
    "interfaces": interface_pb2.Interface,
    "routes": route_pb2.Route,
    "rules": rule_pb2.Rule,
    "neighbors": neighbor_pb2.Neighbor,
    "vServices": v_service_pb2.VService,
}
LABELS_MAX = 64
LABEL_LENGTH_MAX = 63
# Worst first: the state of a resource is the first of these that any of its parts is in.
_WORST_FIRST = (
    status_pb2.STATE_ERROR,
    status_pb2.STATE_DEGRADED,
    status_pb2.STATE_PENDING,
    status_pb2.STATE_UNSPECIFIED,
    status_pb2.STATE_READY,
)


@dataclass(frozen=True, slots=True)
class Claim:
    """Something that may exist once: `key` of `kind`, or only the ports `first`..`last` of it. `reason` and `message` are for
    him who finds it taken; `{owner}` in the message becomes the owner's name. `chosen`: nobody asked for just this one, so where
    it is taken another will do."""

    kind: str
    key: str
    reason: str
    message: str
    first: int = 0
    last: int = 65535
    chosen: bool = False


class Holding(msgspec.Struct, frozen=True):
    """One line of a claim's stored value."""

    owner: str
    first: int = 0
    last: int = 65535


@dataclass(frozen=True, slots=True)
class Reference:
    """`target` must exist and stay; `field` is where the referrer names it."""

    target: str
    field: str


@dataclass(frozen=True, slots=True)
class Draft:
    """What a valid resource needs of others."""

    claims: tuple[Claim, ...] = ()
    references: tuple[Reference, ...] = ()

    @property
    def targets(self) -> tuple[str, ...]:
        """Each target once."""
        return tuple(dict.fromkeys(ref.target for ref in self.references))


@dataclass(frozen=True, slots=True)
class Kind:
    """How one kind of resource is stored. `draft` is pure and raises InvalidSpec; `immutable` are fields of the spec."""

    collection: str
    # The resource's field name in requests, such as `route_table`.
    field: str
    draft: Callable[[Resource], Draft]
    immutable: tuple[str, ...] = ()
    # Raises where such a resource must not be deleted, whoever refers to it.
    check_deletion: Callable[[Resource], None] = lambda _: None
    # Kinds of claims that rest for a while before somebody else can have them.
    resting: frozenset[str] = frozenset()

    @property
    def message(self) -> type[Resource]:
        return MESSAGES[self.collection]


def load(collection: str, value: bytes) -> Resource:
    """The stored message; unknown fields are kept."""
    return MESSAGES[collection].FromString(value)


def load_status(collection: str, value: bytes) -> Status:
    message = MESSAGES[collection]()
    message.status.ParseFromString(value)
    return message.status


def overwrite(target: Message, source: Message) -> None:
    """CopyFrom for messages of which only the union is known; they are of one type."""
    target.CopyFrom(source)


def _merge(target: Message, source: Message) -> None:
    target.MergeFrom(source)


def etag_of(mod_revision: int) -> str:
    return f"{mod_revision:x}"


def check_labels(labels: Mapping[str, str]) -> None:
    if len(labels) > LABELS_MAX:
        raise errors.InvalidSpec("labels", f"at most {LABELS_MAX} are taken; remove some", max=LABELS_MAX)
    for key, value in labels.items():
        if not key or len(key) > LABEL_LENGTH_MAX or len(value) > LABEL_LENGTH_MAX or not (key + value).isprintable():
            raise errors.InvalidSpec(
                "labels",
                f"keys have 1 to {LABEL_LENGTH_MAX} printable characters, values at most as many",
                label=errors.bounded(key),
            )


def masked(current: Resource, wanted: Resource, mask: field_mask_pb2.FieldMask) -> Resource:
    """`current` with the fields of `wanted` that `mask` names (AIP-134); empty: all that are set in `wanted`; `*`: all."""
    result = copy.deepcopy(current)
    if list(mask.paths) == ["*"]:
        overwrite(result.spec, wanted.spec)
        result.ClearField("labels")
        result.labels.update(wanted.labels)
        return result
    paths = list(mask.paths) or _set_fields(wanted)
    for path in paths:
        if path not in ("spec", "labels") and not path.startswith("spec."):
            raise errors.InvalidSpec(
                "update_mask", f"{errors.bounded(path)!r} cannot be changed: name `spec`, `spec.<field>` or `labels`"
            )
    chosen = field_mask_pb2.FieldMask(paths=paths)
    if not chosen.IsValidForDescriptor(type(current).DESCRIPTOR):
        raise errors.InvalidSpec("update_mask", "names a field that does not exist", paths=",".join(paths))
    for path in paths:
        _clear(result, path)
    chosen.MergeMessage(wanted, result, replace_message_field=True, replace_repeated_field=True)
    if "labels" in paths:
        result.ClearField("labels")
        result.labels.update(wanted.labels)
    return result


def _clear(message: Message, path: str) -> None:
    """What a mask names and the request leaves unset is taken back (AIP-134): a merge alone would pass over it."""
    field, _, rest = path.partition(".")
    if not rest:
        message.ClearField(field)
    elif message.HasField(field):
        _clear(getattr(message, field), rest)


def _set_fields(wanted: Resource) -> list[str]:
    fields = [f"spec.{field.name}" for field, _ in wanted.spec.ListFields()]
    return [*fields, "labels"] if wanted.labels else fields


def check_immutable(kind: Kind, current: Resource, wanted: Resource) -> None:
    """Raise IMMUTABLE_FIELD where a field (or the choice of a oneof) that must stay was changed."""
    for field in kind.immutable:
        before, after = _value(current.spec, field), _value(wanted.spec, field)
        if before != after:
            raise errors.InvalidSpec(
                f"spec.{field}",
                f"cannot be changed from {before!s} to {after!s}: delete {current.name} and create it anew",
                reason="IMMUTABLE_FIELD",
            )


def _value(message: Message, path: str) -> object:
    """The value of a field by its dotted path; of a oneof the name of what is set."""
    field, _, rest = path.partition(".")
    if field in message.DESCRIPTOR.oneofs_by_name:
        return message.WhichOneof(field)
    value = getattr(message, field)
    return _value(value, rest) if rest else value


def merged(resource: Resource, mod_revision: int, parts: Mapping[str, Status]) -> Resource:
    """The resource as clients see it: etag, the services' parts as one status, `reconciling`."""
    result = copy.deepcopy(resource)
    result.etag = etag_of(mod_revision)
    observers = names.OBSERVERS[names.collection(resource.name)]
    for service in (*observers, *(other for other in parts if other not in observers)):
        if service in parts:
            _merge(result.status, parts[service])
    current = [_current_state(resource, parts.get(service)) for service in observers]
    result.status.observed_generation = min(
        (parts[service].observed_generation if service in parts else 0 for service in observers), default=0
    )
    result.status.state = next(state for state in _WORST_FIRST if state in current)
    result.reconciling = status_pb2.STATE_PENDING in current
    if resource.HasField("delete_time"):
        result.status.state = status_pb2.STATE_DELETING
        result.reconciling = True
    return result


def _current_state(resource: Resource, part: Status | None) -> status_pb2.State.ValueType:
    if part is None or part.observed_generation < resource.generation or not part.state:
        return status_pb2.STATE_PENDING
    return part.state


def condition(kind: str, service: str, reason: str = "OK", message: str = "") -> status_pb2.Condition:
    """A condition that holds where `reason` is OK; the loop stamps its time."""
    return status_pb2.Condition(
        type=kind,
        status=status_pb2.CONDITION_STATUS_TRUE if reason == "OK" else status_pb2.CONDITION_STATUS_FALSE,
        reason=reason,
        message=message,
        service=service,
    )


def holdings(value: bytes) -> tuple[Holding, ...]:
    """The owners that a claim's stored value lists."""
    return msgspec.json.decode(value, type=tuple[Holding, ...]) if value else ()


def without(held: Sequence[Holding], owner: str) -> tuple[Holding, ...]:
    return tuple(holding for holding in held if holding.owner != owner)


def claimed(held: Sequence[Holding], claims: Sequence[Claim], owner: str) -> tuple[Holding, ...]:
    """`held`, with `owner` holding exactly `claims` of it; AlreadyExists where somebody else holds a part of that."""
    others = without(held, owner)
    for claim in claims:
        for other in others:
            if claim.first <= other.last and other.first <= claim.last:
                message = claim.message.format(owner=other.owner or "a resource that was just deleted")
                raise errors.AlreadyExists(claim.reason, message, owner=other.owner, claim=f"{claim.kind}/{claim.key}")
    return (*others, *(Holding(owner, claim.first, claim.last) for claim in claims))


def stored(held: Sequence[Holding]) -> bytes:
    return msgspec.json.encode(tuple(sorted(held, key=lambda holding: (holding.first, holding.last, holding.owner))))
