"""Names and keys: what is accepted, and that no two things ever share a key."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crossns import errors, names

KEYS = names.Keys("edge-1", "nsmanager")
ids = st.from_regex(r"\A[a-z]([a-z0-9-]{0,61}[a-z0-9])?\Z")

GOOD_IDS = ["a", "a1", "tenant-a", "a--b", "x" * 63]
BAD_IDS = ["A", "1a", "-a", "a-", "a_b", "a.b", "a b", "a/b", "ä", "x" * 64, "a\n", "\na", 'a"', "a\x00", "..", "a;b", "$(a)"]


@pytest.mark.parametrize("value", GOOD_IDS)
def test_id_is_taken_as_it_is(value: str) -> None:
    assert names.check_id(value, "route_table_id") == value


@pytest.mark.parametrize("value", BAD_IDS)
def test_what_is_no_id_is_refused_with_the_field_and_the_rule(value: str) -> None:
    with pytest.raises(errors.InvalidSpec) as caught:
        names.check_id(value, "route_table_id")
    assert caught.value.reason == "INVALID_NAME"
    assert caught.value.metadata["field"] == "route_table_id"
    assert "a-z, 0-9 and -" in caught.value.message
    assert caught.value.message.isprintable()


def test_missing_id_is_told_from_a_malformed_one() -> None:
    with pytest.raises(errors.InvalidSpec) as caught:
        names.check_id("", "interface_id")
    assert caught.value.reason == "REQUIRED_FIELD"


@pytest.mark.parametrize(
    ("name", "collection"),
    [
        ("routeTables/a", "routeTables"),
        ("interfaces/a-lan", "interfaces"),
        ("vServices/web", "vServices"),
        ("routeTables/a/routes/r1", "routes"),
        ("routeTables/a/rules/r1", "rules"),
        ("routeTables/a/neighbors/n1", "neighbors"),
    ],
)
def test_name_of_the_right_collection_is_taken(name: str, collection: str) -> None:
    assert names.check(name, collection, "name") == name
    assert names.collection(name) == collection


@pytest.mark.parametrize(
    ("name", "collection"),
    [
        ("interfaces/a", "routeTables"),
        ("routeTables", "routeTables"),
        ("routeTables/", "routeTables"),
        ("routeTables//a", "routeTables"),
        ("/routeTables/a", "routeTables"),
        ("routeTables/a/", "routeTables"),
        ("routeTables/A", "routeTables"),
        ("routeTables/a\n", "routeTables"),
        ("routeTables/a", "routes"),
        ("routeTables/a/routes", "routes"),
        ("routeTables/A/routes/r", "routes"),
        ("routeTables/a/routes/R", "routes"),
        ("interfaces/a/routes/r", "routes"),
        ("routeTables/a/rules/r", "routes"),
        ("routeTables/a/routes/r", "rules"),
        ("neighbors/n", "neighbors"),
        ("routeTables/a/routes/r", "routeTables"),
    ],
)
def test_malformed_name_is_refused_with_the_form_that_is_wanted(name: str, collection: str) -> None:
    with pytest.raises(errors.InvalidSpec) as caught:
        names.check(name, collection, "spec.route_table")
    assert caught.value.reason == "INVALID_NAME"
    assert caught.value.metadata["field"] == "spec.route_table"
    assert "{" in caught.value.message


def test_missing_name_is_told_from_a_malformed_one() -> None:
    with pytest.raises(errors.InvalidSpec) as caught:
        names.check("", "routeTables", "name")
    assert caught.value.reason == "REQUIRED_FIELD"


def test_parts_of_a_nested_name() -> None:
    assert names.resource_id("routeTables/a/routes/r") == "r"
    assert names.parent("routeTables/a/routes/r") == "routeTables/a"
    assert names.parent("routeTables/a") == ""
    assert names.collection("a") == ""


def test_every_collection_has_an_owner_that_is_a_service() -> None:
    assert set(names.OWNERS.values()) <= set(names.SERVICES)
    assert names.owner("vServices/web") == "proxy"
    assert names.owner("routeTables/a/routes/r") == "nsmanager"


def test_a_resource_is_observed_by_its_owner_too() -> None:
    assert set(names.OBSERVERS) == set(names.OWNERS)
    assert all(names.OWNERS[collection] in observers for collection, observers in names.OBSERVERS.items())


@given(device=ids, service=st.sampled_from(names.SERVICES), table=ids)
def test_key_is_taken_apart_into_what_it_was_made_of(device: str, service: str, table: str) -> None:
    keys = names.Keys(device, service)
    name = f"routeTables/{table}"
    assert keys.parse(keys.desired(name)) == (service, "desired", name)
    assert keys.parse(keys.status(name)) == (service, "status", name)
    assert keys.parse(keys.claim("link", f"{table}/eth0")) == (service, "claims", f"link/{table}/eth0")
    assert keys.parse(keys.trace(name)) == (service, "trace", name)
    assert keys.parse(keys.leader) == (service, "leader", "")


@given(first=ids, second=ids)
def test_key_of_another_device_is_nobodys_here(first: str, second: str) -> None:
    key = names.Keys(second, "nsmanager").desired("routeTables/a")
    assert (names.Keys(first, "nsmanager").parse(key) is None) == (first != second)


def test_prefix_of_a_device_is_no_prefix_of_a_device_with_a_longer_name() -> None:
    assert not names.Keys("edge-10", "proxy").instance.startswith(names.Keys("edge-1", "proxy").device_prefix)


@given(target=ids, longer=ids, referrer=ids)
@example(target="a", longer="ab", referrer="i")
def test_references_to_a_table_are_not_below_those_to_another(target: str, longer: str, referrer: str) -> None:
    key = KEYS.ref(f"routeTables/{longer}", f"interfaces/{referrer}")
    assert key.startswith(KEYS.refs_to(f"routeTables/{target}")) == (target == longer)


def test_references_to_a_table_are_not_those_to_what_is_nested_in_it() -> None:
    assert not KEYS.ref("routeTables/a/routes/r", "vServices/v").startswith(KEYS.refs_to("routeTables/a"))


def test_families_do_not_share_keys() -> None:
    name = "routeTables/a"
    of_resource = [
        KEYS.desired(name),
        KEYS.status(name),
        KEYS.trace(name),
        KEYS.claim("index", "1"),
        KEYS.ref(name, "interfaces/i"),
    ]
    keys = [*of_resource, KEYS.request("u"), KEYS.leader, KEYS.instance]
    assert len(set(keys)) == len(keys)
    assert all(key.startswith("/crossns/edge-1/nsmanager/") for key in keys)
    assert KEYS.of("proxy").desired(name) == "/crossns/edge-1/proxy/desired/routeTables/a"
