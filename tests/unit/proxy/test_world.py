"""What of the store's changes concerns the proxy, and what they add up to."""

import pytest

from crossns import names, store
from crossns.v1 import route_table_pb2, v_service_pb2
from services.proxy import model
from tests.unit.proxy import sample

KEYS = names.Keys("local", "proxy")
NSMANAGER = KEYS.of("nsmanager")


def changed(key: str, value: bytes | None) -> store.Change:
    return store.Change(key, 7, None if value is None else store.Entry(key, value, 1, 7))


def stored(message: v_service_pb2.VService) -> store.Change:
    return changed(KEYS.desired(message.name), message.SerializeToString())


def table(name: str, cookie: int, agent_restarts: int = 0) -> store.Change:
    status = route_table_pb2.RouteTableStatus(netns_cookie=cookie, agent_restarts=agent_restarts)
    return changed(NSMANAGER.status(f"routeTables/{name}"), status.SerializeToString())


def test_a_vservice_is_desired_until_its_key_is_gone() -> None:
    world = model.World(KEYS)
    assert list(world.change(stored(sample.message()))) == [model.UNIT]
    assert [each.name for each in world.desired(model.UNIT).services] == ["vServices/web"]
    assert list(world.change(changed(KEYS.desired("vServices/web"), None))) == [model.UNIT]
    assert not world.desired(model.UNIT).services


def test_a_vservice_that_is_being_deleted_is_leaving_and_not_desired() -> None:
    world = model.World(KEYS)
    world.change(stored(sample.message()))
    going = sample.message()
    going.delete_time.GetCurrentTime()
    world.change(stored(going))
    desired = world.desired(model.UNIT)
    assert (desired.services, desired.leaving) == ((), frozenset({"vServices/web"}))
    # It goes when there is nothing of it any more, so nobody need look.
    assert list(world.change(changed(KEYS.desired("vServices/web"), None))) == []
    assert world.desired(model.UNIT).leaving == frozenset()


def test_a_vservice_that_another_release_took_is_left_to_itself() -> None:
    """The others are served."""
    world = model.World(KEYS)
    world.change(stored(sample.message()))
    other = sample.message()
    other.name = "vServices/other"
    other.spec.frontends[0].address = "nowhere"
    assert list(world.change(stored(other))) == [model.UNIT]
    desired = world.desired(model.UNIT)
    assert [each.name for each in desired.services] == ["vServices/web"]
    (invalid,) = desired.invalid
    assert (invalid.name, invalid.generation, invalid.reason) == ("vServices/other", 3, "INVALID_FIELD")
    assert invalid.message.startswith("spec.frontends[0].address: 'nowhere' is not ")


@pytest.mark.parametrize("last", [sample.message(), None])
def test_a_vservice_is_valid_again_when_it_is_mended_or_gone(last: v_service_pb2.VService | None) -> None:
    world = model.World(KEYS)
    broken = sample.message()
    broken.spec.ClearField("pools")
    world.change(stored(broken))
    assert [each.name for each in world.desired(model.UNIT).invalid] == ["vServices/web"]
    world.change(stored(last) if last is not None else changed(KEYS.desired("vServices/web"), None))
    assert world.desired(model.UNIT).invalid == ()
    assert len(world.desired(model.UNIT).services) == (last is not None)


def test_a_vservice_that_became_invalid_is_not_served_as_it_was() -> None:
    world = model.World(KEYS)
    world.change(stored(sample.message()))
    broken = sample.message()
    broken.spec.ClearField("pools")
    world.change(stored(broken))
    assert world.desired(model.UNIT).services == ()


def test_members_to_check_follow_the_tables_and_the_vservices() -> None:
    world = model.World(KEYS)
    world.change(stored(sample.message()))
    assert world.targets() == frozenset()
    world.change(table("tenant-a", 21))
    assert {str(each) for each in world.targets()} == {"10.0.0.5:8080 in tenant-a"}
    world.change(table("tenant-a", 22))
    assert {each.namespace for each in world.targets()} == {"tenant-a.22"}
    world.change(changed(KEYS.desired("vServices/web"), None))
    assert world.targets() == frozenset()


