"""All that is known about one resource, as text for people: spec, status, its parts, its derived identity, who uses it.

Called by `describe` and `table show`.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import click
from google.protobuf.message import Message

from crossns import names
from crossns.cli import bundle, columns, render
from crossns.cli.client import Client
from crossns.resource import Resource
from crossns.v1 import config_pb2, route_table_pb2, status_pb2, v_service_pb2

# Told by the head or by sections of their own.
_SHOWN_APART = ("state", "conditions", "observedGeneration", "frontends", "members", "identity")
# Of the identity: observed as well.
_OBSERVED = ("name", "index", "netnsCookie")


async def show(api: Client, name: str, form: str) -> None:
    """Print one resource: described for people, or in the form that was asked for."""
    found = await api.get(name)
    if form == "table":
        click.echo(await of(api, found))
    else:
        render.show([found], form, single=True)


async def of(api: Client, resource: Resource) -> str:
    """The whole description."""
    plain = render.to_plain(resource)
    sections = [_head(resource), _section("wanted", render.to_lines(plain.get("spec", {})) or "nothing in particular")]
    observed = {key: value for key, value in plain.get("status", {}).items() if key not in _SHOWN_APART}
    if observed:
        sections.append(_section("observed", render.to_lines(observed)))
    if isinstance(resource, route_table_pb2.RouteTable):
        sections.append(_section("derived from the index", _identity(await api.identity(resource.name))))
    if isinstance(resource, v_service_pb2.VService):
        sections.append(_section("parts", _parts(resource)))
    if resource.status.conditions:
        sections.append(_section("conditions", _conditions(resource.status.conditions)))
    users = await _users(api, resource.name)
    sections.append(_section("used by", "\n".join(users) or "nothing"))
    return "\n".join(sections)


def _head(resource: Resource) -> str:
    lines = [click.style(resource.name, bold=True) + "  " + columns.state(resource.status.state)]
    if resource.labels:
        lines.append("  labels   " + " ".join(f"{key}={value}" for key, value in sorted(resource.labels.items())))
    times = {"created": resource.create_time, "updated": resource.update_time}
    if resource.HasField("delete_time"):
        times["deletion asked for"] = resource.delete_time
    lines.append("  " + ", ".join(f"{what} {columns.time(when)}" for what, when in times.items()))
    lines.append(f"  generation {resource.generation}, observed {resource.status.observed_generation}, etag {resource.etag}")
    return "\n".join(lines)


def _section(title: str, text: str) -> str:
    body = "\n".join(f"  {line}" for line in text.rstrip("\n").splitlines())
    return click.style(f"{title}:", bold=True) + f"\n{body}"


def _identity(identity: route_table_pb2.RouteTableIdentity) -> str:
    return render.to_lines({key: value for key, value in render.fields(identity).items() if key not in _OBSERVED})


def _parts(service: v_service_pb2.VService) -> str:
    """Every frontend and member with what each service says of it."""
    rows = [["PART", "WHERE", "STATE", "SERVICE", ""]]
    for front in service.spec.frontends:
        rows += _rows(f"frontend {front.name}", columns.endpoint(front), front.name, service.status.frontends)
    for pool in service.spec.pools:
        for member in pool.members:
            name = f"{pool.name}/{member.name}"
            rows += _rows(f"member {name}", columns.endpoint(member), name, service.status.members)
    return columns.aligned(rows)


def _rows(part: str, where: str, name: str, statuses: Sequence[v_service_pb2.PartStatus]) -> Iterator[list[str]]:
    said = [each for each in statuses if each.name == name]
    for each in said:
        reason = "" if each.reason == "OK" else each.message or each.reason
        yield [part, where, columns.state(each.state), each.service, reason]
    if not said:
        yield [part, where, columns.state(status_pb2.STATE_PENDING), "", "nobody has said anything yet"]


def _conditions(conditions: Sequence[status_pb2.Condition]) -> str:
    rows = [["TYPE", "STATUS", "SINCE", "SERVICE", "REASON", ""]]
    for each in conditions:
        holds = status_pb2.ConditionStatus.Name(each.status).removeprefix("CONDITION_STATUS_").lower()
        rows.append([each.type, holds, columns.time(each.last_transition_time), each.service, each.reason, each.message])
    return columns.aligned(rows)


async def _users(api: Client, name: str) -> list[str]:
    """Names of the resources whose spec, or own name, says `name`."""
    exported: config_pb2.ExportResponse = await api.call(api.config.Export, config_pb2.ExportRequest())
    everything = map(bundle.unwrap, exported.resources)
    return [each.name for each in everything if each.name != name and concerns(each, name)]


def concerns(resource: Resource, name: str) -> bool:
    """Whether the resource is `name`, stands below it, or refers to it."""
    return name in (resource.name, names.parent(resource.name)) or name in _texts(resource.spec)


def _texts(message: Message) -> Iterator[str]:
    for _, value in message.ListFields():
        items: Any = value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value]
        for item in items:
            if isinstance(item, Message):
                yield from _texts(item)
            elif isinstance(item, str):
                yield item
