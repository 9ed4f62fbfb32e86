"""Route tables, interfaces, addresses and routes in the real kernel, made through the gateway, with real packets."""

import asyncio
import contextlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from crossns import errors, proc
from crossns.cli import bundle, document, staging
from crossns.testing.device import Device, doc, wait_until
from crossns.testing.lab import Cable, Lab
from crossns.v1 import config_pb2
from tests.e2e.terminal import CROSSNS, ENVIRON
from tests.kernel.view import MAC, TRAFFIC, addresses, bridge, do, ip, link, make_drifting, reaches, routes, table_with_card

pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]

GIVEN = ["10.8.0.1/24", "2001:db8:8::1/64"]
VIP = {"name": "f", "routeTable": "routeTables/a", "address": "10.0.0.80", "port": 80, "pool": "p"}
POOL = {"name": "p", "members": [{"name": "m", "routeTable": "routeTables/a", "address": "10.0.0.6", "port": 8080}]}


async def crossns(*argv: str, stdin: str = "") -> proc.Completed:
    return (await proc.run([*CROSSNS, *argv], stdin=stdin, environ=ENVIRON)).check()


async def test_two_tables_hold_the_same_address_port_and_mac_at_once(device: Device, lab: Lab) -> None:
    """Packets of each host reach the server of its own table: both answer on 10.0.0.1:8080, with one MAC address."""
    for table in ("a", "b"):
        cable = Cable(card=f"card-{table}", card_mac=MAC, host_mac="02:00:00:00:00:99")
        await lab.host(table, cable, ["10.0.0.6/24", "2001:db8::6/64"])
        await device.apply(*table_with_card(table, f"card-{table}", "10.0.0.1/24", "2001:db8::1/64"))
    for table in ("a", "b"):
        found = await link("lan", table)
        assert found is not None
        assert found["address"] == MAC
    serve = [*TRAFFIC, "serve", "--listen", "10.0.0.1:8080", "--name"]
    servers = [await proc.start(["ip", "netns", "exec", table, *serve, table], output=None) for table in ("a", "b")]
    try:
        for name, host in lab.hosts.items():
            ask = ["curl", "-s", "--retry", "20", "--retry-connrefused", "--retry-delay", "0", "http://10.0.0.1:8080/"]
            assert json.loads((await host.run(ask)).check().stdout)["backend"] == name
            assert await reaches(host, "2001:db8::1")
    finally:
        for server in servers:
            proc.kill(server)
            await server.wait()


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        pytest.param(kind, {field: given}, marks=pytest.mark.needs(field), id=f"{field} {given}")
        for kind, field, given in (
            ("bridge", "bridge", {"stp": True}),
            ("macvlan", "macvlan", {"parent": "interfaces/a-lan", "mode": "PRIVATE"}),
            ("bridge", "bridge", {}),
            ("vxlan", "vxlan", {"vni": 43}),
            ("vxlan", "vxlan", {"vni": 42, "local": "10.0.0.1", "remote": "10.0.0.9"}),
            ("tun", "tap", {"ownerUid": 1000}),
            ("tun", "tap", {}),
            ("vlan", "vlan", {"parent": "interfaces/a-lan", "vlanId": 100}),
            ("bond", "bond", {}),
            ("dummy", "dummy", {}),
        )
    ],
)
async def test_every_kind_of_interface_is_made_addressed_and_deleted(
    device: Device, lab: Lab, kind: str, spec: dict[str, Any]
) -> None:
    await lab.host("h", Cable("card-a"), ["10.0.0.6/24"])
    await device.apply(*table_with_card("a", "card-a", "10.0.0.1/24"))
    await device.apply(
        doc("interfaces/x", routeTable="routeTables/a", linkName="x0", mtu=1400, addresses=["10.7.0.1/24"], **spec)
    )
    made = await link("x0", "a")
    assert made is not None
    assert made["linkinfo"]["info_kind"] == kind
    assert made["mtu"] == 1400
    assert "UP" in made["flags"]
    assert await addresses("x0", "a") == {"10.7.0.1/24"}
    writes = await device.kernel_writes("a")
    await do("ip", "-n", "a", "link", "set", "lo", "multicast", "on")
    await wait_until(lambda: _is_settled(device))
    assert await device.kernel_writes("a") == writes
    await device.delete("interfaces/x")
    assert await link("x0", "a") is None


