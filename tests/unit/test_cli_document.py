"""The file format: what is written is read back, what is wrong is told with file, line, document and what to do."""

from pathlib import Path

import pytest
from google.protobuf import duration_pb2
from hypothesis import given
from hypothesis import strategies as st

from crossns import errors
from crossns.cli import document, render
from crossns.resource import Resource
from crossns.v1 import interface_pb2, route_pb2, route_table_pb2, v_service_pb2

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))


def table(spec: str) -> str:
    return f"kind: RouteTable\nname: routeTables/a\nspec: {spec}\n"


def interface(spec: str) -> str:
    return f"kind: Interface\nname: interfaces/a\nspec: {spec}\n"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
@pytest.mark.parametrize("form", ["yaml", "json"])
def test_what_is_printed_of_an_example_reads_back_equal(path: Path, form: str) -> None:
    resources = document.parse(path.read_text(), path.name)
    assert resources
    assert document.parse(render.bundle(resources, form), "printed") == resources


texts = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=30)
labels = st.dictionaries(texts.filter(bool), texts, max_size=3)
words = st.sampled_from(
    ["10.0.0.1/24", "fd00::1/64", "on", "no", "~", "null", "1_000", "0x10", "12:30:45", "1e3", "=", "-", "a: b", "# c"]
)
resources = st.one_of(
    st.builds(
        lambda text, index, flag, labels: route_table_pb2.RouteTable(
            name="routeTables/a",
            labels=labels,
            spec=route_table_pb2.RouteTableSpec(description=text, index=index, forwarding=flag),
        ),
        texts | words,
        st.integers(-(2**31), 2**31 - 1),
        st.booleans(),
        labels,
    ),
    st.builds(
        lambda addresses, enabled, mac: interface_pb2.Interface(
            name="interfaces/a",
            spec=interface_pb2.InterfaceSpec(
                route_table="routeTables/a",
                addresses=addresses,
                enabled=enabled,
                physical=interface_pb2.PhysicalLink(mac_address=mac),
            ),
        ),
        st.lists(words | texts, max_size=4),
        st.none() | st.booleans(),
        words,
    ),
    st.builds(
        lambda kind, metric: route_pb2.Route(
            name="routeTables/a/routes/r", spec=route_pb2.RouteSpec(destination="0.0.0.0/0", metric=metric, type=kind)
        ),
        st.sampled_from([0, route_pb2.ROUTE_TYPE_UNICAST, route_pb2.ROUTE_TYPE_BLACKHOLE]),
        st.integers(0, 2**32 - 1),
    ),
    st.just(interface_pb2.Interface(name="interfaces/a", spec=interface_pb2.InterfaceSpec(dummy=interface_pb2.DummyLink()))),
    st.just(v_service_pb2.VService(name="vServices/a")),
    st.builds(
        lambda connect: v_service_pb2.VService(
            name="vServices/a", spec=v_service_pb2.VServiceSpec(timeouts=v_service_pb2.Timeouts(connect=connect))
        ),
        st.builds(duration_pb2.Duration, seconds=st.integers(0, 86400), nanos=st.integers(0, 999_999_999)),
    ),
)


@given(st.lists(resources, min_size=1, max_size=3), st.sampled_from(["yaml", "json"]))
def test_whatever_a_resource_holds_reads_back_equal(wanted: list[Resource], form: str) -> None:
    assert document.parse(render.bundle(wanted, form), "printed") == wanted


def test_enum_values_are_read_with_and_without_their_prefix() -> None:
    short, full = (
        document.parse(f"kind: VService\nname: vServices/a\nspec: {{protocol: {word}}}", "f") for word in ("TCP", "PROTOCOL_TCP")
    )
    assert short == full
    assert "protocol: TCP" in render.bundle(short, "yaml")


def test_text_stays_text_whatever_yaml_makes_of_it_elsewhere() -> None:
    (read,) = document.parse(interface("{linkName: 0x10, physical: {macAddress: 10:11:12:13:14:15}, addresses: [on]}"), "f")
    assert isinstance(read, interface_pb2.Interface)
    assert (read.spec.link_name, read.spec.physical.mac_address, list(read.spec.addresses)) == (
        "0x10",
        "10:11:12:13:14:15",
        ["on"],
    )


def test_what_get_prints_can_be_applied() -> None:
    found = route_table_pb2.RouteTable(name="routeTables/a", etag="5", generation=3, spec=route_table_pb2.RouteTableSpec(index=7))
    found.status.index = 7
    found.create_time.GetCurrentTime()
    (read,) = document.parse(render.to_yaml([render.to_plain(found)]), "f")
    assert read == route_table_pb2.RouteTable(name="routeTables/a", spec=route_table_pb2.RouteTableSpec(index=7))


