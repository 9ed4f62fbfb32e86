"""Isolation judged by evidence: what joins tables below IP, whose marks were seen where, what could not be tried."""

import errno
from dataclasses import replace
from types import MappingProxyType

import msgspec
import pytest

from crossns import examination, proof
from crossns.v1 import isolation_pb2
from services.nsmanager.model import Link
from services.nsmanager.plan import isolation
from services.nsmanager.plan.isolation import Evidence, Played

GROUND = proof.Ground(network="169.254.96.0/30", port=29200)
A, B, X = 1, 2, 9


def end(namespace: int, index: int) -> proof.End:
    return proof.End(namespace, index)


def link(index: int, kind: str, lower: proof.End | None = None, **more: object) -> proof.Link:
    return proof.Link(index=index, name=f"{kind}{index}", kind=kind, lower=lower, **more)  # type: ignore[arg-type]


def surveyed(a: list[proof.Link], b: list[proof.Link], x: list[proof.Link] | None = None) -> proof.Surveyed:
    """Links of the tables `a` and `b`, and of a namespace that is none."""
    places = ((A, ("a",), "a"), (B, ("b",), "b"), (X, (), "/run/x"))
    namespaces = (
        proof.Namespace(inode=inode, tables=tables, place=place, links=tuple(links))
        for (inode, tables, place), links in zip(places, (a, b, x or []), strict=True)
    )
    return proof.Surveyed(namespaces=tuple(namespaces), holders=(), processes=5, own=3)


def played(table: str, number: int, **traces: object) -> Played:
    clean = proof.Traces(
        cookie=number,
        links=("~trial-a", "~trial-b"),
        routes=(number,),
        rules=(number,),
        neighbors=(number,),
        arp_answers=(number,),
        datagrams=(number,),
        counted=(1, 1),
        sent=1,
    )
    steps = [
        proof.Step("interface", "link pair"),
        proof.Step("routing", "route x"),
        proof.Step("routing", "rule y"),
    ]
    held = proof.Held(steps=(*steps, proof.Step("neighbor", "neighbour z")))
    return Played(table, number, held, msgspec.structs.replace(clean, **traces))


CLEAN = Evidence(("a", "b"), surveyed([], []), {}, GROUND, (played("a", 1), played("b", 2)))


def not_isolated(evidence: Evidence) -> list[tuple[str, str, str, list[str]]]:
    """Verdict, layer, evidence and tables of each finding that is not ISOLATED."""
    return [
        (
            isolation_pb2.IsolationVerdict.Name(each.verdict).rpartition("_")[2],
            isolation_pb2.IsolationLayer.Name(each.layer).rpartition("_")[2],
            each.evidence,
            [name.partition("/")[2] for name in each.route_tables],
        )
        for each in isolation.report(evidence).findings
        if each.verdict != isolation_pb2.ISOLATION_VERDICT_ISOLATED
    ]


def overall(evidence: Evidence) -> str:
    return isolation_pb2.IsolationVerdict.Name(isolation.report(evidence).verdict).rpartition("_")[2]


def joined(
    a: list[proof.Link],
    b: list[proof.Link],
    x: list[proof.Link] | None = None,
    declared: isolation.Declared = MappingProxyType({}),
) -> list[str]:
    return [path.words for path in isolation.joins(surveyed(a, b, x), ("a", "b"), declared).leaks]


def test_clean_evidence_is_isolated_in_every_layer() -> None:
    assert overall(CLEAN) == "ISOLATED"
    assert not_isolated(CLEAN) == []
    assert {each.layer for each in isolation.report(CLEAN).findings} == {1, 2, 3, 4, 5}


