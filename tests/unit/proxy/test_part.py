"""Values that no check of the model has seen: none of them ever becomes text."""

import dataclasses
import ipaddress
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossns import errors
from services.proxy import model, plan, render
from services.proxy.plan import wish
from services.proxy.render import part
from tests.unit.proxy import grammar, sample

SECTION = "vs.web.po.main"
BAD_TEXTS = [
    *("", "a\nb", "a b", "a\tb", "a#b", 'a"', "a'", "a\\", "${A}", "A", "a.b", "a/b", "ä", "a" * 64, "a\r", "a\x00"),
    *("a\u2028b", "-a", "a-", "1a", "a\n", "_1", "a,b", "a;b", "a:b", "%ci", "a{"),
]
NO_NUMBERS = [-1, 65_536 * 65_536, "80", 80.0, True, None, "1\nbind :1"]

frontends = st.sampled_from([field.name for field in dataclasses.fields(model.Frontend) if field.name != "limits"])
members = st.sampled_from([field.name for field in dataclasses.fields(model.Member)])
anything = st.one_of(
    *(st.text(max_size=70), st.sampled_from(BAD_TEXTS), st.from_regex(r"\A[a-z][a-z0-9-]{0,8}[a-z0-9]\Z")),
    *(st.integers(-5, 70_000), st.integers(), st.none(), st.booleans(), st.floats(), st.binary(max_size=5), st.ip_addresses()),
)


def text(
    vservice: model.VService,
    tables: Mapping[str, str] | None = None,
    slot: render.Slot | None = None,
    server: render.Server | None = None,
    limits: render.Limits = sample.LIMITS,
) -> str:
    """The vService with one server line in its pool."""
    slot = slot or render.Slot("a1.tenant-a.21", 1, "a1")
    section = f"vs.{vservice.name.rpartition('/')[2]}.po.{vservice.pools[0].name}"
    arrangement = render.Arrangement(
        sample.TABLES if tables is None else tables,
        (),
        {section: [slot]},
        {(section, slot.name): server or render.Server("10.0.0.5:8080", enabled=True)},
    )
    return render.file([render.piece(vservice, arrangement)], limits).text


def with_frontend(**fields: object) -> model.VService:
    vservice = sample.vservice()
    frontend = dataclasses.replace(vservice.frontends[0], **fields)  # type: ignore[arg-type]
    return dataclasses.replace(vservice, frontends=(frontend,))


def with_pool(**fields: object) -> model.VService:
    vservice = sample.vservice()
    return dataclasses.replace(vservice, pools=(dataclasses.replace(vservice.pools[0], **fields),))  # type: ignore[arg-type]


def refused(*arguments: object, **keywords: object) -> None:
    with pytest.raises(errors.InvariantError):
        text(*arguments, **keywords)  # type: ignore[arg-type]


def test_the_values_of_these_tests_are_good_but_for_the_one_that_is_bad() -> None:
    assert grammar.strange(text(sample.vservice())) == []
    assert "    server a1.tenant-a.21 ipv4@10.0.0.5:8080 id 1 namespace tenant-a.21 weight 1" in text(sample.vservice())


@pytest.mark.parametrize("bad", BAD_TEXTS)
def test_a_name_that_is_no_id_never_becomes_text(bad: str) -> None:
    # "a/b" ends a resource name as well as "b" does.
    if bad != "a/b":
        refused(dataclasses.replace(sample.vservice(), name=f"vServices/{bad}"))
    refused(with_frontend(name=bad))
    refused(with_frontend(pool=bad))
    refused(with_pool(name=bad))


@pytest.mark.parametrize(
    "bad", [*BAD_TEXTS, "dmz", "dmz.", "dmz.x", ".1", "dmz.1.2", "dmz.1 name x", "dmz.1\n", f"dmz.{'1' * 21}"]
)
def test_a_namespace_that_is_none_never_becomes_text(bad: str) -> None:
    refused(sample.vservice(), tables={**sample.TABLES, "routeTables/dmz": bad})


