"""Moves of interfaces between route tables: what they would touch, what they touch, and that a failed one leaves no trace."""

import asyncio
import functools
import json
import os
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from crossns import errors, proc
from crossns.testing.device import Device, doc, wait_until
from crossns.testing.lab import Cable, Lab
from crossns.v1 import impact_pb2, route_table_pb2, route_table_pb2_grpc
from tests.e2e.terminal import ENVIRON, crossns
from tests.kernel.client import Dial, backend, dial
from tests.kernel.test_proxy import frontend
from tests.kernel.things import TABLES, becomes, foretold, impact, move, resources, settled, things, without_dad, without_ipv6
from tests.kernel.view import TRAFFIC, addresses, bridge, do, ip, link, reaches, table_with_card

__all__ = ["dial"]
pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]
MEMBER = {"name": "m", "routeTable": "routeTables/a", "address": "10.0.0.6", "port": 80}
SSH = {**ENVIRON, "SSH_CONNECTION": "10.0.0.6 50000 10.0.0.1 22"}


@pytest_asyncio.fixture(loop_scope="module", name="lan")
async def card_with_everything(device: Device, lab: Lab) -> AsyncIterator[str]:
    """A card in `a` with all that can go through it, and a bridge beside it."""
    await lab.host("h", Cable("card-a"), ["10.0.0.6/24"])
    await device.apply(doc("routeTables/a", forwarding=True), doc("routeTables/b"))
    await without_dad("a", "b")
    via = [{"address": "10.0.0.254"}]
    await device.apply(
        table_with_card("a", "card-a", "10.0.0.1/24", "2001:db8::1/64")[1],
        bridge("br", linkName="br0", addresses=["10.8.0.1/24"]),
        doc("routeTables/a/routes/r", destination="0.0.0.0/0", gateways=via),
        doc("routeTables/a/routes/six", destination="2001:db8:7::/64", gateways=[{"interface": "interfaces/a-lan"}], metric=5),
        doc("routeTables/a/routes/two", destination="10.77.0.0/16", gateways=[*via, {"address": "10.8.0.7"}]),
        doc("routeTables/a/rules/u", interface="interfaces/a-lan", priority=77, family="IPV4", kernelTable=100),
        doc("routeTables/a/neighbors/n", interface="interfaces/a-lan", address="10.0.0.9", macAddress="02:00:00:00:00:09"),
        doc("routeTables/a/neighbors/p", interface="interfaces/a-lan", address="10.0.0.19", proxy=True),
    )
    await do("ip", "-n", "a", "address", "add", "10.44.0.1/24", "dev", "lan")
    await do("ip", "-n", "a", "route", "add", "10.45.0.0/24", "dev", "lan")
    await do("ip", "-n", "a", "route", "add", "10.46.0.0/24", "via", "10.8.0.7", "src", "10.44.0.1")
    both = ["nexthop", "via", "2001:db8::9", "dev", "lan", "nexthop", "via", "fe80::7", "dev", "br0"]
    await do("ip", "-n", "a", "route", "add", "2001:db8:46::/64", *both)
    await do("ip", "-n", "a", "rule", "add", "priority", "66", "iif", "lan", "lookup", "66")
    await wait_until(_has_link_local)
    yield "a-lan"
    for table in ("a", "b"):
        await proc.run(["ip", "-n", table, "rule", "delete", "priority", "66"])


async def _has_link_local() -> bool:
    """Seen by the route that comes with it, which is the last thing that comes with the link."""
    return bool(await ip("-6", "route", "show", "fe80::/64", table="a"))


async def test_move_touches_what_was_said_and_nothing_else(device: Device, lan: str, lab: Lab) -> None:
    before, stored = await things(*TABLES), await resources(device)
    said = await impact(device, lan, "b")
    assert await things(*TABLES) == before
    await move(device, lan, "b")
    await becomes(foretold(said, before, "b"))
    now = await resources(device)
    changed = {name for name in stored.keys() | now.keys() if stored.get(name) != now.get(name)}
    assert changed == {each.name for each in said.resources}
    await wait_until(lambda: reaches(lab.hosts["h"], "10.0.0.1"))
    assert {each.message for each in said.conflicts} == set()


