"""How vServices stand in each table, and what its agent must be told so that it knows."""

from google.protobuf.message import Message

from crossns import names, standing, store
from crossns.v1 import status_pb2, v_service_pb2
from services.nsmanager import model, plan
from services.nsmanager.plan import At

KEYS = names.Keys("local", "nsmanager")
PROXY = KEYS.of("proxy")
WEB = "vServices/web"


def changed(key: str, message: Message | None) -> store.Change:
    entry = store.Entry(key, message.SerializeToString(), 1, 2) if message is not None else None
    return store.Change(key, 2, entry)


def web(*members: str) -> v_service_pb2.VService:
    """A frontend in `dmz`, members in the tables that are named."""
    spec = v_service_pb2.VServiceSpec(
        frontends=[v_service_pb2.Frontend(name="fe", route_table="routeTables/dmz", address="203.0.113.10", port=80)],
        pools=[
            v_service_pb2.Pool(
                name="main",
                members=[
                    v_service_pb2.Member(name=f"m-{table}", route_table=f"routeTables/{table}", address="10.0.0.5", port=8080)
                    for table in members
                ],
            )
        ],
    )
    return v_service_pb2.VService(name=WEB, spec=spec)


def status(**members: str) -> v_service_pb2.VServiceStatus:
    """As the vService's owner says it: `READY` or why a member is not."""
    return v_service_pb2.VServiceStatus(
        frontends=[v_service_pb2.PartStatus(name="fe", state=status_pb2.STATE_READY, reason="OK")],
        members=[
            v_service_pb2.PartStatus(
                name=f"main/m-{table}",
                state=status_pb2.STATE_READY if reason == "OK" else status_pb2.STATE_ERROR,
                reason=reason,
            )
            for table, reason in members.items()
        ],
    )


def shown(world: model.Standings, table: str) -> dict[str, str]:
    return {part: f"{each.state} {each.reason}" for (_, part), each in world.desired(f"routeTables/{table}").standings.items()}


def test_each_table_has_what_is_in_it_and_nothing_else() -> None:
    world = model.Standings(KEYS)
    assert set(world.change(changed(PROXY.desired(WEB), web("a", "b")))) == {f"routeTables/{each}" for each in ("dmz", "a", "b")}
    assert [shown(world, table) for table in ("dmz", "a", "b", "c")] == [
        {"fe": "PENDING "},
        {"main/m-a": "PENDING "},
        {"main/m-b": "PENDING "},
        {},
    ]
    world.change(changed(PROXY.status(WEB), status(a="OK", b="OK")))
    # Only where something stands otherwise is anybody told.
    assert set(world.change(changed(PROXY.status(WEB), status(a="OK", b="MEMBER_DOWN")))) == {"routeTables/b"}
    assert [shown(world, table) for table in ("dmz", "a", "b")] == [
        {"fe": "READY OK"},
        {"main/m-a": "READY OK"},
        {"main/m-b": "ERROR MEMBER_DOWN"},
    ]
    assert set(world.change(changed(PROXY.desired(WEB), web("a")))) == {"routeTables/b"}
    assert set(world.change(changed(PROXY.desired(WEB), None))) == {"routeTables/dmz", "routeTables/a"}
    assert list(world.units()) == []


def test_what_is_said_by_others_or_of_others_is_passed_over() -> None:
    world = model.Standings(KEYS)
    world.change(changed(PROXY.desired(WEB), web("a")))
    for key in (KEYS.status(WEB), PROXY.claim("vip", WEB), PROXY.status("routeTables/a"), "/crossns/other/proxy/status/" + WEB):
        assert set(world.change(changed(key, status(a="MEMBER_DOWN")))) == set()


def test_agent_is_told_the_difference_and_nothing_where_there_is_none() -> None:
    one, two, three = (
        standing.Standing(vservice=WEB, part=part, address="10.0.0.5", port=80, state="READY") for part in ("fe", "too", "new")
    )
    desired = model.TableStandings("a", {each.key: each for each in (one, three)})
    held = {each.key: each for each in (one, two)}
    (told,) = plan.standings(desired, held)
    wanted = standing.PutStandings(table="a", standings=(three,), gone=(two.key,))
    assert told == At("routeTables/a", "a", wanted)
    assert plan.standings(desired, {each.key: each for each in (one, three)}) == ()
    assert plan.standings(desired, None) == ()
