"""Whatever a client sends, in whichever fields: it is refused, or HAProxy gets exactly what was asked for and nothing else."""

import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossns import errors
from crossns.v1 import v_service_pb2
from services.nsmanager.launcher import directive
from services.proxy import model, render
from services.proxy.plan import slots
from tests.unit.proxy import engine, fuzz, grammar, sample


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
    tables, id_ = fuzz.tables_of(vservice), vservice.name.partition("/")[2]
    return {
        render.Part(f"vs.{id_}.fe.{each.name}", tables[each.table], socket)
        for each in vservice.frontends
        for socket in each.sockets
    }


def servers_of(message: v_service_pb2.VService, vservice: model.VService) -> dict[engine.Line, render.Server]:
    """What members ask for, by line."""
    tables, id_ = fuzz.tables_of(vservice), message.name.partition("/")[2]
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
    assert fuzz.parsed(fuzz.everything()) is not None
    own = {field.name for part, field in fuzz.leaves(fuzz.everything()) if part.DESCRIPTOR.name in {"Frontend", "Pool", "Member"}}
    assert {"end_port", "accept_proxy_protocol", "proxy_protocol", "weight", "state", "max_connections"} <= own


@given(message=fuzz.messages())
def test_a_refusal_is_one_line_with_the_path_of_the_field(message: v_service_pb2.VService) -> None:
    """Whatever was sent: it is shown to a person."""
    if fuzz.parsed(message) is not None:
        return
    with pytest.raises(errors.InvalidSpec, match=r"^(name|spec[\w.\[\]]*): ") as caught:
        model.v_service(message)
    assert len(caught.value.message.splitlines()) == 1
    assert len(caught.value.message) < 700


@settings(max_examples=settings().max_examples * 3)
@given(message=fuzz.messages())
def test_what_a_client_sends_is_refused_or_becomes_exactly_what_it_asks_for(message: v_service_pb2.VService) -> None:
    vservice = fuzz.parsed(message)
    if vservice is None:
        return
    text = fuzz.rendered(vservice)
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
@given(several=st.lists(fuzz.messages(), min_size=10, max_size=10))
def test_the_real_haproxy_takes_what_the_model_takes(
    several: list[v_service_pb2.VService], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """But for the namespaces, which are not here: tests/kernel/test_engine_fuzz.py has them."""
    path: Path = tmp_path_factory.mktemp("fuzz") / "haproxy.cfg"
    path.write_text(re.sub(r" namespace \S+", "", fuzz.rendered(*fuzz.taken(several))), encoding="ascii")
    fuzz.check(path)