async def test_move_without_addresses_and_routes_deletes_what_goes_through_it(device: Device, lan: str) -> None:
    before = await things(*TABLES)
    said = await impact(device, lan, "b", drop_addresses=True, drop_routes=True)
    await move(device, lan, "b", drop_addresses=True, drop_routes=True)
    await becomes(foretold(said, before, "b"))
    assert await addresses("lan", "b") == set()
    assert not [name for name in await resources(device) if name.startswith("routeTables/b/")]
    assert [name for name in await resources(device) if name.startswith("routeTables/a/")] == ["routeTables/a/routes/two"]


async def test_failed_move_leaves_everything_as_it_was(device: Device, lan: str) -> None:
    """The target's links have no IPv6, so that it does not take all addresses."""
    await without_ipv6("b")
    before, stored = await things(*TABLES), await resources(device)
    with pytest.raises(errors.CrossnsError) as caught:
        await move(device, lan, "b")
    assert caught.value.reason == "KERNEL_REFUSED"
    assert "everything is as it was" in caught.value.message
    await becomes(before)
    await wait_until(functools.partial(_is_stored, device, stored))


async def _is_stored(device: Device, stored: dict[str, str]) -> bool:
    return await resources(device) == stored


async def test_move_that_was_open_when_nsmanager_died_comes_to_its_end(device: Device, lan: str) -> None:
    await do("ip", "-n", "a", "address", "delete", "10.44.0.1/24", "dev", "lan")
    await do("ip", "-n", "a", "route", "delete", "10.45.0.0/24", "dev", "lan")
    await without_ipv6("b")
    before, stored = await things(*TABLES), await resources(device)
    moving = asyncio.create_task(move(device, lan, "b"))

    async def is_begun() -> bool:
        return (await resources(device)).get("routeTables/b/routes/r") is not None

    await wait_until(is_begun)
    await device.kill("nsmanager")
    with pytest.raises(errors.CrossnsError):
        await moving
    await wait_until(device.serves)
    await wait_until(functools.partial(_is_stored, device, stored))
    await becomes(before)


async def test_interface_that_carries_ones_own_session_is_moved_with_an_explicit_word_only(device: Device, lan: str) -> None:
    await device.apply(bridge("br", linkName="br0", addresses=["10.8.0.1/24", "10.0.9.1/32"]))
    before = await things(*TABLES)
    for local, remote in (("10.0.0.1", "10.0.0.6"), ("10.0.9.1", "192.0.2.1")):
        session = impact_pb2.OwnSession(local_address=local, remote_address=remote)
        assert (await impact(device, lan, "b", own_session=session)).carries_own_session, local
        with pytest.raises(errors.FailedPrecondition) as caught:
            await move(device, lan, "b", own_session=session)
        assert caught.value.reason == "OWN_SESSION"
    other = impact_pb2.OwnSession(local_address="10.8.0.1", remote_address="10.8.0.7")
    assert not (await impact(device, lan, "b", own_session=other)).carries_own_session
    assert await things(*TABLES) == before
    said = crossns("interface", "move", lan, "b", "--yes", environ=SSH)
    assert (said.returncode, "--cut-my-session" in said.stderr) == (1, True)
    said = crossns("interface", "move", lan, "b", "--yes", "--cut-my-session", environ=SSH)
    assert said.returncode == 0, said.stderr
    assert await link("lan", "b") is not None


async def test_established_sessions_are_counted(device: Device, lan: str, lab: Lab, dial: Dial) -> None:
    serve = [*TRAFFIC, "serve", "--listen", "10.0.0.1:8080", "--name", "a"]
    server = await proc.start(["ip", "netns", "exec", "a", *serve])
    assert server.stdout is not None
    assert b"listening" in await server.stdout.readline()
    try:
        assert (await impact(device, lan, "b")).established_sessions == 0
        await (await dial(lab.hosts["h"], "10.0.0.1:8080")).ask()
        assert (await impact(device, lan, "b")).established_sessions == 1
        assert (await impact(device, "br", "b")).established_sessions == 0
    finally:
        proc.kill(server)
        await server.wait()


