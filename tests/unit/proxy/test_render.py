"""The text that HAProxy gets: what stands in it, and that nothing else can come to stand in it."""

import dataclasses
import ipaddress
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from crossns import errors, names
from crossns.v1 import v_service_pb2
from services.nsmanager.launcher import directive
from services.proxy import model, render
from tests.unit.proxy import sample

SCENARIOS = Path(__file__).parents[2] / "testdata" / "proxy"
NAMES = sorted(path.stem for path in SCENARIOS.glob("*.yaml"))
# Every line that a file may have behind its head.
LINE = re.compile(
    r"""
    | (frontend|backend)\ vs\.ID\.(fe|po)\.ID
    | \ \ \ \ bind\ SOCKET\ namespace\ NS\ name\ NS\ transparent(\ v6only)?
    | \ \ \ \ default_backend\ vs\.ID\.po\.ID
    | \ \ \ \ balance\ roundrobin
    | \ \ \ \ server\ ID\.NS\ SOCKET\ namespace\ NS
    """.replace("NS", r"ID\.[0-9]+")
    .replace("ID", r"[a-z][a-z0-9-]*")
    .replace("SOCKET", r"(ipv4@[0-9.]+|ipv6@\[[0-9a-f:]+\]):[0-9]+"),
    re.VERBOSE,
)


def scenario(name: str) -> tuple[list[model.VService], dict[str, str]]:
    content = yaml.safe_load((SCENARIOS / f"{name}.yaml").read_text(encoding="utf-8"))
    messages = [json_format.ParseDict(each, v_service_pb2.VService()) for each in content["services"]]
    tables = {f"routeTables/{table}": f"{table}.{cookie}" for table, cookie in content["tables"].items()}
    return [model.v_service(message) for message in messages], tables


def text_of(name: str) -> str:
    services, tables = scenario(name)
    return render.render(services, tables, (), sample.LIMITS)


def body(text: str) -> list[str]:
    """Everything behind `defaults` and its lines."""
    return text.partition("    option socket-stats\n")[2].splitlines()


@pytest.mark.parametrize("name", NAMES)
def test_scenario_is_rendered_as_reviewed(name: str, golden: Callable[[str, str], None]) -> None:
    golden(f"proxy/{name}.cfg", text_of(name))


@pytest.mark.parametrize("name", NAMES)
def test_the_launcher_lets_every_line_run(name: str) -> None:
    directive.check(text_of(name), sample.LIMITS.stats_socket.parent)


@pytest.mark.parametrize("name", NAMES)
def test_every_bind_and_server_line_names_its_namespace(name: str) -> None:
    lines = [line for line in body(text_of(name)) if line.split()[:1] in (["bind"], ["server"])]
    assert all(line.count(" namespace ") == 1 for line in lines)
    assert bool(lines) == (name != "nowhere")


def test_the_order_in_which_things_come_does_not_matter(dice: random.Random) -> None:
    services, tables = scenario("pools")
    expected = render.render(services, tables, (), sample.LIMITS)
    for _ in range(20):
        mixed = [
            dataclasses.replace(
                each,
                frontends=tuple(dice.sample(each.frontends, len(each.frontends))),
                pools=tuple(
                    dataclasses.replace(pool, members=tuple(dice.sample(pool.members, len(pool.members))))
                    for pool in dice.sample(each.pools, len(each.pools))
                ),
            )
            for each in dice.sample(services, len(services))
        ]
        assert render.render(mixed, tables, (), sample.LIMITS) == expected


