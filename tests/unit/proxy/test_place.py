"""Where HAProxy has the parts of a vService: made once, and anew when a table's namespace is another one."""

from services.proxy.plan import place
from tests.unit.proxy import sample


def test_parts_are_where_their_tables_namespaces_are() -> None:
    made = place.places(sample.vservice(), sample.TABLES)
    assert made.frontends == {"fe": sample.listener()}
    assert made.listeners == {"fe": (sample.listener(),)}
    assert made.members == {("main", "a1"): sample.server()}
    assert made.sections == ("vs.web.po.main",)


def test_a_table_without_a_namespace_has_no_parts() -> None:
    made = place.places(sample.vservice(), {})
    assert (made.frontends, made.listeners, made.members) == ({"fe": None}, {"fe": ()}, {("main", "a1"): None})


def test_parts_are_made_once_for_the_same_namespaces_and_anew_for_others() -> None:
    vservice = sample.vservice()
    made = place.places(vservice, sample.TABLES)
    assert place.places(vservice, {**sample.TABLES, "routeTables/other": "other.1"}) is made
    moved = place.places(vservice, {**sample.TABLES, "routeTables/dmz": "dmz.12"})
    assert moved.frontends == {"fe": sample.listener(namespace="dmz.12")}
    assert place.places(vservice, sample.TABLES).frontends == {"fe": sample.listener()}


def test_another_vservice_of_the_same_name_has_parts_of_its_own() -> None:
    assert place.places(sample.vservice(port=80), sample.TABLES).frontends == {"fe": sample.listener(port=80)}
    assert place.places(sample.vservice(port=81), sample.TABLES).frontends == {"fe": sample.listener(port=81)}