async def test_sessions_that_are_forwarded_over_it_are_counted(device: Device, lan: str, lab: Lab, dial: Dial) -> None:
    """Through the table, from one card to the other; what connection tracking does not know is not counted."""
    far = await lab.host("far", Cable("card-far"), ["10.3.0.6/24"], ["10.3.0.1"])
    card = {"routeTable": "routeTables/a", "linkName": "far", "physical": {"linkName": "card-far"}}
    await device.apply(doc("interfaces/far", **card, addresses=["10.3.0.1/24"]))
    await lab.hosts["h"].configure("route add 10.3.0.0/24 via 10.0.0.1")
    tracked = "add table ip t; add chain ip t c { type filter hook forward priority 0; }; add rule ip t c ct state new counter"
    await do("ip", "netns", "exec", "a", "nft", tracked)
    await backend(far, "far", "10.3.0.6:8080")
    said = await impact(device, lan, "b")
    assert (said.forwarded_sessions, said.forwarded_sessions_at_least) == (0, False)
    for number in (1, 2):
        await (await dial(lab.hosts["h"], "10.3.0.6:8080")).ask()
        assert (await impact(device, lan, "b")).forwarded_sessions == number
    assert [(await impact(device, name, "b")).forwarded_sessions for name in ("far", "br")] == [2, 0]
    assert (await impact(device, lan, "b")).established_sessions == 0
    await do("ip", "netns", "exec", "a", "nft", "delete table ip t")


async def test_conflicts_in_the_target_are_told_and_those_that_block_change_nothing(device: Device, lan: str) -> None:
    await device.apply(doc("interfaces/there", routeTable="routeTables/b", linkName="b0", bridge={}, addresses=["10.0.0.77/16"]))
    said = await impact(device, lan, "b")
    assert [(each.reason, each.blocking) for each in said.conflicts] == [("SUBNET_OVERLAP", False)]
    await do("ip", "-n", "b", "address", "add", "10.0.0.1/32", "dev", "b0")
    same = [each.message for each in (await impact(device, lan, "b")).conflicts if "the same address" in each.message]
    assert same == ["b0 of routeTables/b has the same address as interfaces/a-lan: 10.0.0.1/32"]
    await do("ip", "-n", "b", "link", "add", "lan", "type", "bridge")
    before, stored = await things(*TABLES), await resources(device)
    with pytest.raises(errors.FailedPrecondition) as caught:
        await move(device, lan, "b")
    assert caught.value.reason == "FOREIGN_OBJECT"
    await do("ip", "-n", "b", "link", "delete", "lan")
    await do("ip", "-n", "b", "link", "property", "add", "dev", "b0", "altname", "lan")
    assert [each.reason for each in (await impact(device, lan, "b")).conflicts if each.blocking] == ["FOREIGN_OBJECT"]
    await do("ip", "-n", "b", "link", "property", "del", "dev", "b0", "altname", "lan")
    await device.apply(
        doc(
            "interfaces/br",
            routeTable="routeTables/a",
            linkName="br0",
            bridge={"ports": ["interfaces/a-lan"]},
            addresses=["10.8.0.1/24"],
        )
    )
    for name in (lan, "br"):
        with pytest.raises(errors.FailedPrecondition) as caught:
            await move(device, name, "b")
        assert caught.value.reason == "PORT_TAKEN"
    assert (await resources(device)).keys() == stored.keys()
    assert await link("lan", "a") is not None
    assert before


