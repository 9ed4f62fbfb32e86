"""Update masks (AIP-134): what one names is as the request has it afterwards, unset where it is unset there."""

import pytest
from google.protobuf import field_mask_pb2

from crossns import resource
from crossns.v1 import route_table_pb2


def changed(*paths: str, **spec: object) -> route_table_pb2.RouteTable:
    current = route_table_pb2.RouteTable(name="routeTables/a", labels={"env": "lab"})
    current.spec.description, current.spec.protected = "kept", True
    current.spec.arp.ignore, current.spec.arp.announce = route_table_pb2.ARP_IGNORE_ALWAYS, route_table_pb2.ARP_ANNOUNCE_BEST
    wanted = route_table_pb2.RouteTable(name="routeTables/a")
    if spec:
        wanted.spec.CopyFrom(route_table_pb2.RouteTableSpec(**spec))  # type: ignore[arg-type]
    result = resource.masked(current, wanted, field_mask_pb2.FieldMask(paths=paths))
    assert isinstance(result, route_table_pb2.RouteTable)
    return result


@pytest.mark.parametrize("spec", [{}, {"display_name": "not named"}], ids=["no spec", "another field"])
def test_field_that_is_named_and_unset_is_taken_back(spec: dict[str, object]) -> None:
    found = changed("spec.protected", "spec.arp.ignore", **spec)
    assert (found.spec.protected, found.spec.arp.ignore) == (False, 0)
    assert (found.spec.description, found.spec.display_name) == ("kept", "")
    assert found.spec.arp.announce == route_table_pb2.ARP_ANNOUNCE_BEST
    assert found.labels == {"env": "lab"}


def test_labels_and_messages_that_are_named_are_replaced() -> None:
    assert changed("labels").labels == {}
    assert not changed("spec.arp").spec.HasField("arp")
    assert changed("spec").spec == route_table_pb2.RouteTableSpec()


def test_without_a_mask_what_is_set_is_taken() -> None:
    found = changed(display_name="new")
    assert (found.spec.display_name, found.spec.protected) == ("new", True)
    assert found.labels == {"env": "lab"}
