"""Prints resources: as the file format (YAML, JSON), as names, as a table.

The inverse of `document`: what `yaml` and `json` print, `apply` takes. A table is for people and may change.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import click
import yaml
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from crossns import names
from crossns.cli import columns
from crossns.cli.document import enum_prefix
from crossns.cli.kinds import BY_COLLECTION
from crossns.resource import Resource

_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
# A document of the file format has these and nothing else.
_WANTED = ("kind", "name", "labels", "spec")
_WIDTH = 120


def show(resources: Sequence[Resource], form: str, *, single: bool = False) -> None:
    """Print resources in one of `options.FORMATS`. `single`: one was asked for, not a list."""
    if form == "name":
        click.echo("".join(f"{resource.name}\n" for resource in resources), nl=False)
    elif form == "yaml":
        click.echo(to_yaml(map(to_plain, resources)), nl=False)
    elif form == "json":
        plain = [to_plain(resource) for resource in resources]
        click.echo(json.dumps(plain[0] if single else plain, indent=2, ensure_ascii=False))
    elif not resources:
        click.echo("none", err=True)
    else:
        click.echo(columns.table(resources))


def bundle(resources: Iterable[Resource], form: str) -> str:
    """What is wanted of the resources, as a file that `apply` takes."""
    wanted = [{key: value for key, value in to_plain(resource).items() if key in _WANTED} for resource in resources]
    return json.dumps(wanted, indent=2, ensure_ascii=False) + "\n" if form == "json" else to_yaml(wanted)


def to_yaml(documents: Iterable[dict[str, Any]]) -> str:
    """One document per resource, innermost lists and fields on one line."""
    return "---\n".join(_dump(document, flow=None) for document in documents)


def to_lines(plain: dict[str, Any]) -> str:
    """Fields for a person, each on a line of its own as far as it fits."""
    is_flat = not any(isinstance(value, dict | list) for value in plain.values())
    return _dump(plain, flow=False if is_flat else None) if plain else ""


def _dump(document: dict[str, Any], *, flow: bool | None) -> str:
    """`flow` None puts what holds only scalars on one line."""
    return str(yaml.dump(document, Dumper=_Dumper, sort_keys=False, default_flow_style=flow, width=_WIDTH, allow_unicode=True))


def to_plain(resource: Resource) -> dict[str, Any]:
    """A resource as the file format has it, `kind` and `name` first."""
    kind = BY_COLLECTION[names.collection(resource.name)]
    all_fields = fields(resource)
    return {"kind": kind.name, **{key: all_fields[key] for key in _WANTED if key in all_fields}, **all_fields}


def fields(message: Message) -> dict[str, Any]:
    """What is set of a message, under its proto-JSON names."""
    return {field.camelcase_name: _value(field, value) for field, value in message.ListFields()}


def with_zeros(message: Message) -> dict[str, Any]:
    """All fields under their proto-JSON names, for scripts that read numbers; a message that is not set is left out."""
    return dict(_all_fields(message))


def _all_fields(message: Message) -> Iterator[tuple[str, Any]]:
    told = fields(message)
    for each in message.DESCRIPTOR.fields:
        name, value = each.camelcase_name, getattr(message, each.name)
        if each.is_repeated:
            yield name, [with_zeros(item) for item in value]
        elif each.message_type is None:
            yield name, value
        elif name in told:
            # A time is one text, as in every resource.
            yield name, told[name] if isinstance(told[name], str) else with_zeros(value)


def _value(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return dict(sorted(value.items()))
    if field.is_repeated:
        return [_single(field, item) for item in value]
    return _single(field, value)


def _single(field: FieldDescriptor, value: Any) -> Any:
    if isinstance(value, Timestamp | Duration):
        return value.ToJsonString()
    if isinstance(value, Message):
        return fields(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name.removeprefix(enum_prefix(field.enum_type)) if known is not None else value
    return value