async def test_routes_of_others_in_the_target_block_before_anything_is_touched(device: Device, lan: str) -> None:
    """Those of the same key: destination, metric and kernel table, whatever they are otherwise."""
    await device.apply(doc("interfaces/there", routeTable="routeTables/b", linkName="b0", bridge={}, addresses=["10.9.0.1/24"]))

    async def blocking(**how: bool) -> list[str]:
        return [each.message for each in (await impact(device, lan, "b", **how)).conflicts if each.blocking]

    for other in ("default via 10.9.0.2 metric 7", "default via 10.9.0.2 table 100", "10.45.0.0/16 via 10.9.0.2"):
        await do("ip", "-n", "b", "route", "add", *other.split())
    assert await blocking() == []
    for same in ("default via 10.9.0.2", "blackhole 2001:db8:7::/64 metric 5"):
        await do("ip", "-n", "b", "route", "add", *same.split())
    before, stored = await settled(lambda: things(*TABLES)), await resources(device)
    told = "routeTables/b has a route {} from somebody else: remove it, or move without routes"
    assert sorted(await blocking()) == [told.format("0.0.0.0/0"), told.format("2001:db8:7::/64")]
    with pytest.raises(errors.FailedPrecondition) as caught:
        await move(device, lan, "b")
    assert caught.value.reason == "FOREIGN_OBJECT"
    assert (await things(*TABLES), await resources(device)) == (before, stored)
    assert await blocking(drop_routes=True) == []


async def test_move_is_shown_tried_and_asked_for_on_the_command_line(device: Device, lan: str) -> None:
    before = await things(*TABLES)
    shown = crossns("interface", "move", lan, "b", "--dry-run")
    assert shown.returncode == 0, shown.stderr
    for words in ("10.0.0.1/24", "moved", "routeTables/b/routes/r", "is nobody's that crossns knows of: it is lost"):
        assert words in shown.stdout
    parsed = json.loads(crossns("interface", "move", lan, "b", "--dry-run", "-o", "json").stdout)
    assert parsed["name"] == "interfaces/a-lan"
    asked = crossns("interface", "move", lan, "b")
    assert (asked.returncode, "give --yes" in asked.stderr) == (1, True)
    assert await things(*TABLES) == before
    assert crossns("interface", "move", lan, "b", "--yes").returncode == 0
    assert "routeTables/b" in crossns("interface", "show", lan).stdout


async def test_evacuation_is_foretold_and_its_reply_has_what_the_cards_had(device: Device, lan: str) -> None:
    before = await things("default")
    shown = crossns("table", "delete", "a", "--evacuate", "--dry-run")
    assert "10.44.0.1/24" in shown.stdout
    api = device.client
    stub = route_table_pb2_grpc.RouteTablesStub(api.channel)
    request = route_table_pb2.RouteTablesAnalyzeImpactRequest(name="routeTables/a", evacuate=True)
    said = await api.call(stub.AnalyzeImpact, request)
    deleted = await device.client.delete("routeTables/a", evacuate=True)
    assert isinstance(deleted, route_table_pb2.RouteTable)
    (card,) = deleted.status.evacuated
    assert (card.interface, card.link_name) == (f"interfaces/{lan}", "card-a")
    assert list(card.addresses) == ["10.0.0.1/24", "10.44.0.1/24", "2001:db8::1/64"]
    routes = ["10.77.0.0/16", "2001:db8:46::/64", "10.45.0.0/24", "2001:db8:7::/64", "default"]
    assert [text.split()[0] for text in card.routes] == routes
    in_default = [item for item in said.items if item.route_table == "routeTables/default"]
    await becomes(foretold(impact_pb2.Impact(items=in_default), before, "default"), "default")
    assert not [name for name in await resources(device) if name.startswith("routeTables/a")]


