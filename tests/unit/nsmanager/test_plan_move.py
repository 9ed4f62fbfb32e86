"""The plan room: links that change table or name, and what named them."""

import pytest

from tests.unit.nsmanager.test_plan import LAN, Bench, Spec, bench

__all__ = ["bench"]


def test_bridge_that_moves_is_made_when_it_has_gone_from_where_it_was(bench: Bench) -> None:
    spec: Spec = {"routeTable": "routeTables/a", "bridge": {}, "addresses": ["10.0.0.1/24"]}
    bench.put("interfaces/br", spec)
    bench.settle("a")
    bench.put("routeTables/b", {})
    bench.settle("b")
    bench.put("interfaces/br", {**spec, "routeTable": "routeTables/b"}, generation=2)
    assert bench.round("b") == 0
    assert bench.state("interfaces/br") == ("STATE_PENDING", "IN_PROGRESS")
    assert "routeTables/a" in bench.parts["interfaces/br"].conditions[0].message
    bench.settle("a", "b")
    assert bench.state("interfaces/br") == ("STATE_READY", "OK")


@pytest.mark.parametrize("table", ["a", "b"], ids=["in one table", "across tables"])
def test_cards_exchange_their_names(bench: Bench, table: str) -> None:
    bench.device.card("eth2", "02:00:00:00:00:02")
    name = "lan" if table == "b" else "wan"
    other: Spec = {"routeTable": f"routeTables/{table}", "linkName": name, "physical": {"linkName": "eth2"}}
    bench.put("routeTables/b", {})
    bench.put("interfaces/one", LAN)
    bench.put("interfaces/two", other)
    bench.settle("a", "b", "default")
    bench.put("interfaces/one", {**LAN, "routeTable": other["routeTable"], "linkName": name}, generation=2)
    bench.put("interfaces/two", {**other, "routeTable": LAN["routeTable"], "linkName": LAN["linkName"]}, generation=2)
    bench.round("a")
    if table == "a":
        # Nothing was refused on the way.
        assert {bench.state("interfaces/one"), bench.state("interfaces/two")} == {("STATE_READY", "OK")}
    bench.settle("a", "b", "default")
    assert bench.device.spaces["a"].links["lan"].was == "eth2"
    assert bench.device.spaces[table].links[name].was == "eth1"


def test_route_over_an_interface_that_moved_away_is_gone_and_says_where_that_is(bench: Bench) -> None:
    bench.put("interfaces/lan", LAN)
    bench.put("routeTables/b", {})
    bench.put("routeTables/a/routes/r", {"destination": "0.0.0.0/0", "gateways": [{"interface": "interfaces/lan"}]})
    bench.settle("a", "b", "default")
    assert len(bench.device.spaces["a"].routes) == 1
    bench.put("interfaces/lan", {**LAN, "routeTable": "routeTables/b"}, generation=2)
    bench.put("interfaces/other", {"routeTable": "routeTables/a", "linkName": "lan", "bridge": {}})
    bench.settle("a", "b", "default")
    assert bench.device.spaces["a"].routes == []
    assert bench.state("routeTables/a/routes/r") == ("STATE_ERROR", "LINK_MISSING")
    assert "is in routeTables/b" in bench.parts["routeTables/a/routes/r"].conditions[0].message
