"""Whatever a client sends, in whichever fields: it is refused, or HAProxy gets exactly what was asked for and nothing else."""

import dataclasses
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from crossns import errors
from crossns.v1 import v_service_pb2
from services.nsmanager.launcher import directive
from services.proxy import model, plan, render
from services.proxy.plan import slots, wish
from tests.unit.proxy import engine, grammar, sample

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


def sections_of(message: v_service_pb2.VService) -> dict[str, Counter[str]]:
    """The sections that it asks for, and how often which word begins a line of them."""
    id_, spec = message.name.partition("/")[2], message.spec
    kind = {v_service_pb2.PROTOCOL_TCP: "tcp", v_service_pb2.PROTOCOL_HTTP: "http"}[spec.protocol]
    given = {field.name for field, _ in spec.timeouts.ListFields()}
    result: dict[str, Counter[str]] = {}
    for frontend in spec.frontends:
        limits = frontend.limits
        result[f"frontend vs.{id_}.fe.{frontend.name} from {kind}"] = +Counter(
            {
                "bind": 1,
                "default_backend": 1,
                "maxconn": bool(limits.max_connections),
                "rate-limit": bool(limits.max_connection_rate),
                "stick-table": bool(limits.max_connections_per_client),
                "tcp-request": 2 * bool(limits.max_connections_per_client),
                "timeout": len(given & {"client_idle", "http_request", "http_keep_alive"}),
                "log": spec.access_log,
                "log-format": spec.access_log,
            }
        )
    for pool in spec.pools:
        is_hash = pool.algorithm == v_service_pb2.ALGORITHM_SOURCE_HASH
        is_first = pool.algorithm == v_service_pb2.ALGORITHM_FIRST
        reached = {member.route_table for member in pool.members if member.port}
        result[f"backend vs.{id_}.po.{pool.name} from {kind}"] = +Counter(
            {
                "balance": 1,
                "hash-type": is_hash,
                "timeout": len(given & {"connect", "member_idle", "queue"}),
                "server": len(pool.members) + (0 if is_first else slots.SPARE * len(reached)),
            }
        )
    return result


def listeners_of(vservice: model.VService) -> set[render.Part]:
    tables, id_ = tables_of(vservice), vservice.name.partition("/")[2]
    return {
        render.Part(f"vs.{id_}.fe.{each.name}", tables[each.table], socket)
        for each in vservice.frontends
        for socket in each.sockets
    }


def servers_of(message: v_service_pb2.VService, vservice: model.VService) -> dict[engine.Line, render.Server]:
    """What members ask for, by line."""
    tables, id_ = tables_of(vservice), message.name.partition("/")[2]
    addresses = {(pool.name, each.name): each.address for pool in vservice.pools for each in pool.members}
    return {
        (f"vs.{id_}.po.{pool.name}", f"{each.name}.{tables[each.route_table]}"): render.Server(
            model.socket(addresses[pool.name, each.name], each.port),
            0 if each.state == v_service_pb2.MEMBER_STATE_DRAIN else each.weight or 1,
            each.state != v_service_pb2.MEMBER_STATE_DISABLED,
            each.max_connections,
        )
        for pool in message.spec.pools
        for each in pool.members
    }


def test_the_message_that_it_begins_with_is_valid_and_has_every_field() -> None:
    assert parsed(everything()) is not None
    own = {field.name for part, field in leaves(everything()) if part.DESCRIPTOR.name in {"Frontend", "Pool", "Member"}}
    assert {"end_port", "accept_proxy_protocol", "proxy_protocol", "weight", "state", "max_connections"} <= own


@given(message=messages())
def test_a_refusal_is_one_line_with_the_path_of_the_field(message: v_service_pb2.VService) -> None:
    """Whatever was sent: it is shown to a person."""
    if parsed(message) is not None:
        return
    with pytest.raises(errors.InvalidSpec, match=r"^(name|spec[\w.\[\]]*): ") as caught:
        model.v_service(message)
    assert len(caught.value.message.splitlines()) == 1
    assert len(caught.value.message) < 700


@settings(max_examples=settings().max_examples * 3)
@given(message=messages())
def test_what_a_client_sends_is_refused_or_becomes_exactly_what_it_asks_for(message: v_service_pb2.VService) -> None:
    vservice = parsed(message)
    if vservice is None:
        return
    text = rendered(vservice)
    assert grammar.strange(text) == []
    directive.check(text, sample.LIMITS.engine_dir)
    shown = {title: Counter(line.split()[0] for line in lines) for title, lines in grammar.sections(text).items()}
    assert shown == sections_of(message)
    worker = engine.read(text)
    assert worker.listeners == listeners_of(vservice)
    expected = servers_of(message, vservice)
    servers = {line: server for line, (_, server) in worker.servers.items()}
    assert {line: servers[line] for line in expected} == expected
    assert {servers[line] for line in servers.keys() - expected.keys()} <= {render.Server()}


@pytest.mark.needs("haproxy")
@settings(max_examples=settings().max_examples // 10)
@given(several=st.lists(messages(), min_size=10, max_size=10))
def test_the_real_haproxy_takes_what_the_model_takes(
    several: list[v_service_pb2.VService], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """But for the namespaces, which are not here: the reviewed files are tried with theirs."""
    taken = [vservice for vservice in map(parsed, several) if vservice is not None]
    services = [dataclasses.replace(vservice, name=f"vServices/v{index}") for index, vservice in enumerate(taken)]
    path: Path = tmp_path_factory.mktemp("fuzz") / "haproxy.cfg"
    path.write_text(re.sub(r" namespace \S+", "", rendered(*services)), encoding="ascii")
    checked = subprocess.run(["haproxy", "-W", "-c", "-f", str(path)], capture_output=True, text=True, timeout=30, check=False)
    assert (checked.returncode, checked.stdout.strip()) == (0, "Configuration file is valid"), checked.stderr
    assert "WARNING" not in checked.stderr
