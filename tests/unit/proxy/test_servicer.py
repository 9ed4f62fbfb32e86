"""What a vService claims and refers to."""

import pytest

from crossns import errors, resource
from services.proxy import servicer
from tests.unit.proxy import sample


def test_every_frontend_claims_its_port_of_the_vip_in_its_table() -> None:
    message = sample.message()
    message.spec.frontends.add(name="tls", route_table="routeTables/dmz", address="203.0.113.10", port=443)
    message.spec.frontends.add(name="six", route_table="routeTables/tenant-a", address="FD00::0:1", port=80)
    assert [(each.kind, each.key, each.first, each.last) for each in servicer.draft(message).claims] == [
        ("vip", "routeTables/dmz/203.0.113.10/tcp", 80, 80),
        ("vip", "routeTables/dmz/203.0.113.10/tcp", 443, 443),
        ("vip", "routeTables/tenant-a/fd00::1/tcp", 80, 80),
    ]


def test_a_taken_port_is_refused_with_its_owner_and_what_to_do() -> None:
    claims = servicer.draft(sample.message()).claims
    held = [resource.Holding("vServices/other", 80, 80)]
    with pytest.raises(errors.AlreadyExists) as caught:
        resource.claimed(held, claims, "vServices/web")
    assert caught.value.reason == "VIP_TAKEN"
    assert caught.value.message == (
        "spec.frontends[0]: vServices/other listens on 203.0.113.10:80 in routeTables/dmz already: give another address or port"
    )


def test_a_frontend_claims_all_ports_of_its_range() -> None:
    message = sample.message()
    message.spec.frontends[0].end_port = 90
    (claim,) = servicer.draft(message).claims
    assert (claim.first, claim.last) == (80, 90)
    for port in (80, 90):
        with pytest.raises(errors.AlreadyExists):
            resource.claimed([resource.Holding("vServices/other", port, port)], [claim], "vServices/web")
    assert resource.claimed([resource.Holding("vServices/other", 91, 99)], [claim], "vServices/web")


def test_another_port_of_a_vip_is_free() -> None:
    claims = servicer.draft(sample.message()).claims
    held = resource.claimed([resource.Holding("vServices/other", 81, 81)], claims, "vServices/web")
    assert {each.owner for each in held} == {"vServices/other", "vServices/web"}


def test_every_route_table_is_referred_to_once_by_the_first_field_that_names_it() -> None:
    message = sample.message()
    message.spec.frontends.add(name="other", route_table="routeTables/tenant-b", address="203.0.113.10", port=80)
    assert {each.target: each.field for each in servicer.draft(message).references} == {
        "routeTables/dmz": "spec.frontends[0].route_table",
        "routeTables/tenant-b": "spec.frontends[1].route_table",
        "routeTables/tenant-a": "spec.pools[0].members[0].route_table",
    }


def test_what_is_not_valid_has_no_draft() -> None:
    message = sample.message()
    message.spec.frontends[0].address = "nowhere"
    with pytest.raises(errors.InvalidSpec):
        servicer.draft(message)
