"""A copy of a table: what comes, under which names, what is left out with which words; and back again it is the original."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossns.cli import document, root, staging
from crossns.resource import Resource
from crossns.testing.device import doc

A, B = "routeTables/a", "routeTables/b"


def parsed(*documents: str) -> list[Resource]:
    return [each for text in documents for each in document.parse(text, "test")]


def bridge(name: str, table: str = A, **spec: object) -> str:
    kind: dict[str, object] = {} if {"vxlan", "macvlan", "vlan", "physical"} & spec.keys() else {"bridge": {}}
    return doc(f"interfaces/{name}", routeTable=table, **{**kind, **spec})


def copy(*documents: str) -> staging.Copy:
    return staging.copied(parsed(doc(A, forwarding=True), doc(B), *documents), A, B, {})


def names_of(made: staging.Copy) -> list[str]:
    return [each.name for each in made.resources]


def test_references_within_the_table_follow_and_others_stay() -> None:
    made = copy(
        bridge("trunk", "routeTables/default"),
        bridge("a-br", bridge={"ports": ["interfaces/a-vx"]}, addresses=["10.0.0.1/24"]),
        bridge("a-vx", vxlan={"vni": 7}),
        bridge("a-mv", macvlan={"parent": "interfaces/trunk"}),
        doc(f"{A}/routes/r", destination="0.0.0.0/0", gateways=[{"interface": "interfaces/a-br", "address": "10.0.0.9"}]),
    )
    by_name = {each.name: each for each in made.resources}
    assert by_name[B].spec.forwarding  # type: ignore[union-attr]
    assert by_name["interfaces/b-br"].spec.bridge.ports == ["interfaces/b-vx"]  # type: ignore[union-attr]
    assert by_name["interfaces/b-br"].spec.route_table == B  # type: ignore[union-attr]
    assert by_name["interfaces/b-mv"].spec.macvlan.parent == "interfaces/trunk"  # type: ignore[union-attr]
    assert by_name[f"{B}/routes/r"].spec.gateways[0].interface == "interfaces/b-br"  # type: ignore[union-attr]
    assert made.left_out == ()


def test_what_exists_once_and_what_stands_on_it_is_left_out_with_a_word() -> None:
    frontend = {"name": "f", "routeTable": A, "address": "10.0.0.80", "port": 80}
    made = staging.copied(
        parsed(
            doc(A, index=7),
            bridge("a-lan", physical={"linkName": "eth1"}, addresses=["10.0.0.1/24"]),
            bridge("a-br", bridge={"ports": ["interfaces/a-lan"]}, addresses=["10.8.0.1/24"]),
            bridge("a-mv", macvlan={"parent": "interfaces/a-lan"}),
            bridge("a-v5", vlan={"parent": "interfaces/trunk", "vlanId": 5}),
            doc(f"{A}/routes/over", destination="10.5.0.0/16", gateways=[{"interface": "interfaces/a-mv"}]),
            doc(f"{A}/routes/far", destination="0.0.0.0/0", gateways=[{"address": "10.0.0.9"}]),
            doc(f"{A}/routes/near", destination="10.9.0.0/16", gateways=[{"address": "10.8.0.9"}]),
            doc(f"{A}/neighbors/n", address="10.0.0.5", interface="interfaces/a-lan", macAddress="02:00:00:00:00:05"),
            doc("vServices/web", protocol="TCP", frontends=[frontend]),
        ),
        A,
        B,
        {},
    )
    assert names_of(made) == [B, "interfaces/b-br", f"{B}/routes/near"]
    assert made.resources[0].spec.index == 0  # type: ignore[union-attr]
    assert dict(line.split(": ", 1) for line in made.left_out) == {
        "interfaces/a-lan": "a network card is in one table only",
        "interfaces/a-v5": "interfaces/trunk has VLAN 5 once only",
        "vServices/web": "its VIP 10.0.0.80 is in one table only",
        "interfaces/a-mv": "it needs interfaces/a-lan",
        f"{A}/neighbors/n": "it needs interfaces/a-lan",
        f"{A}/routes/over": "it needs interfaces/a-mv",
        f"{A}/routes/far": "its gateway 10.0.0.9 is reached through what was left out",
        "interfaces/a-br": "its bridge.ports interfaces/a-lan",
        A: "its index 7, for the copy gets one of its own",
    }


@pytest.mark.parametrize(
    ("name", "link", "expected"),
    [
        ("a-lan", "", ("b-lan", "")),
        ("lan", "", ("lan-b", "")),
        ("alan", "a.5", ("alan-b", "b.5")),
        ("a-long-name-of-an-interface", "a-long-name", ("b-long-name-of-an-interface", "b-long-name")),
        ("x", "fifteen-letters", ("x-b", "fifteen-le-[0-9a-f]{4}")),
        ("taken", "x0", ("taken-b-[0-9a-f]{4}", "x0-b")),
    ],
    ids=str,
)
def test_virtual_links_get_names_of_their_own_within_their_length(name: str, link: str, expected: tuple[str, str]) -> None:
    made = copy(bridge(name, linkName=link), bridge("taken-b", "routeTables/c"))
    interface = made.resources[1]
    assert re.fullmatch(f"interfaces/{expected[0]}", interface.name)
    assert re.fullmatch(expected[1], interface.spec.link_name)  # type: ignore[union-attr]


def test_copies_of_links_do_not_collide() -> None:
    made = copy(bridge("x", linkName="b0"), bridge("y", linkName="b0-a"), bridge("z", linkName="b0-b"))
    shown = [each.spec.link_name for each in made.resources[1:]]  # type: ignore[union-attr]
    assert len(set(shown)) == 3


words = st.sampled_from(["a", "b", "lan", "a-lan", "b-lan", "lan-b", "a-a", "very-long-name-a", "very-long-name-x"])
links = st.dictionaries(
    words, st.tuples(st.sampled_from(["", "x0", "y0", "a0-a", "fifteen-letters"]), st.integers(0, 2)), max_size=6
)


@given(links)
def test_copy_stands_beside_its_original_and_back_again_is_the_original(drawn: dict[str, tuple[str, int]]) -> None:
    seen: set[str] = set()
    interfaces: list[str] = []
    for name, (link, ports) in drawn.items():
        shown = (link or name)[:15]
        if shown in seen:
            continue
        seen.add(shown)
        below = [
            f"interfaces/{other}" for other in sorted(drawn)[:ports] if other != name and f"interfaces/{other}" in str(interfaces)
        ]
        interfaces.append(bridge(name, linkName=shown, bridge={"ports": below}))
    original = parsed(doc(A, description="A"), *interfaces)
    made = staging.copied(original, A, B, {})
    assert made.left_out == ()
    assert not {each.name for each in made.resources} & {each.name for each in original}
    shown_names = [each.spec.link_name for each in made.resources[1:]]  # type: ignore[union-attr]
    assert len(set(shown_names)) == len(shown_names)
    assert all(len(each) <= 15 for each in shown_names)
    everything = [*original, *made.resources]
    assert staging.copied(everything, A, B, {}).resources == made.resources
    if not any(re.search("-[0-9a-f]{4}$", each) for each in (*shown_names, *names_of(made))):
        assert staging.copied(everything, B, A, {}).resources == tuple(original)


@pytest.mark.parametrize(
    "argv", [["--as", "b"], ["--table", "a", "--table", "c", "--as", "b"], ["--table", "a", "--as", "default"]]
)
def test_one_table_is_copied_to_another_name(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert root.run(["export", *argv]) == 2
    assert "--as copies one table" in capsys.readouterr().err