@pytest.mark.parametrize(
    "bad",
    [
        *BAD_TEXTS,
        "a1",
        "a1.tenant-a",
        "a1.b.tenant-a.21",
        "_0.tenant-a.21",
        "_.tenant-a.21",
        "_12345.tenant-a.21",
        "a1.tenant-a.21\n",
    ],
)
def test_a_line_that_has_no_such_name_never_becomes_text(bad: str) -> None:
    refused(sample.vservice(), slot=render.Slot(bad, 1))


@pytest.mark.parametrize("bad", [0, 2**31, *NO_NUMBERS])
def test_an_id_that_is_none_never_becomes_text(bad: object) -> None:
    refused(sample.vservice(), slot=render.Slot("a1.tenant-a.21", bad))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "bad",
    [
        *("", "10.0.0.5", "10.0.0.5:", ":80", "10.0.0.5:80 disabled", "10.0.0.5:80\nbind :1", "10.0.0.5:123456", "fd00::5:80"),
        *("/run/x:80", "unix@x:80", "host:80", "[fd00::5]", "[fe80::1%eth0]:80", None, 80),
    ],
)
def test_a_server_that_is_nowhere_never_becomes_text(bad: object) -> None:
    refused(sample.vservice(), server=render.Server(bad))  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [257, *NO_NUMBERS])
def test_a_weight_that_is_none_never_becomes_text(bad: object) -> None:
    refused(sample.vservice(), server=render.Server("10.0.0.5:80", bad))  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [-1, 1_000_001, "80", 80.5, True])
def test_a_limit_that_is_none_never_becomes_text(bad: object) -> None:
    refused(sample.vservice(), server=render.Server("10.0.0.5:80", max_connections=bad))  # type: ignore[arg-type]
    for field in ("connections", "connections_per_client", "connection_rate"):
        refused(with_frontend(limits=model.Limits(**{field: bad})))  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [0, 86_400_001, -1, "80", "1ms\nbind :1", 80.5, True])
@pytest.mark.parametrize("field", [each.name for each in dataclasses.fields(model.Timeouts)])
def test_a_timeout_that_is_none_never_becomes_text(field: str, bad: object) -> None:
    refused(dataclasses.replace(sample.vservice(), timeouts=model.Timeouts(**{field: bad})))  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", ["10.0.0.5", "10.0.0.5:80\nbind :1", None, 5, ipaddress.IPv6Address("fe80::1%eth0")])
def test_an_address_of_another_type_never_becomes_text(bad: object) -> None:
    refused(with_frontend(address=bad))
    member = dataclasses.replace(sample.vservice().pools[0].members[0], address=bad)  # type: ignore[arg-type]
    with pytest.raises(errors.InvariantError):
        render.member_part("vServices/web", "main", member, sample.TABLES)


@pytest.mark.parametrize("bad", [0, 65_536, *NO_NUMBERS])
def test_a_port_that_is_none_never_becomes_text(bad: object) -> None:
    refused(with_frontend(port=bad, end_port=bad))
    refused(with_frontend(end_port=bad))


def test_a_range_that_ends_before_it_begins_never_becomes_text() -> None:
    refused(with_frontend(port=80, end_port=79))


@pytest.mark.parametrize("bad", ["", "roundrobin", "first\n    server x :1", None, 1])
def test_an_algorithm_that_is_none_never_becomes_text(bad: object) -> None:
    refused(with_pool(algorithm=bad))


@pytest.mark.parametrize("bad", ["", "tcp\n", "TCP", "health", "http\nglobal", None, 1])
def test_a_protocol_that_is_none_never_becomes_text(bad: object) -> None:
    refused(dataclasses.replace(sample.vservice(), protocol=bad))  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [3, -1, "", " send-proxy", None])
def test_a_version_of_the_proxy_protocol_that_is_none_never_becomes_text(bad: object) -> None:
    refused(with_pool(send_proxy=bad))