def test_number_that_fits_into_its_field_is_left_to_the_api() -> None:
    (read,) = document.parse(table("{index: 70000}"), "f")
    assert read == route_table_pb2.RouteTable(name="routeTables/a", spec=route_table_pb2.RouteTableSpec(index=70000))


def test_null_leaves_a_field_unset() -> None:
    (read,) = document.parse(interface("{dummy: {}, physical: null, enabled: ~, linkName: }"), "f")
    assert read == interface_pb2.Interface(name="interfaces/a", spec=interface_pb2.InterfaceSpec(dummy=interface_pb2.DummyLink()))


def test_a_list_of_resources_counts_as_documents() -> None:
    listed = document.parse(
        '[{"kind": "RouteTable", "name": "routeTables/a"}, {"kind": "RouteTable", "name": "routeTables/b"}]', "f"
    )
    assert [each.name for each in listed] == ["routeTables/a", "routeTables/b"]


def test_empty_documents_are_none() -> None:
    assert document.parse("---\n---\n# nothing\n---\n", "f") == []


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (f"{table('{}')}---\nkind: Foo\nname: x", "5 (document 2)", "unknown kind 'Foo': use one of RouteTable"),
        ("kind: RouteTabel\nname: x", "1 (document 1)", "did you mean 'RouteTable'?"),
        ("name: routeTables/a", "1 (document 1)", "has no `kind`"),
        ("kind: RouteTable", "1 (document 1)", "name: is required"),
        ("kind: RouteTable\nname: interfaces/a", "2 (document 1)", "is not of the form `routeTables/{id}`"),
        ("kind: RouteTable\nname: {a: b}", "2 (document 1)", "name is a single value"),
        ("kind: RouteTable\nname: routeTables/a\nspecs: {}", "3 (document 1)", "unknown field 'specs'"),
        (table("{indx: 4}"), "3 (document 1)", "unknown field 'indx' in spec: it has displayName, description, index"),
        (table("{index: x}"), "3 (document 1)", "index is a whole number"),
        (table("{index: 1.5}"), "3 (document 1)", "index is a whole number"),
        (table("{index: 99999999999}"), "3 (document 1)", "index takes no such number: 99999999999 is far out of its range"),
        (table(f"{{index: -{'9' * 5000}}}"), "3 (document 1)", "index takes no such number: -999"),
        (table("{forwarding: on}"), "3 (document 1)", "forwarding is true or false"),
        (table("3"), "3 (document 1)", "spec holds fields"),
        (table("{index: 1, index: 2}"), "3 (document 1)", "'index' stands here twice"),
        (table("{description: [a]}"), "3 (document 1)", "description is a single value, not a list"),
        (interface("{dummy: {}, tap: {}}"), "3 (document 1)", "tap and dummy exclude each other"),
        (interface("{addresses: 10.0.0.1/24}"), "3 (document 1)", "addresses is a list"),
        (interface("{addresses: [[10.0.0.1/24]]}"), "3 (document 1)", "addresses is a single value, not a list"),
        (
            "kind: VService\nname: vServices/a\nspec:\n  protocol: UPD",
            "4 (document 1)",
            "protocol is one of TCP, HTTP, not 'UPD'",
        ),
        (
            "kind: VService\nname: vServices/a\nspec:\n  frontends:\n  - 80",
            "5 (document 1)",
            "an element of frontends holds fields",
        ),
        (
            "kind: VService\nname: vServices/a\nspec:\n  pools:\n  - members:\n    - prt: 1",
            "6 (document 1)",
            "unknown field 'prt'",
        ),
        ("kind: RouteTable\nname: routeTables/a\nlabels: [x]", "3 (document 1)", "holds pairs"),
        ("- 1", "1 (document 1)", "is not a resource"),
        ("hello", "1 (document 1)", "is not a resource"),
        ("a: [1\nb: 2", "2 (document 1)", "is not YAML"),
        ("a: b: c", "1 (document 1)", "is not YAML"),
        (f"{table('{}')}---\na: {{]", "5 (document 2)", "is not YAML"),
        ("kind: RouteTable\n\tname: x", "2 (document 1)", "tab"),
        ("a: *nowhere", "1 (document 1)", "is not YAML"),
        ("\x00", "1 (document 1)", "is not YAML"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, line: str, words: str) -> None:
    with pytest.raises(errors.InvalidSpec) as raised:
        document.parse(text, "file.yaml")
    assert raised.value.message.startswith(f"file.yaml:{line}: ")
    assert words in raised.value.message


@pytest.mark.parametrize("text", ["5", "1h", "{seconds: 5}", "s", "1e3s", "[5s]"])
def test_a_time_is_seconds_with_an_s(text: str) -> None:
    with pytest.raises(errors.InvalidSpec, match="connect is"):
        document.parse(f"kind: VService\nname: vServices/a\nspec: {{timeouts: {{connect: {text}}}}}", "f.yaml")
