"""Reads the file format: YAML or JSON, one document per resource, proto-JSON names, enum values without their prefix.

Called by `apply` and `diff`. What is wrong is told with file, line and document, before anything is sent. Values are read by
the type of their field and not by YAML's guesses: a MAC address stays text, `on` is no truth value.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import yaml
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from crossns import errors, names
from crossns.cli.kinds import BY_NAME, Kind, near
from crossns.resource import MESSAGES, Resource

# libyaml's parser is ten times as fast; the wheel may lack it.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULL = "tag:yaml.org,2002:null"
# What a document may hold. `get -o yaml` prints the rest of a resource too: it says what is, and is not read back.
_READ = ("kind", "name", "labels", "spec")
_OUTPUT_ONLY = ("status", "etag", "createTime", "updateTime", "deleteTime", "generation", "reconciling")
_DURATION = "google.protobuf.Duration"
_NUMBER = re.compile(r"-?[0-9]+")
# Of 64 bits with its sign. Python refuses to read thousands of digits.
_DIGITS_MAX = 20
# What fits into the field; which values have a meaning is the API's to say.
_RANGES = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
}
_BOOLEANS = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a document stands."""

    file: str
    number: int

    def wrong(self, node: Node, message: str) -> errors.InvalidSpec:
        return self.wrong_at(node.start_mark.line + 1, message)

    def wrong_at(self, line: int, message: str) -> errors.InvalidSpec:
        return errors.InvalidSpec(f"{self.file}:{line} (document {self.number})", message)


def parse(text: str, file: str) -> list[Resource]:
    """The resources of one file; InvalidSpec names file, line and document."""
    return [_resource(node, place) for place, node in _documents(text, file)]


def _documents(text: str, file: str) -> Iterator[tuple[_Place, MappingNode]]:
    """Every mapping that stands for a resource: a document, or an element of a document that is a list."""
    number = 0
    try:
        for root in yaml.compose_all(text, Loader=_Loader):
            if root.tag == _NULL:
                continue
            for node in root.value if isinstance(root, SequenceNode) else (root,):
                number += 1
                place = _Place(file, number)
                if not isinstance(node, MappingNode):
                    raise place.wrong(node, "is not a resource: write `kind:`, `name:` and `spec:`")
                yield place, node
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        context = f" {error.context}" if error.context else ""
        raise _Place(file, number + 1).wrong_at(
            line, f"is not YAML:{context} {error.problem}; check indentation and quotes"
        ) from error
    except yaml.YAMLError as error:
        raise _Place(file, number + 1).wrong_at(1, f"is not YAML: {errors.bounded(str(error))}") from error


def _resource(node: MappingNode, place: _Place) -> Resource:
    fields = {key.value: (key, value) for key, value in _pairs(node, place)}
    for name, (key, _) in fields.items():
        if name not in _READ and name not in _OUTPUT_ONLY:
            raise place.wrong(key, f"unknown field {name!r}: a document has {', '.join(_READ)}{near(name, _READ)}")
    kind = _kind(node, fields, place)
    name = _text(fields["name"][1], place, "name") if "name" in fields else ""
    try:
        names.check(name, kind.collection, "name")
    except errors.InvalidSpec as error:
        raise place.wrong(fields["name"][1] if "name" in fields else node, error.message) from error
    resource = MESSAGES[kind.collection](name=name)
    for field in ("spec", "labels"):
        if field in fields:
            key, value = fields[field]
            _set(resource, resource.DESCRIPTOR.fields_by_name[field], key, value, place)
    return resource


def _kind(node: MappingNode, fields: Mapping[str, tuple[Node, Node]], place: _Place) -> Kind:
    known = ", ".join(BY_NAME)
    if "kind" not in fields:
        raise place.wrong(node, f"has no `kind`: write one of {known}")
    value = fields["kind"][1]
    word = _text(value, place, "kind")
    if word not in BY_NAME:
        raise place.wrong(value, f"unknown kind {word!r}: use one of {known}{near(word, BY_NAME)}")
    return BY_NAME[word]


def _fill(message: Message, node: Node, place: _Place, path: str) -> None:
    if not isinstance(node, MappingNode):
        raise place.wrong(node, f"{path} holds fields: write `name: value` below it, or {{name: value}}")
    descriptor = message.DESCRIPTOR
    for key, value in _pairs(node, place):
        found = descriptor.fields_by_camelcase_name.get(key.value) or descriptor.fields_by_name.get(key.value)
        field = cast("FieldDescriptor | None", found)
        if field is None:
            known = [each.camelcase_name for each in descriptor.fields]
            raise place.wrong(
                key, f"unknown field {key.value!r} in {path}: it has {', '.join(known) or 'none'}{near(key.value, known)}"
            )
        if value.tag != _NULL:
            _refuse_second_choice(message, field, key, place)
        _set(message, field, key, value, place)