@pytest.mark.parametrize("bad", ["stats.sock", "/run/a b", "/run/x\nmaxconn 1", "/"])
def test_a_path_that_is_none_never_becomes_text(bad: str) -> None:
    refused(sample.vservice(), limits=dataclasses.replace(sample.LIMITS, engine_dir=Path(bad)))


@given(which=frontends, value=anything, other=frontends, another=anything)
def test_nothing_in_a_frontend_becomes_a_line_of_its_own(which: str, value: object, other: str, another: object) -> None:
    """Either it is refused, or each line is one of the few there are, and no more than there must be."""
    vservice = with_frontend(**{which: value, other: another})
    tables = {**sample.TABLES, vservice.frontends[0].table: "dmz.11"}
    try:
        made = text(vservice, tables)
    except errors.InvariantError:
        return
    assert grammar.strange(made) == []
    assert len([line for line in grammar.body(made) if line]) == 6


@given(
    slot=st.builds(render.Slot, anything, anything),
    server=st.builds(render.Server, anything, anything, anything, anything),
    good=st.sets(st.sampled_from(["name", "id", "socket", "weight", "max_connections"])),
)
def test_nothing_in_a_server_becomes_a_line_of_its_own(slot: render.Slot, server: render.Server, good: set[str]) -> None:
    known: dict[str, object] = {"name": "a1.tenant-a.21", "id": 1, "socket": "10.0.0.5:80", "weight": 1, "max_connections": 0}
    of_slot = {name: known[name] for name in good & {"name", "id"}}
    of_server = {name: known[name] for name in good - {"name", "id"}}
    slot, server = dataclasses.replace(slot, **of_slot), dataclasses.replace(server, **of_server)  # type: ignore[arg-type]
    try:
        made = text(sample.vservice(), slot=slot, server=server)
    except errors.InvariantError:
        return
    assert grammar.strange(made) == []
    assert len([line for line in grammar.body(made) if line]) == 6


@given(which=members, value=anything, other=members, another=anything)
def test_nothing_in_a_member_becomes_a_line_of_its_own(which: str, value: object, other: str, another: object) -> None:
    member = dataclasses.replace(sample.vservice().pools[0].members[0], **{which: value, other: another})  # type: ignore[arg-type]
    tables = {**sample.TABLES, member.table: "tenant-a.21"}
    desired = model.Desired((with_pool(members=(member,)),), tables)
    try:
        made = wish.wish(desired, plan.Observed(sample.LIMITS, namespaces=frozenset(tables.values()))).config.text
    except errors.InvariantError:
        return
    assert grammar.strange(made) == []
    assert len([line for line in grammar.body(made) if line.startswith("    server ")]) == (1 if member.port == 0 else 3)


def test_ids_have_no_dot_so_no_section_is_anothers() -> None:
    names = {part.frontend_section("vServices/a", "b"), part.backend_section("vServices/a", "b")}
    assert names == {"vs.a.fe.b", "vs.a.po.b"}
    assert part.backend_section("vServices/a-fe", "b") == "vs.a-fe.po.b"


def test_a_frontend_is_known_by_each_port_of_its_range() -> None:
    (frontend,) = with_frontend(end_port=82).frontends
    listeners = render.listeners("vServices/web", frontend, sample.TABLES)
    assert listeners == (sample.listener(port=80), sample.listener(port=81), sample.listener(port=82))
    assert render.frontend_part("vServices/web", frontend, sample.TABLES) == render.Part(
        "vs.web.fe.fe", "dmz.11", "203.0.113.10:80-82"
    )


def test_without_a_namespace_there_is_no_part() -> None:
    vservice = sample.vservice()
    assert render.frontend_part("vServices/web", vservice.frontends[0], {}) is None
    assert render.listeners("vServices/web", vservice.frontends[0], {}) == ()
    assert render.member_part("vServices/web", "main", vservice.pools[0].members[0], {}) is None
