"""What a change of the store concerns."""

from google.protobuf import timestamp_pb2

from crossns import names, store
from crossns.v1 import route_table_pb2
from services.nsmanager import model

KEYS = names.Keys("local", "nsmanager")
TABLE = "routeTables/a"


def changed(message: route_table_pb2.RouteTable | None) -> store.Change:
    key = KEYS.desired(TABLE)
    entry = store.Entry(key, message.SerializeToString(), 1, 2) if message is not None else None
    return store.Change(key, 2, entry)


def table(*, leaving: bool = False) -> route_table_pb2.RouteTable:
    deleted = timestamp_pb2.Timestamp(seconds=1) if leaving else None
    return route_table_pb2.RouteTable(name=TABLE, generation=1, delete_time=deleted)


def test_what_is_gone_concerns_its_table_unless_it_was_leaving() -> None:
    """What was leaving goes only when nothing of it is there any more."""
    world = model.World(KEYS)
    assert set(world.change(changed(table()))) == {TABLE}
    assert set(world.change(changed(None))) == {TABLE}
    world.change(changed(table()))
    assert set(world.change(changed(table(leaving=True)))) == {TABLE}
    assert world.desired(TABLE).leaving == {TABLE}
    assert set(world.change(changed(None))) == set()
    assert (world.desired(TABLE).leaving, list(world.units())) == (frozenset(), [])


def test_what_lives_is_named_and_what_leaves_is_not() -> None:
    world = model.World(KEYS)
    world.change(changed(table()))
    assert list(world.resources(TABLE)) == [TABLE]
    world.change(changed(table(leaving=True)))
    assert list(world.resources(TABLE)) == []
