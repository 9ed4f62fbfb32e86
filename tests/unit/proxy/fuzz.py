"""vServices of which any field is anything, and what they ask for: for the tests that what HAProxy gets of them is no more."""

import dataclasses
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

from crossns import errors
from crossns.v1 import v_service_pb2
from services.proxy import model, plan
from services.proxy.plan import wish
from tests.unit.proxy import sample

# Its descriptor is one of two implementations.
Field = tuple[Message, Any]

_TEXTS = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)
# What would be a directive, end one, or be read in another way.
_DIRECTIVES = [
    *(
        "x\n    bind :1",
        "a\r\nglobal",
        "a # b",
        "a disabled",
        "routeTables/dmz\nuser root",
        "10.0.0.5:80",
        "10.0.0.5 namespace b",
    ),
    *(
        "${HOME}",
        '"a"',
        "'a'",
        "a\\ b",
        "a\x00b",
        "a\u0085b",
        "a\u2028b",
        "vServices/a.b",
        "routeTables/_1",
        "%[env(A)]",
        "unix@/a",
    ),
]
_GOOD = [
    *("a", "main", "z" * 63, "vServices/a", "routeTables/dmz", "routeTables/tenant-b", f"routeTables/{'t' * 63}"),
    *("10.0.0.6", "203.0.113.10", "2001:DB8::0:1", "fd00::", "255.255.255.254", "0.0.0.1", "::a00:5", "::ffff:10.0.0.5"),
]
_INTS = [0, 1, 2, 3, 4, 5, 6, 79, 80, 81, 255, 256, 257, 1023, 1024, 65_535, 65_536, 999_999_999, 1_000_000, 1_000_001, -1]

texts = st.one_of(st.sampled_from(_GOOD), st.sampled_from(_DIRECTIVES), st.text(max_size=70))


def everything() -> v_service_pb2.VService:
    """A valid vService in which every field is set."""
    result = sample.message()
    result.spec.protocol = v_service_pb2.PROTOCOL_HTTP
    result.spec.datapath = v_service_pb2.DATAPATH_PROXY
    result.spec.access_log = True
    for field in result.spec.timeouts.DESCRIPTOR.fields:
        getattr(result.spec.timeouts, field.name).FromMilliseconds(1500)
    first = result.spec.frontends[0]
    first.pool, first.end_port, first.accept_proxy_protocol = "main", 82, True
    for field in first.limits.DESCRIPTOR.fields:
        setattr(first.limits, field.name, 100)
    result.spec.frontends.add(name="six", route_table="routeTables/tenant-a", address="fd00::9", port=80, pool="other")
    for member, weight in zip(result.spec.pools[0].members, (7, 256), strict=True):
        member.weight, member.max_connections = weight, 10
    result.spec.pools[0].members[1].state = v_service_pb2.MEMBER_STATE_DRAIN
    other = result.spec.pools.add(name="other", algorithm=v_service_pb2.ALGORITHM_FIRST)
    other.proxy_protocol = v_service_pb2.PROXY_PROTOCOL_V2
    other.members.add(name="a1", route_table="routeTables/tenant-a", address="fd00::5", state=v_service_pb2.MEMBER_STATE_DISABLED)
    result.labels["tier"] = "front"
    result.etag = "7"
    return result


def leaves(message: Message) -> Iterator[Field]:
    """Every field of it that holds a value, of all its parts."""
    fields: Any = message.DESCRIPTOR.fields
    for field in fields:
        if field.type != FieldDescriptor.TYPE_MESSAGE:
            yield message, field
        elif not field.is_repeated:
            yield from leaves(getattr(message, field.name))
        elif not field.message_type.GetOptions().map_entry:
            for part in getattr(message, field.name):
                yield from leaves(part)


def value_for(data: st.DataObject, field: Any) -> object:
    if field.type in _TEXTS:
        return data.draw(texts)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return data.draw(st.booleans())
    bits = 63 if field.type == FieldDescriptor.TYPE_INT64 else 31
    return data.draw(st.one_of(st.sampled_from(_INTS), st.integers(-(2**bits), 2**bits - 1)))


@st.composite
def messages(draw: st.DrawFn) -> v_service_pb2.VService:
    """One in which a few fields, whichever, are something else."""
    data = draw(st.data())
    message = everything()
    if data.draw(st.booleans()):
        message.spec.protocol = v_service_pb2.PROTOCOL_TCP
        message.spec.timeouts.ClearField("http_request")
        message.spec.timeouts.ClearField("http_keep_alive")
    fields = list(leaves(message))
    for index in data.draw(st.lists(st.integers(0, len(fields) - 1), max_size=4)):
        part, field = fields[index]
        setattr(part, field.name, value_for(data, field))
    if data.draw(st.booleans()):
        message.labels[data.draw(texts)] = data.draw(texts)
    return message


def parsed(message: v_service_pb2.VService) -> model.VService | None:
    """None where it is refused."""
    try:
        return model.v_service(message)
    except errors.InvalidSpec:
        return None


def tables_of(*services: model.VService) -> dict[str, str]:
    named = {each.table for of in services for each in of.frontends}
    named |= {member.table for of in services for pool in of.pools for member in pool.members}
    return {table: f"{table.partition('/')[2]}.{cookie}" for cookie, table in enumerate(sorted(named), start=1)}


def rendered(*services: model.VService) -> str:
    tables = tables_of(*services)
    observed = plan.Observed(sample.LIMITS, namespaces=frozenset(tables.values()))
    return wish.wish(model.Desired(services, tables), observed).config.text


def taken(several: Sequence[v_service_pb2.VService]) -> list[model.VService]:
    """Those that are not refused, each with a name of its own."""
    found = [vservice for vservice in map(parsed, several) if vservice is not None]
    return [dataclasses.replace(vservice, name=f"vServices/v{index}") for index, vservice in enumerate(found)]


def check(path: Path) -> None:
    """HAProxy takes the file, and warns of nothing."""
    checked = subprocess.run(["haproxy", "-W", "-c", "-f", str(path)], capture_output=True, text=True, timeout=30, check=False)
    assert (checked.returncode, checked.stdout.strip()) == (0, "Configuration file is valid"), checked.stderr
    assert "WARNING" not in checked.stderr