def _refuse_second_choice(message: Message, field: FieldDescriptor, key: Node, place: _Place) -> None:
    choice = field.containing_oneof
    chosen = message.WhichOneof(choice.name) if choice is not None else None
    if choice is not None and chosen is not None:
        options = ", ".join(each.camelcase_name for each in choice.fields)
        raise place.wrong(key, f"{field.camelcase_name} and {chosen} exclude each other: give only one of {options}")


def _set(message: Message, field: FieldDescriptor, key: Node, value: Node, place: _Place) -> None:
    """Give `field` the value at `value`; null leaves it unset, as in proto-JSON."""
    if value.tag == _NULL:
        return
    path = key.value
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        entries = getattr(message, field.name)
        for name, entry in _pairs(value, place):
            entries[_text(name, place, path)] = _text(entry, place, f"{path}.{name.value}")
    elif field.is_repeated:
        if not isinstance(value, SequenceNode):
            raise place.wrong(value, f"{path} is a list: write `- ...` below it, or [...]")
        for item in value.value:
            _append(message, field, item, place, path)
    elif field.message_type is not None and field.message_type.full_name == _DURATION:
        _set_duration(getattr(message, field.name), value, place, path)
    elif field.message_type is not None:
        part = getattr(message, field.name)
        part.SetInParent()
        _fill(part, value, place, path)
    else:
        setattr(message, field.name, _scalar(field, value, place, path))


def _set_duration(duration: Duration, node: Node, place: _Place, path: str) -> None:
    """As proto-JSON has it: seconds with at most nine digits behind the point, and an `s`."""
    text = _text(node, place, path)
    try:
        duration.FromJsonString(text)
    except ValueError:
        raise place.wrong(node, f"{path} is a time such as 0.5s or 3600s, not {errors.bounded(text)!r}") from None
    duration.SetInParent()


def _append(message: Message, field: FieldDescriptor, item: Node, place: _Place, path: str) -> None:
    items: Any = getattr(message, field.name)
    if field.message_type is not None:
        _fill(items.add(), item, place, f"an element of {path}")
    else:
        items.append(_scalar(field, item, place, path))


def _scalar(field: FieldDescriptor, node: Node, place: _Place, path: str) -> Any:
    text = _text(node, place, path)
    if field.type == FieldDescriptor.TYPE_STRING:
        return text
    if field.type == FieldDescriptor.TYPE_BOOL:
        if text not in _BOOLEANS:
            raise place.wrong(node, f"{path} is true or false, not {errors.bounded(text)!r}")
        return _BOOLEANS[text]
    if field.enum_type is not None:
        return _enum(field.enum_type, text, node, place, path)
    first, last = _RANGES[field.type]
    if not _NUMBER.fullmatch(text):
        raise place.wrong(node, f"{path} is a whole number, not {errors.bounded(text)!r}")
    if len(text) > _DIGITS_MAX or not first <= int(text) <= last:
        raise place.wrong(node, f"{path} takes no such number: {errors.bounded(text)} is far out of its range")
    return int(text)


def _enum(enum: EnumDescriptor, text: str, node: Node, place: _Place, path: str) -> int:
    prefix = enum_prefix(enum)
    value = enum.values_by_name.get(prefix + text) or enum.values_by_name.get(text)
    if value is None or value.number == 0:
        known = [each.name.removeprefix(prefix) for each in enum.values if each.number]
        raise place.wrong(node, f"{path} is one of {', '.join(known)}, not {errors.bounded(text)!r}{near(text.upper(), known)}")
    return value.number


def enum_prefix(enum: EnumDescriptor) -> str:
    """What all values of an enum begin with: `PROTOCOL_` (buf's ENUM_VALUE_PREFIX)."""
    unset = next(value.name for value in enum.values if value.number == 0)
    return unset.removesuffix("UNSPECIFIED")


def _pairs(node: Node, place: _Place) -> Iterable[tuple[ScalarNode, Node]]:
    if not isinstance(node, MappingNode):
        raise place.wrong(node, "holds pairs: write `key: value`")
    seen = set()
    for key, value in node.value:
        if not isinstance(key, ScalarNode):
            raise place.wrong(key, "a key is a single word")
        if key.value in seen:
            raise place.wrong(key, f"{key.value!r} stands here twice: remove one of them")
        seen.add(key.value)
        yield key, value


def _text(node: Node, place: _Place, path: str) -> str:
    if not isinstance(node, ScalarNode):
        raise place.wrong(node, f"{path} is a single value, not {'a list' if isinstance(node, SequenceNode) else 'fields'}")
    return str(node.value)