def test_while_nothing_changes_the_same_is_wanted() -> None:
    """A round and its report ask for it, and compare nothing."""
    world = model.World(KEYS)
    world.change(stored(sample.message()))
    before = world.desired(model.UNIT)
    assert list(world.change(changed(NSMANAGER.desired("routeTables/dmz"), b""))) == []
    assert world.desired(model.UNIT) is before
    world.change(table("dmz", 1))
    assert world.desired(model.UNIT) is not before


def test_a_new_table_that_no_vservice_names_wakes_nobody() -> None:
    """HAProxy has nothing in it, so what it costs to look at all namespaces is saved."""
    world = model.World(KEYS)
    world.change(stored(sample.message()))
    named = {table for service in world.desired(model.UNIT).services for table in service.tables}
    assert named == {"routeTables/dmz", "routeTables/tenant-a", "routeTables/tenant-b"}
    assert list(world.change(table("other", 1))) == []
    assert [list(world.change(table(name, 2))) for name in ("dmz", "tenant-a", "tenant-b")] == [[model.UNIT]] * 3
    assert world.desired(model.UNIT).tables.keys() == {*named, "routeTables/other"}


def test_a_table_that_goes_wakes_the_proxy_whoever_names_it() -> None:
    """HAProxy may have lines there that nobody needs any more, and could not be started with them."""
    world = model.World(KEYS)
    world.change(table("other", 1))
    assert list(world.change(table("other", 2))) == [model.UNIT]
    assert list(world.change(changed(NSMANAGER.status("routeTables/other"), None))) == [model.UNIT]


def test_a_table_is_known_by_the_namespace_that_it_has_now() -> None:
    world = model.World(KEYS)
    world.change(stored(sample.message()))
    assert list(world.change(table("dmz", 4711))) == [model.UNIT]
    assert world.desired(model.UNIT).tables == {"routeTables/dmz": "dmz.4711"}
    assert list(world.change(table("dmz", 4712))) == [model.UNIT]
    assert world.desired(model.UNIT).tables == {"routeTables/dmz": "dmz.4712"}


def test_a_table_without_a_namespace_is_not_there() -> None:
    world = model.World(KEYS)
    world.change(table("dmz", 4711))
    assert list(world.change(table("dmz", 0))) == [model.UNIT]
    assert world.desired(model.UNIT).tables == {}
    world.change(table("dmz", 4711))
    assert list(world.change(changed(NSMANAGER.status("routeTables/dmz"), None))) == [model.UNIT]
    assert world.desired(model.UNIT).tables == {}


def test_what_else_a_table_says_of_itself_wakes_nobody() -> None:
    world = model.World(KEYS)
    world.change(table("dmz", 4711))
    assert list(world.change(table("dmz", 4711, agent_restarts=3))) == []


def test_what_is_not_the_proxys_business_wakes_nobody() -> None:
    world = model.World(KEYS)
    others = [
        changed(NSMANAGER.desired("routeTables/dmz"), b""),
        changed(NSMANAGER.status("vServices/web"), b""),
        changed(NSMANAGER.status("interfaces/a-lan"), b""),
        changed(KEYS.claim("vip", "routeTables/dmz/203.0.113.10/tcp"), b"[]"),
        changed(KEYS.trace("vServices/web"), b""),
        changed(names.Keys("other", "proxy").desired("vServices/web"), sample.message().SerializeToString()),
    ]
    assert [list(world.change(other)) for other in others] == [[]] * len(others)
    assert (world.desired(model.UNIT).services, world.desired(model.UNIT).tables) == ((), {})


def test_what_was_desired_before_does_not_change_behind_a_round() -> None:
    world = model.World(KEYS)
    world.change(table("dmz", 4711))
    before = world.desired(model.UNIT)
    world.change(table("dmz", 4712))
    assert before.tables == {"routeTables/dmz": "dmz.4711"}