async def _is_settled(device: Device) -> bool:
    """Whether a look at the table, brought about by a change, is over."""
    await device.apply(doc("routeTables/a", description="look"))
    return await device.state("routeTables/a") == "READY"


async def test_kind_that_the_kernel_lacks_is_reported_and_others_go_on(device: Device) -> None:
    if (await proc.run(["unshare", "--net", "ip", "link", "add", "probe", "type", "dummy"])).status == 0:
        pytest.skip("this kernel has the kind dummy")
    await device.apply(doc("routeTables/a"))
    await device.apply(doc("interfaces/x", routeTable="routeTables/a", dummy={}), wait=False)
    found = await device.wait_until_state("interfaces/x", "ERROR")
    assert found.status.conditions[0].reason == "KIND_UNSUPPORTED"
    await device.apply(bridge("y"))


async def test_macvlan_on_a_parent_of_default_lives_in_its_table(device: Device, lab: Lab) -> None:
    await lab.host("h", Cable("trunk"), ["10.5.0.6/24"])
    await device.apply(
        doc("routeTables/a"),
        doc("interfaces/trunk", routeTable="routeTables/default", physical={"linkName": "trunk"}),
        doc("interfaces/mv", routeTable="routeTables/a", macvlan={"parent": "interfaces/trunk"}, addresses=["10.5.0.1/24"]),
    )
    assert await reaches(lab.hosts["h"], "10.5.0.1")


async def test_bridge_carries_frames_between_its_ports(device: Device, lab: Lab) -> None:
    for number in (1, 2):
        await lab.host(f"h{number}", Cable(f"port{number}"), [f"10.6.0.{number}/24"])
    await device.apply(
        doc("routeTables/a"),
        doc("interfaces/p1", routeTable="routeTables/a", physical={"linkName": "port1"}),
        doc("interfaces/p2", routeTable="routeTables/a", physical={"linkName": "port2"}),
        doc("interfaces/br", routeTable="routeTables/a", bridge={"ports": ["interfaces/p1", "interfaces/p2"]}),
    )
    assert await reaches(lab.hosts["h1"], "10.6.0.2")


async def test_routes_of_every_type_stand_in_the_kernel_and_forward(device: Device, lab: Lab) -> None:
    """A client in one network of a table reaches a server in another one, over a table that forwards; a blackhole drops."""
    await lab.host("client", Cable("card1"), ["10.1.0.6/24"], ["10.1.0.1"])
    await lab.host("server", Cable("card2"), ["10.2.0.6/24", "172.16.5.5/32"], ["10.2.0.1"])
    one, two = ["10.1.0.1/24", "2001:db8:1::1/64"], ["10.2.0.1/24"]
    ways = [{"address": "10.1.0.7", "weight": 2}, {"address": "10.2.0.7"}]
    ways6 = [{"address": "2001:db8:1::7"}, {"address": "2001:db8:1::8"}]
    await device.apply(
        doc("routeTables/a", forwarding=True),
        doc("interfaces/one", routeTable="routeTables/a", physical={"linkName": "card1"}, addresses=one),
        doc("interfaces/two", routeTable="routeTables/a", physical={"linkName": "card2"}, addresses=two),
        doc("routeTables/a/routes/behind", destination="172.16.5.0/24", gateways=[{"address": "10.2.0.6"}]),
        doc("routeTables/a/routes/drop", destination="172.16.5.7/32", type="BLACKHOLE"),
        doc("routeTables/a/routes/ecmp", destination="0.0.0.0/0", metric=50, gateways=ways),
        doc("routeTables/a/routes/ecmp6", destination="::/0", gateways=ways6),
        doc("routeTables/a/routes/no6", destination="2001:db8:9::/48", type="UNREACHABLE", kernelTable=100),
    )
    client = lab.hosts["client"]
    assert await reaches(client, "172.16.5.5")
    assert not await reaches(client, "172.16.5.7")
    assert {"172.16.5.0/24", "172.16.5.7", "default"} <= await routes("a")
    ecmp = next(each for each in await ip("-4", "route", "show", "default", table="a"))
    assert [(hop["gateway"], hop["weight"]) for hop in ecmp["nexthops"]] == [("10.1.0.7", 2), ("10.2.0.7", 1)]