async def test_refused_deletion_names_all_that_is_in_the_way(device: Device, lan: str) -> None:
    v_service = {"frontends": [frontend("x", "b", "10.1.0.77")], "pools": [{"name": "main", "members": [MEMBER]}]}
    await device.apply(doc("vServices/web", protocol="TCP", **v_service), wait=False)
    await do("ip", "-n", "a", "link", "add", "foreign", "type", "bridge")

    async def is_seen() -> bool:
        return list((await device.client.get("routeTables/a")).status.undeclared_links) == ["foreign"]  # type: ignore[union-attr]

    await wait_until(is_seen)
    before, stored = await things(*TABLES), await resources(device)
    nested = [name for name in stored if name.startswith("routeTables/a/")]
    for evacuate, named in ((False, [f"interfaces/{lan}", "interfaces/br", *nested, "vServices/web"]), (True, ["vServices/web"])):
        with pytest.raises(errors.FailedPrecondition) as caught:
            await device.client.delete("routeTables/a", evacuate=evacuate)
        assert caught.value.reason == "ROUTE_TABLE_NOT_EMPTY"
        assert set(caught.value.metadata["referrers"].split(", ")) == set(named)
        assert caught.value.metadata["links"] == "foreign"
        assert all(name in caught.value.message for name in (*named, "foreign"))
    assert (await things(*TABLES), await resources(device)) == (before, stored)
    refused = crossns("table", "delete", "a", "--dry-run")
    assert (refused.returncode, "refused: " in refused.stdout) == (0, True)
    await do("ip", "-n", "a", "link", "delete", "foreign")


async def test_parts_of_vservices_are_told_and_a_service_that_does_not_answer_too(device: Device, lan: str) -> None:
    behind = {**MEMBER, "name": "n", "address": "198.51.100.6"}
    there = {**MEMBER, "name": "o", "routeTable": "routeTables/b", "address": "10.0.0.7"}
    v_service = {
        "frontends": [frontend("in", "a", "10.0.0.80"), frontend("out", "b", "10.0.0.81"), frontend("no", "b", "10.1.0.77")],
        "pools": [{"name": "main", "members": [MEMBER, behind]}, {"name": "more", "members": [MEMBER, there]}],
    }
    fronts = [{**each, "pool": "main"} for each in v_service["frontends"]]
    await device.apply(doc("vServices/web", protocol="TCP", frontends=fronts, pools=v_service["pools"]), wait=False)

    async def is_known() -> bool:
        return any(item.kind == impact_pb2.IMPACT_KIND_FRONTEND for item in (await impact(device, lan, "b")).items)

    await wait_until(is_known)
    said = await impact(device, lan, "b")
    parts = [item for item in said.items if item.kind in (impact_pb2.IMPACT_KIND_FRONTEND, impact_pb2.IMPACT_KIND_MEMBER)]
    interrupted, changed = impact_pb2.IMPACT_CHANGE_INTERRUPTED, impact_pb2.IMPACT_CHANGE_CHANGED
    assert sorted((item.object, item.change, item.severity) for item in parts) == [
        ("10.0.0.6:80", interrupted, impact_pb2.IMPACT_SEVERITY_WARNING),
        ("10.0.0.6:80", interrupted, impact_pb2.IMPACT_SEVERITY_CRITICAL),
        ("10.0.0.7:80", changed, impact_pb2.IMPACT_SEVERITY_INFO),
        ("10.0.0.80:80", interrupted, impact_pb2.IMPACT_SEVERITY_WARNING),
        ("10.0.0.81:80", changed, impact_pb2.IMPACT_SEVERITY_INFO),
        ("198.51.100.6:80", interrupted, impact_pb2.IMPACT_SEVERITY_CRITICAL),
    ]
    assert not said.unanswered
    pid = device.pid("proxy")
    os.kill(pid, signal.SIGSTOP)
    try:
        said = await impact(device, lan, "b")
        assert [each.service for each in said.unanswered] == ["proxy"]
        assert not [item for item in said.items if item.kind == impact_pb2.IMPACT_KIND_MEMBER]
        shown = crossns("interface", "move", lan, "b", "--dry-run")
        assert "proxy did not answer" in shown.stdout
    finally:
        os.kill(pid, signal.SIGCONT)
    assert peer_socket_is_closed_to_others(device)


def peer_socket_is_closed_to_others(device: Device) -> bool:
    """The way to it is nsmanager's alone: its directory lets in nobody else."""
    directory = device.layout.peer_socket("proxy").parent.stat()
    return (directory.st_mode & 0o7777, directory.st_gid) == (0o2750, device.layout.uid("nsmanager"))