@pytest.mark.parametrize(
    ("traces", "layer", "words"),
    [
        ({"routes": (1, 2)}, "ROUTING", "routeTables/a shows the route of routeTables/b"),
        ({"rules": (1, 2)}, "ROUTING", "routeTables/a shows the rule of routeTables/b"),
        ({"neighbors": (1, 2)}, "NEIGHBOR", "routeTables/a shows the neighbour of routeTables/b"),
        ({"arp_answers": (1, 2)}, "NEIGHBOR", "routeTables/a shows the answer to an ARP request of routeTables/b"),
        ({"datagrams": (1, 2)}, "SOCKET", "routeTables/a shows the datagram of routeTables/b"),
        ({"datagrams": (1, 7)}, "SOCKET", "routeTables/a shows the datagram of nobody (number 7)"),
        ({"routes": ()}, "ROUTING", "routeTables/a holds 0 of its 1 routes: somebody took it"),
        ({"rules": ()}, "ROUTING", "routeTables/a holds 0 of its 1 rules: somebody took it"),
        ({"neighbors": ()}, "NEIGHBOR", "routeTables/a holds 0 of its 1 neighbours: somebody took it"),
        (
            {"links": ("~trial-a", "~trial-b", "other")},
            "INTERFACE",
            "routeTables/a shows the throwaway links ~trial-a, ~trial-b, other",
        ),
        ({"cookie": 2}, "INTERFACE", "the agents of routeTables/a, routeTables/b are in the same namespace (cookie 2)"),
        (
            {"counted": (1, 2)},
            "FIREWALL",
            "the rules of routeTables/a let 1 pass and dropped 2, where it sent 1 to pass and 1 to be dropped",
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_mark_of_another_table_or_a_lost_one_is_a_leak(traces: dict[str, object], layer: str, words: str) -> None:
    evidence = replace(CLEAN, played=(played("a", 1, **traces), played("b", 2)))
    assert [each[:3] for each in not_isolated(evidence)] == [("LEAK", layer, words)]
    assert overall(evidence) == "LEAK"


@pytest.mark.parametrize(
    ("code", "verdict"), [(errno.EEXIST, "LEAK"), (errno.EADDRINUSE, "LEAK"), (errno.EOPNOTSUPP, "UNPROVEN")]
)
def test_what_a_table_did_not_take_is_there_already_or_unproven(code: int, verdict: str) -> None:
    step = proof.Step("socket", "TCP port 29200", code, "No")
    a = CLEAN.played[0]
    held = proof.Held(steps=(*a.held.steps, step))
    evidence = replace(CLEAN, played=(replace(a, held=held), CLEAN.played[1]))
    assert not_isolated(evidence) == [(verdict, "SOCKET", "routeTables/a did not take TCP port 29200: No", ["a"])]
    assert overall(evidence) == verdict


def test_firewall_that_saw_nothing_at_all_proves_nothing() -> None:
    evidence = replace(CLEAN, played=(played("a", 1, counted=(0, 0)), played("b", 2)))
    assert [each[:2] for each in not_isolated(evidence)] == [("UNPROVEN", "FIREWALL")]


def test_datagram_that_did_not_arrive_proves_nothing_of_sockets() -> None:
    evidence = replace(CLEAN, played=(played("a", 1, datagrams=(), counted=None), played("b", 2)))
    words = "0 of the 1 datagrams that routeTables/a sent itself arrived"
    assert not_isolated(evidence) == [("UNPROVEN", "SOCKET", words, ["a"])]


def test_table_that_answers_nothing_proves_nothing_of_neighbours() -> None:
    silent = played("a", 1, sent=2, counted=(2, 2), datagrams=(1, 1), arp_answers=())
    words = "routeTables/a answered none of the 2 requests on its own link"
    assert not_isolated(replace(CLEAN, played=(silent, played("b", 2)))) == [("UNPROVEN", "NEIGHBOR", words, ["a"])]


def test_processes_that_cannot_be_looked_into_leave_the_sockets_unproven() -> None:
    unseen = tuple(proof.Unseen(pid=pid, name="p", why="descriptor 3: No") for pid in (5, 6))
    words = "what could not be seen: process 5 (p): descriptor 3: No; process 6 (p): descriptor 3: No"
    hidden = msgspec.structs.replace(CLEAN.surveyed, unseen=unseen)
    assert not_isolated(replace(CLEAN, surveyed=hidden)) == [("UNPROVEN", "SOCKET", words, [])]


@pytest.mark.parametrize(
    ("namespace", "sockets", "tables"),
    [(A, (B,), ["a", "b"]), (X, (A, B), ["a", "b"]), (X, (A,), []), (A, (X,), [])],
    ids=["a table's, in another", "no table's, in two", "no table's, in one", "a table's, in no table"],
)
def test_holder_leaks_where_it_touches_two_tables(namespace: int, sockets: tuple[int, ...], tables: list[str]) -> None:
    holder = proof.Holder(pid=5, name="p", namespace=namespace, things=dict.fromkeys(sockets, ("TCP 0.0.0.0:80",)))
    held = msgspec.structs.replace(CLEAN.surveyed, holders=(holder,))
    assert [each[3] for each in not_isolated(replace(CLEAN, surveyed=held))] == ([tables] if tables else [])


def test_veth_whose_other_end_is_nowhere_is_unproven() -> None:
    evidence = replace(CLEAN, surveyed=surveyed([link(2, "veth", end(0, 7))], []))
    words = "in no namespace that is found is the other end of veth veth2 in routeTables/a"
    assert not_isolated(evidence) == [("UNPROVEN", "INTERFACE", words, ["a"])]


def test_ends_of_others_that_are_nowhere_concern_nobody() -> None:
    assert not_isolated(replace(CLEAN, surveyed=surveyed([], [], [link(2, "veth", end(0, 7))]))) == []


def test_namespace_whose_links_are_not_known_leaves_them_unproven() -> None:
    dark = proof.Namespace(inode=X, tables=(), place="/run/x", links=(), dark="No")
    seen = msgspec.structs.replace(CLEAN.surveyed, namespaces=(*CLEAN.surveyed.namespaces[:2], dark))
    words = "the links of the namespace /run/x could not be looked at: No"
    assert not_isolated(replace(CLEAN, surveyed=seen)) == [("UNPROVEN", "INTERFACE", words, [])]


def test_vlans_of_one_card_are_apart_unless_they_are_the_same() -> None:
    card = link(5, "")
    assert joined([link(2, "vlan", end(X, 5), vlan_id=10)], [link(2, "vlan", end(X, 5), vlan_id=20)], [card]) == []
    same = joined([link(2, "vlan", end(X, 5), vlan_id=10)], [link(2, "vlan", end(X, 5), vlan_id=10)], [card])
    assert same == ["vlan vlan2 in routeTables/a - 5 (VLAN 10) in the namespace /run/x - vlan vlan2 in routeTables/b"]


def test_ports_of_a_vrf_share_no_network() -> None:
    hop = [link(5, "vrf"), link(6, "veth", end(A, 2), master=5), link(7, "veth", end(B, 2), master=5)]
    assert joined([link(2, "veth", end(X, 6))], [link(2, "veth", end(X, 7))], hop) == []
    hop[0] = link(5, "bridge")
    assert len(joined([link(2, "veth", end(X, 6))], [link(2, "veth", end(X, 7))], hop)) == 1


PAIR = {frozenset((("a", "peerLinks.ab"), ("b", "peerLinks.ab"))): "peerLinks/ab"}
MARK = ("peerLinks.ab",)


def test_link_is_declared_by_a_resource_whose_mark_both_ends_carry() -> None:
    one, other = link(2, "veth", end(B, 2), marks=MARK), link(2, "veth", end(A, 2), marks=MARK)
    assert joined([one], [other], declared=PAIR) == []
    evidence = replace(CLEAN, surveyed=surveyed([one], [other]), declared=PAIR)
    words = "declared by peerLinks/ab: veth veth2 in routeTables/a - veth veth2 in routeTables/b"
    assert (overall(evidence), not_isolated(evidence)) == ("ISOLATED", [("ALLOWED", "INTERFACE", words, ["a", "b"])])
    # One end only; marks that no resource stands for; the same mark in other tables.
    assert len(joined([one], [link(2, "veth", end(A, 2))], declared=PAIR)) == 1
    assert len(joined([link(2, "veth", end(B, 2))], [other], declared=PAIR)) == 1
    assert len(joined([one], [other])) == 1
    assert len(joined([one], [other], declared={frozenset((("a", *MARK), ("c", *MARK))): "peerLinks/ab"})) == 1


def test_foreign_link_beside_a_declared_one_is_a_leak() -> None:
    a = [link(2, "veth", end(B, 2), marks=MARK), link(3, "veth", end(B, 3))]
    b = [link(2, "veth", end(A, 2), marks=MARK), link(3, "veth", end(A, 3))]
    found = isolation.joins(surveyed(a, b), ("a", "b"), PAIR)
    assert [each.words for each in found.leaks] == ["veth veth3 in routeTables/a - veth veth3 in routeTables/b"]
    assert found.allowed == ()


def test_declared_link_that_leads_on_over_a_foreign_one_is_a_leak() -> None:
    """`a` - `c`, which routes and is not asked about, is foreign; `c` - `b` is declared."""
    c = proof.Namespace(
        inode=X,
        tables=("c",),
        place="c",
        links=(link(5, "veth", end(A, 2)), link(6, "veth", end(B, 2), marks=MARK)),
        forwards=True,
    )
    seen = surveyed([link(2, "veth", end(X, 5))], [link(2, "veth", end(X, 6), marks=MARK)])
    seen = msgspec.structs.replace(seen, namespaces=(*seen.namespaces[:2], c))
    declared = {frozenset((("b", *MARK), ("c", *MARK))): "peerLinks/bc"}
    path = (
        "veth veth2 in routeTables/a - veth veth5 in routeTables/c - routing in routeTables/c - "
        "veth veth6 in routeTables/c - veth veth2 in routeTables/b"
    )
    found = isolation.joins(seen, ("a", "b"), declared)
    assert ([each.words for each in found.leaks], found.allowed) == ([path], ())


def test_interface_on_one_of_another_table_is_declared() -> None:
    def interface(name: str, table: str, parent: str = "") -> Link:
        return Link(
            resource=name, table=table, name="lan", kind="macvlan", addresses=(), mtu=0, up=True, generation=1, parent=parent
        )

    below = interface("interfaces/a-lan", "a")
    links = [below, interface("interfaces/b-lan", "b", below.resource), interface("interfaces/same", "a", below.resource)]
    found = isolation.declared({each.resource: each for each in links})
    assert found == {frozenset((("a", "interfaces.a-lan"), ("b", "interfaces.b-lan"))): "interfaces/b-lan"}


def between(**more: bool) -> proof.Surveyed:
    """`a` and `b` lead into a namespace that is no table."""
    hop = [link(6, "veth", end(A, 2)), link(7, "veth", end(B, 2))]
    seen = surveyed([link(2, "veth", end(X, 6))], [link(2, "veth", end(X, 7))], hop)
    x = msgspec.structs.replace(seen.namespaces[2], **more)
    return msgspec.structs.replace(seen, namespaces=(*seen.namespaces[:2], x))


def test_namespace_that_routes_joins_those_that_lead_into_it() -> None:
    (path,) = isolation.joins(between(forwards=True), ("a", "b"), {}).leaks
    assert path.words == (
        "veth veth2 in routeTables/a - veth veth6 in the namespace /run/x - routing in the namespace /run/x - "
        "veth veth7 in the namespace /run/x - veth veth2 in routeTables/b"
    )
    assert path.tables == ("a", "b")


def test_namespace_that_does_not_route_is_told_with_those_that_lead_into_it() -> None:
    evidence = replace(CLEAN, surveyed=between())
    assert (overall(evidence), not_isolated(evidence)) == ("ISOLATED", [])
    told = "routeTables/a; routeTables/b lead into the namespace /run/x, which neither routes nor bridges between them"
    assert told in [each.evidence for each in isolation.report(evidence).findings]


def test_table_that_is_asked_about_is_no_way_between_others() -> None:
    seen = between(forwards=True)
    c = msgspec.structs.replace(seen.namespaces[2], tables=("c",))
    seen = msgspec.structs.replace(seen, namespaces=(*seen.namespaces[:2], c))
    assert [each.tables for each in isolation.joins(seen, ("a", "b", "c"), {}).leaks] == [("a", "c"), ("b", "c")]
    assert [each.tables for each in isolation.joins(seen, ("a", "b"), {}).leaks] == [("a", "b")]


def test_tunnel_leads_into_the_namespace_in_which_its_packets_leave() -> None:
    assert joined([], [link(2, "vxlan", end(A, 0))]) == ["routing in routeTables/a - vxlan vxlan2 in routeTables/b"]
    two = joined([link(2, "vxlan", end(X, 0))], [link(2, "sit", end(X, 0))])
    assert two == ["vxlan vxlan2 in routeTables/a - routing in the namespace /run/x - sit sit2 in routeTables/b"]
    wire = joined([link(2, "veth", end(X, 6))], [link(2, "vxlan", end(X, 0))], [link(6, "veth", end(A, 2))])
    assert [each.count(" - ") for each in wire] == [3]


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (link(2, "vxlan", end(0, 0)), "in no namespace that is found is the other end of vxlan vxlan2 in routeTables/a"),
        (
            link(2, "wireguard"),
            "the kernel does not tell in which namespace the packets leave of wireguard wireguard2 in routeTables/a",
        ),
    ],
    ids=["lost", "wireguard"],
)
def test_tunnel_whose_packets_leave_nobody_knows_where_is_unproven(made: proof.Link, words: str) -> None:
    evidence = replace(CLEAN, surveyed=surveyed([made], []))
    assert not_isolated(evidence) == [("UNPROVEN", "INTERFACE", words, ["a"])]


def test_what_leaves_over_a_link_into_another_table_is_told_shortly() -> None:
    hops = (examination.Hop(gateway="10.0.0.2", link="veth2"),)
    shown = [(f"10.0.{number}.0/24", "unicast") for number in range(5)]
    routes = [
        examination.Route(destination=destination, kernel_table=254, metric=0, kind=kind, protocol=3, hops=hops)
        for destination, kind in (("fe80::/64", "unicast"), ("ff00::/8", "multicast"), ("10.0.0.1/32", "local"), *shown)
    ]
    ways = {"a": examination.Examination(routes=tuple(routes))}
    evidence = replace(CLEAN, surveyed=surveyed([link(2, "veth", end(B, 2))], [link(2, "veth", end(A, 2))]), ways=ways)
    told = not_isolated(evidence)
    assert [each[:2] for each in told] == [("LEAK", "INTERFACE"), ("LEAK", "ROUTING")]
    assert (
        told[1][2]
        == "routeTables/a: " + "; ".join(f"10.0.{number}.0/24 via 10.0.0.2 dev veth2" for number in range(3)) + " and 2 more"
    )


def test_tables_that_are_one_namespace_leak_in_every_layer() -> None:
    one = proof.Namespace(inode=A, tables=("a", "b", "c"), place="a", links=())
    evidence = replace(CLEAN, surveyed=msgspec.structs.replace(CLEAN.surveyed, namespaces=(one,)))
    assert [each[:2] for each in not_isolated(evidence)] == [
        ("LEAK", layer) for layer in ("INTERFACE", "ROUTING", "NEIGHBOR", "FIREWALL", "SOCKET")
    ]