async def test_changed_addresses_routes_and_state_follow_the_spec(device: Device, lab: Lab) -> None:
    await lab.host("h", Cable("card-a"), ["10.0.0.6/24"])
    await device.apply(*table_with_card("a", "card-a", "10.0.0.1/24", "10.0.1.1/24"))
    card: dict[str, Any] = {"routeTable": "routeTables/a", "linkName": "wan", "physical": {"linkName": "card-a"}}
    await device.apply(doc("interfaces/a-lan", **card, mtu=1300, addresses=["10.0.1.1/24", "10.0.2.1/24"]))
    assert await addresses("wan", "a") == {"10.0.1.1/24", "10.0.2.1/24"}
    await device.apply(doc("interfaces/a-lan", **card, enabled=False))
    down = await link("wan", "a")
    assert down is not None
    assert "UP" not in down["flags"]


async def test_card_moves_between_tables_with_its_addresses_and_back_to_default(device: Device, lab: Lab) -> None:
    host = await lab.host("h", Cable("card-a", card_mac=MAC), ["10.0.0.6/24"])
    await device.apply(doc("routeTables/b"), *table_with_card("a", "card-a", "10.0.0.1/24"))
    lan = {"linkName": "lan", "physical": {"linkName": "card-a"}, "addresses": ["10.0.0.1/24"]}
    await device.apply(doc("interfaces/a-lan", routeTable="routeTables/b", **lan))
    assert await link("lan", "a") is None
    assert await reaches(host, "10.0.0.1")
    await device.delete("interfaces/a-lan")
    back = await link("card-a")
    assert back is not None
    assert (back["address"], back.get("altnames", [])) == (MAC, [])


async def test_card_is_found_by_its_mac_address(device: Device, lab: Lab) -> None:
    await lab.host("h", Cable("any-name", card_mac=MAC), ["10.0.0.6/24"])
    await device.apply(
        doc("routeTables/a"),
        doc("interfaces/lan", routeTable="routeTables/a", physical={"macAddress": MAC}, addresses=["10.0.0.1/24"]),
    )
    assert await link("lan", "a") is not None


async def test_card_that_is_plugged_in_later_is_taken_at_once(device: Device, lab: Lab) -> None:
    await device.apply(*table_with_card("a", "late", "10.0.0.1/24"), wait=False)
    missing = await device.wait_until_state("interfaces/a-lan", "ERROR")
    assert missing.status.conditions[0].reason == "LINK_MISSING"
    await lab.host("h", Cable("late"), ["10.0.0.6/24"])
    await device.wait_until_state("interfaces/a-lan", "READY")


async def test_table_with_interfaces_is_not_deleted_and_evacuation_gives_the_cards_back(device: Device, lab: Lab) -> None:
    await make_drifting(device, lab)
    with pytest.raises(errors.FailedPrecondition) as caught:
        await device.client.delete("routeTables/a")
    assert caught.value.reason == "ROUTE_TABLE_NOT_EMPTY"
    assert caught.value.metadata["referrers"] == "interfaces/a-lan, interfaces/br, routeTables/a/routes/r"
    await device.delete("routeTables/a", evacuate=True)
    assert await link("card-a") is not None
    assert not Path("/run/netns/a").exists()