def test_a_part_that_is_left_out_leaves_the_rest_as_it_is() -> None:
    services = [sample.vservice(), sample.vservice("other", port=81)]
    whole = render.render(services, sample.TABLES, (), sample.LIMITS)
    without = render.render(services, sample.TABLES, {sample.listener("other", port=81), sample.server()}, sample.LIMITS)
    gone = [line for line in body(whole) if line not in body(without)]
    assert gone == [
        "frontend vs.other.fe.fe",
        "    bind ipv4@203.0.113.10:81 namespace dmz.11 name dmz.11 transparent",
        "    default_backend vs.other.po.main",
    ]
    assert body(whole).count("    server a1.tenant-a.21 ipv4@10.0.0.5:8080 namespace tenant-a.21") == 2
    assert body(without).count("    server a1.tenant-a.21 ipv4@10.0.0.5:8080 namespace tenant-a.21") == 1


def test_a_table_that_was_made_anew_is_another_namespace() -> None:
    before = render.render([sample.vservice()], sample.TABLES, (), sample.LIMITS)
    after = render.render([sample.vservice()], {**sample.TABLES, "routeTables/dmz": "dmz.12"}, (), sample.LIMITS)
    assert "namespace dmz.11" in before
    assert "namespace dmz.12" in after
    assert "dmz.11" not in after


@pytest.mark.parametrize(
    ("open_files", "listeners", "connections"),
    [(20_000, 0, 9_872), (20_000, 1_000, 9_372), (1_048_576, 0, 50_000), (512, 300, 1)],
)
def test_connections_follow_from_the_limit_of_files(open_files: int, listeners: int, connections: int) -> None:
    assert render.max_connections(open_files, listeners) == connections


def test_the_file_says_how_many_connections_there_may_be() -> None:
    text = render.render([sample.vservice()], sample.TABLES, (), dataclasses.replace(sample.LIMITS, open_files=10_001))
    assert "    maxconn 4872\n" in text


BAD_TEXTS = [
    "",
    "a\nb",
    "a b",
    "a\tb",
    "a#b",
    'a"',
    "a'",
    "a\\",
    "${A}",
    "A",
    "a.b",
    "a/b",
    "ä",
    "a" * 64,
    "a\r",
    "a\x00",
    "a\u2028b",
]


@pytest.mark.parametrize("bad", BAD_TEXTS)
def test_a_name_that_is_no_id_never_becomes_text(bad: str) -> None:
    vservice = sample.vservice()
    frontend, pool = vservice.frontends[0], vservice.pools[0]
    member = pool.members[0]
    broken = [
        dataclasses.replace(vservice, name=f"vServices/{bad}"),
        dataclasses.replace(vservice, frontends=(dataclasses.replace(frontend, name=bad),)),
        dataclasses.replace(vservice, frontends=(dataclasses.replace(frontend, pool=bad),)),
        dataclasses.replace(vservice, pools=(dataclasses.replace(pool, name=bad),)),
        dataclasses.replace(vservice, pools=(dataclasses.replace(pool, members=(dataclasses.replace(member, name=bad),)),)),
    ]
    # "a/b" ends a resource name as well as "b" does.
    for each in broken if bad != "a/b" else broken[1:]:
        with pytest.raises(errors.InvariantError):
            render.render([each], sample.TABLES, (), sample.LIMITS)


@pytest.mark.parametrize(
    "bad", [*BAD_TEXTS, "dmz", "dmz.", "dmz.x", ".1", "dmz.1.2", "dmz.1 name x", "dmz.1\n", "dmz." + "1" * 21]
)
def test_a_namespace_that_is_none_never_becomes_text(bad: str) -> None:
    for table in ("routeTables/dmz", "routeTables/tenant-a"):
        with pytest.raises(errors.InvariantError):
            render.render([sample.vservice()], {**sample.TABLES, table: bad}, (), sample.LIMITS)


@pytest.mark.parametrize("bad", ["10.0.0.5", "10.0.0.5:80\nbind :1", None, 5, ipaddress.IPv6Address("fe80::1%eth0")])
def test_an_address_of_another_type_never_becomes_text(bad: object) -> None:
    vservice = sample.vservice()
    frontend = dataclasses.replace(vservice.frontends[0], address=bad)  # type: ignore[arg-type]
    with pytest.raises(errors.InvariantError):
        render.render([dataclasses.replace(vservice, frontends=(frontend,))], sample.TABLES, (), sample.LIMITS)