async def test_table_with_a_link_that_nobody_declared_is_not_deleted(device: Device, lab: Lab) -> None:
    """Also where it came behind the request: the namespace waits, and goes by itself when the link has gone."""
    await lab.host("h", Cable("foreign"), ["10.0.0.6/24"])
    await device.apply(doc("routeTables/a"))
    agent = device.pid("agent a")
    os.kill(agent, signal.SIGSTOP)
    await do("ip", "link", "set", "foreign", "netns", "a")
    deleting = asyncio.create_task(device.client.delete("routeTables/a"))
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(deleting), 0.3)
    os.kill(agent, signal.SIGCONT)
    with pytest.raises(errors.FailedPrecondition) as caught:
        await deleting
    assert (caught.value.reason, caught.value.metadata["links"]) == ("ROUTE_TABLE_NOT_EMPTY", "foreign")
    await do("ip", "-n", "a", "link", "set", "foreign", "netns", "1")
    await wait_until(lambda: _has_none(device))
    await device.delete("routeTables/a")


async def _has_none(device: Device) -> bool:
    return not (await device.client.get("routeTables/a")).status.undeclared_links  # type: ignore[union-attr]


async def test_card_is_made_and_deleted_many_times_without_a_wait_for_the_resync(device: Device, lab: Lab) -> None:
    await lab.host("h", Cable("card-a"), ["10.0.0.6/24"])
    await device.apply(doc("routeTables/a"))
    for _ in range(25):
        await device.apply(doc("interfaces/c", routeTable="routeTables/a", physical={"linkName": "card-a"}))
        await device.delete("interfaces/c")


async def test_table_is_deleted_right_behind_what_is_in_it(device: Device, lab: Lab) -> None:
    """Nobody waits in between: the table's own round orders it, and the card comes home."""
    await make_drifting(device, lab)
    await device.delete("routeTables/a/routes/r", "interfaces/br", "interfaces/a-lan", wait=False)
    await device.delete("routeTables/a")
    assert await link("card-a") is not None


async def test_tables_are_made_and_deleted_side_by_side(device: Device) -> None:
    await device.apply(*(doc(f"routeTables/t{number}") for number in range(20)))
    cookies = [(await device.client.get(f"routeTables/t{number}")).status.netns_cookie for number in range(20)]  # type: ignore[union-attr]
    assert len(set(cookies)) == 20
    await asyncio.gather(*(device.delete(f"routeTables/t{number}") for number in range(20)))
    assert [path.name for path in Path("/run/netns").iterdir()] == []


async def test_identity_follows_from_the_index_and_tells_who_shares_a_vrid(device: Device) -> None:
    await device.apply(doc("routeTables/a", index=300), doc("routeTables/b", index=555), doc("routeTables/c", index=301))
    status: Any = (await device.client.get("routeTables/b")).status
    found = await device.client.identity("routeTables/b")
    assert (found.vrid_base, found.router_id, found.control_socket_prefix, found.port_base) == (45, "0.0.2.43", "rt555", 24432)
    assert (status.index, status.identity.vrid_base, status.identity.router_id) == (555, 45, "0.0.2.43")
    assert (list(found.vrid_shared_with), list(found.ports_shared_with)) == (["routeTables/a"], [])
    await device.delete("routeTables/a")
    assert not (await device.client.identity("routeTables/b")).vrid_shared_with


async def test_index_that_another_table_has_or_just_had_is_refused_and_cannot_be_changed(device: Device) -> None:
    await device.apply(doc("routeTables/a", index=400))
    for _ in range(2):
        with pytest.raises(errors.AlreadyExists) as caught:
            await device.apply(doc("routeTables/b", index=400))
        assert caught.value.reason == "INDEX_TAKEN"
        with contextlib.suppress(errors.NotFound):
            await device.delete("routeTables/a")
    await device.apply(doc("routeTables/c", index=401))
    with pytest.raises(errors.InvalidSpec) as changed:
        await device.apply(doc("routeTables/c", index=402))
    assert changed.value.reason == "IMMUTABLE_FIELD"


async def test_lifecycle_of_a_table_that_has_labels_is_protected_and_gets_another_display_name(device: Device) -> None:
    """What it is called is for people: nothing of it is interrupted, and its name and index stay."""
    spec = {"index": 77, "protected": True}
    await device.apply(json.dumps({"kind": "RouteTable", "name": "routeTables/a", "labels": {"env": "lab"}, "spec": spec}))
    before: Any = (await device.client.get("routeTables/a")).status
    writes = await device.kernel_writes("a")
    with pytest.raises(errors.FailedPrecondition) as caught:
        await device.client.delete("routeTables/a")
    assert caught.value.reason == "ROUTE_TABLE_PROTECTED"
    await crossns("table", "update", "a", "--display-name", "Tenant Ä", "--unprotected", "--label", "env=prod")
    found: Any = await device.wait_until_state("routeTables/a", "READY")
    assert (found.spec.display_name, found.spec.index, dict(found.labels)) == ("Tenant Ä", 77, {"env": "prod"})
    assert (found.status.netns_cookie, found.status.index) == (before.netns_cookie, 77)
    assert await device.kernel_writes("a") == writes
    await device.delete("routeTables/a")


async def test_copy_of_a_table_is_ready_beside_its_original_and_exported_back_is_what_was_copied(
    device: Device, lab: Lab
) -> None:
    host = await lab.host("h", Cable("card-a"), ["10.0.0.6/24"])
    gone = [
        doc("routeTables/a/routes/far", destination="0.0.0.0/0", gateways=[{"address": "10.0.0.9"}]),
        doc("routeTables/a/neighbors/n", address="10.0.0.7", interface="interfaces/a-lan", macAddress="02:00:00:00:00:07"),
        doc("vServices/web", protocol="TCP", frontends=[VIP], pools=[POOL]),
    ]
    kept = [
        doc("routeTables/a", description="production", forwarding=True, arp={"ignore": "OTHER_LINK"}),
        bridge("a-br", linkName="br0", addresses=GIVEN),
        doc("interfaces/tunnel", routeTable="routeTables/a", vxlan={"vni": 42}, mtu=1400, addresses=["10.9.0.1/24"]),
        doc(
            "routeTables/a/routes/near",
            destination="10.7.0.0/16",
            gateways=[{"address": "10.8.0.9", "interface": "interfaces/a-br"}],
        ),
        doc("routeTables/a/routes/none", destination="198.51.100.0/24", type="BLACKHOLE"),
        doc("routeTables/a/rules/r", priority=100, family="IPV4", interface="interfaces/tunnel", kernelTable=100),
        doc("routeTables/a/neighbors/m", address="10.8.0.7", interface="interfaces/a-br", macAddress="02:00:00:00:00:08"),
    ]
    _, card = table_with_card("a", "card-a", "10.0.0.1/24")
    await device.apply(kept[0], card, *kept[1:], *gone)
    exported = await crossns("export", "--table", "a", "--as", "staging")
    for name in ("interfaces/a-lan", "routeTables/a/routes/far", "routeTables/a/neighbors/n", "vServices/web"):
        assert f"left out {name}: " in exported.stderr
        assert f"# left out {name}: " in exported.stdout
    await device.apply(exported.stdout)
    copies = [each.name for each in document.parse(exported.stdout, "copy")]
    assert [await device.state(name) for name in copies] == ["READY"] * len(kept)
    assert await addresses("br0-staging", "staging") == await addresses("br0", "a") == set(GIVEN)
    assert await addresses("tunnel-staging", "staging") == {"10.9.0.1/24"}
    assert await link("br0", "staging") is None
    assert await routes("staging") == {"10.7.0.0/16", "198.51.100.0/24"}
    assert [each["iif"] for each in await ip("rule", "show", "pref", "100", table="staging")] == ["tunnel-staging"]
    assert await reaches(host, "10.0.0.1")
    everything = await device.client.call(device.client.config.Export, config_pb2.ExportRequest())
    back = staging.copied(map(bundle.unwrap, everything.resources), "routeTables/staging", "routeTables/a", {})
    by_name = {each.name: each for text in kept for each in document.parse(text, "kept")}
    assert ({each.name: each for each in back.resources}, back.left_out) == (by_name, ())