@pytest.mark.parametrize("bad", [0, -1, 65_536, "80", 80.0, True, None])
def test_a_port_that_is_none_never_becomes_text(bad: object) -> None:
    vservice = sample.vservice()
    frontend = dataclasses.replace(vservice.frontends[0], port=bad)  # type: ignore[arg-type]
    with pytest.raises(errors.InvariantError):
        render.render([dataclasses.replace(vservice, frontends=(frontend,))], sample.TABLES, (), sample.LIMITS)


@pytest.mark.parametrize("bad", ["stats.sock", "/run/a b", "/run/x\nmaxconn 1", "/"])
def test_a_path_that_is_none_never_becomes_text(bad: str) -> None:
    with pytest.raises(errors.InvariantError):
        render.render([], {}, (), dataclasses.replace(sample.LIMITS, stats_socket=Path(bad)))


ANY_TEXT = st.one_of(st.text(max_size=70), st.sampled_from(BAD_TEXTS), st.from_regex(r"\A[a-z][a-z0-9-]{0,8}[a-z0-9]\Z"))
ANY_ADDRESS = st.one_of(st.ip_addresses(), st.text(max_size=20))
ANY_PORT = st.one_of(st.integers(-5, 70_000), st.text(max_size=5))


@given(texts=st.tuples(*[ANY_TEXT] * 7), address=ANY_ADDRESS, port=ANY_PORT)
def test_no_value_becomes_a_line_of_its_own(texts: tuple[str, ...], address: object, port: object) -> None:
    """Either it is refused, or each line is one of the few there are, and no more than there must be."""
    name, frontend_name, table, pool_name, member_name, namespace, other = texts
    frontend = model.Frontend(frontend_name, table, address, port, pool_name)  # type: ignore[arg-type]
    pool = model.Pool(pool_name, (model.Member(member_name, table, address, port),))  # type: ignore[arg-type]
    vservice = model.VService(f"vServices/{name}", (frontend,), (pool,))
    try:
        text = render.render([vservice], {table: namespace, other: namespace}, (), sample.LIMITS)
    except errors.InvariantError:
        return
    assert [line for line in body(text) if not LINE.fullmatch(line)] == []
    assert len([line for line in body(text) if line]) == 6


@given(st.data())
def test_what_the_model_takes_the_renderer_takes_too(data: st.DataObject) -> None:
    """The two checks do not quarrel: nothing that a client may store stops the renderer."""
    ids = st.from_regex(r"\A[a-z]([a-z0-9-]{0,61}[a-z0-9])?\Z")
    message = v_service_pb2.VService(name=f"vServices/{data.draw(ids)}")
    message.spec.protocol = v_service_pb2.PROTOCOL_TCP
    frontend = message.spec.frontends.add()
    pool = message.spec.pools.add(name=data.draw(ids))
    member = pool.members.add()
    frontend.name, frontend.route_table = data.draw(ids), f"routeTables/{data.draw(ids)}"
    member.name, member.route_table = data.draw(ids), f"routeTables/{data.draw(ids)}"
    frontend.address, frontend.port = str(data.draw(st.ip_addresses())), data.draw(st.integers(1, 65_535))
    member.address, member.port = str(data.draw(st.ip_addresses())), data.draw(st.integers(1, 65_535))
    try:
        vservice = model.v_service(message)
    except errors.InvalidSpec:
        return
    named = {frontend.route_table, member.route_table}
    tables = {table: f"{names.resource_id(table)}.{data.draw(st.integers(1, 2**64 - 1))}" for table in sorted(named)}
    text = render.render([vservice], tables, (), sample.LIMITS)
    assert [line for line in body(text) if not LINE.fullmatch(line)] == []
    directive.check(text, sample.LIMITS.stats_socket.parent)
