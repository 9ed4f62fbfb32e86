"""Rules in the real kernel, with real packets; and what becomes of rules and neighbours that are meddled with, in use or gone."""

import contextlib
import errno
import os
import signal
from typing import Any

import pytest

from crossns import errors, proc
from crossns.testing.device import Device, doc, wait_until
from crossns.testing.lab import Lab
from crossns.v1 import config_pb2
from tests.kernel import datagram
from tests.kernel.view import do, ip
from tests.kernel.ways import SERVER_MAC, TABLE, TARGETS, drifting, neighbor, ours, rule, servers, state_of, two_ways

pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]


@pytest.mark.parametrize(
    ("version", "selector", "other"),
    [
        (4, {"source": "10.1.0.66/32"}, "10.1.0.6"),
        (4, {"destination": "172.16.5.5/32"}, ""),
        (4, {"family": "IPV4", "interface": "interfaces/one"}, ""),
        (4, {"source": "10.1.0.64/26", "destination": "172.16.5.0/24", "interface": "interfaces/one"}, "10.1.0.6"),
        (6, {"source": "2001:db8:1::6/128"}, ""),
        (6, {"family": "IPV6", "interface": "interfaces/one"}, ""),
    ],
    ids=str,
)
async def test_rule_sends_what_it_selects_another_way_and_the_rest_as_before(
    device: Device, lab: Lab, version: int, selector: dict[str, Any], other: str
) -> None:
    client = await two_ways(device, lab)
    source = "10.1.0.66" if version == 4 else "2001:db8:1::6"
    with datagram.ears(servers(lab), TARGETS[version]) as ears:
        assert await datagram.taken_by(client, source, TARGETS[version], ears) == "two"
        await device.apply(rule(priority=100, kernelTable=100, **selector))
        assert await datagram.taken_by(client, source, TARGETS[version], ears) == "three"
        if other:
            assert await datagram.taken_by(client, other, TARGETS[version], ears) == "two"
        await device.delete("routeTables/a/rules/r")
        assert await datagram.taken_by(client, source, TARGETS[version], ears) == "two"


async def test_rule_selects_by_firewall_mark_and_lower_priorities_are_asked_first(device: Device, lab: Lab) -> None:
    client = await two_ways(device, lab)
    marking = "add table inet t; add chain inet t c { type filter hook prerouting priority -150; }; "
    marking += "add rule inet t c ip saddr 10.1.0.66 meta mark set 0x13"
    await do("ip", "netns", "exec", "a", "nft", marking)
    await device.apply(rule(priority=100, family="IPV4", mark=0x10, markMask=0xF0, kernelTable=100))
    with datagram.ears(servers(lab), TARGETS[4]) as ears:
        assert await datagram.taken_by(client, "10.1.0.66", TARGETS[4], ears) == "three"
        assert await datagram.taken_by(client, "10.1.0.6", TARGETS[4], ears) == "two"
        await device.apply(rule("first", priority=99, family="IPV4", mark=3, markMask=0xF, kernelTable=254))
        assert await datagram.taken_by(client, "10.1.0.66", TARGETS[4], ears) == "two"


@pytest.mark.parametrize(
    ("action", "says"), [("UNREACHABLE", errno.ENETUNREACH), ("PROHIBIT", errno.EHOSTUNREACH), ("BLACKHOLE", 0)], ids=str
)
async def test_rule_that_drops_says_so_or_is_silent_as_asked(device: Device, lab: Lab, action: str, says: int) -> None:
    client = await two_ways(device, lab)
    await device.apply(rule(priority=5, source="10.1.0.66/32", action=action))
    if says:
        assert await datagram.refusal(client, "10.1.0.66", TARGETS[4]) == os.strerror(says)
    else:
        asked = ["ip", "-n", "a", "route", "get", TARGETS[4], "from", "10.1.0.66", "iif", "one"]
        assert "Invalid argument" in (await proc.run(asked)).stderr
    with datagram.ears(servers(lab), TARGETS[4]) as ears:
        assert await datagram.taken_by(client, "10.1.0.6", TARGETS[4], ears) == "two"


DRIFTS = (
    ["rule", "del", "pref", "100"],
    ["-6", "rule", "flush"],
    ["neighbor", "del", "10.2.0.6", "dev", "two"],
    ["neighbor", "change", "10.2.0.6", "lladdr", "02:00:00:00:02:99", "dev", "two", "nud", "permanent"],
    ["neighbor", "change", "2001:db8:2::6", "lladdr", SERVER_MAC, "dev", "two", "nud", "reachable"],
    ["link", "set", "two", "address", "02:00:00:00:02:01"],
    ["link", "set", "one", "down"],
)


async def test_drift_of_rules_and_neighbours_is_repaired_and_foreign_ones_stay(device: Device, lab: Lab) -> None:
    await drifting(device, lab)
    wanted = await ours()
    assert [len(wanted[what]) for what in ("rules", "neighbors", "proxies")] == [2, 2, 1]
    await do("ip", "-n", "a", "rule", "add", "pref", "200", "from", "10.1.0.64/26", "lookup", "100")
    await do("ip", "-n", "a", "neighbor", "add", "10.3.0.77", "lladdr", SERVER_MAC, "dev", "three", "nud", "permanent")
    await do("ip", "-n", "a", "neighbor", "add", "proxy", "10.3.0.78", "dev", "three")

    async def is_repaired() -> bool:
        return await ours() == wanted

    for drift in DRIFTS:
        await do("ip", "-n", "a", *drift)
        await wait_until(is_repaired)
    foreign = [each["priority"] for each in await ip("-4", "rule", "show", table="a") if str(each.get("protocol")) != "197"]
    assert foreign == [0, 200, 32766, 32767]
    assert await state_of(TABLE, "10.3.0.77") == ["PERMANENT"]
    assert "10.3.0.78" in (await proc.run(["ip", "-n", "a", "neighbor", "show", "proxy"])).stdout


async def test_kernel_at_rest_is_not_written_to(device: Device, lab: Lab) -> None:
    await drifting(device, lab)
    before = await device.kernel_writes("a")
    await do("ip", "-n", "a", "link", "set", "lo", "multicast", "on")
    await device.apply(doc("routeTables/a", forwarding=True, description="look"))
    assert await device.kernel_writes("a") == before


async def test_interface_that_a_rule_or_a_neighbour_names_is_not_deleted(device: Device, lab: Lab) -> None:
    await drifting(device, lab)
    for interface, users in (
        ("interfaces/one", "routeTables/a/neighbors/proxy, routeTables/a/rules/r"),
        ("interfaces/two", "routeTables/a/neighbors/n, routeTables/a/neighbors/six"),
    ):
        with pytest.raises(errors.FailedPrecondition) as raised:
            await device.client.delete(interface)
        assert (raised.value.reason, raised.value.metadata["referrers"]) == ("STILL_REFERENCED", users)


async def test_what_collides_or_names_what_is_elsewhere_is_refused_and_changes_nothing(device: Device, lab: Lab) -> None:
    await drifting(device, lab)
    await device.apply(doc("routeTables/b"), doc("interfaces/far", routeTable="routeTables/b", bridge={}))
    before = await ours()
    refused = (
        (rule("s", priority=100, source="10.1.0.64/26", interface="interfaces/one", action="BLACKHOLE"), "ALREADY_EXISTS"),
        (rule("s", priority=9, family="IPV4", interface="interfaces/far", kernelTable=100), "INVALID_FIELD"),
        (rule("s", priority=9, family="IPV4", interface="interfaces/none", kernelTable=100), "TARGET_NOT_FOUND"),
        (neighbor("s", address="10.2.0.6", interface="interfaces/two", proxy=True), "ALREADY_EXISTS"),
        (neighbor("s", address="10.2.0.6", interface="interfaces/far", proxy=True), "INVALID_FIELD"),
    )
    for document, reason in refused:
        with pytest.raises(errors.CrossnsError) as raised:
            await device.apply(document)
        assert raised.value.reason == reason, document
    assert await ours() == before


async def test_what_is_exported_is_applied_back_unchanged(device: Device, lab: Lab) -> None:
    await drifting(device, lab)
    await device.apply(
        doc("routeTables/a", forwarding=True, arp={"filter": False, "announce": "BEST"}, reversePathFilter="LOOSE")
    )
    api = device.client
    bundle = (await api.call(api.config.Export, config_pb2.ExportRequest(route_tables=["routeTables/a"]))).resources
    kinds = [each.WhichOneof("kind") for each in bundle]
    assert (kinds.count("rule"), kinds.count("neighbor")) == (2, 3)
    assert kinds == sorted(kinds, key=["route_table", "interface", "route", "rule", "neighbor"].index)
    changes = (await api.call(api.config.Diff, config_pb2.DiffRequest(resources=bundle))).changes
    assert {each.action for each in changes} == {config_pb2.ACTION_NONE}


async def test_evacuation_and_deletion_leave_nothing_of_them(device: Device, lab: Lab) -> None:
    await drifting(device, lab)
    await device.delete("routeTables/a/neighbors/proxy", "routeTables/a/rules/r")
    left = await ours()
    assert [len(left[what]) for what in ("rules", "neighbors", "proxies")] == [1, 2, 0]
    await device.delete("routeTables/a", evacuate=True)
    gone = [f"routeTables/a/{kind}/six" for kind in ("rules", "neighbors")]
    await device.wait([config_pb2.WaitTarget(name=name, deleted=True) for name in gone])
    # Their names and what they claimed are free again.
    for host in list(lab.hosts.values()):
        await lab.remove(host)
    await drifting(device, lab)


async def test_table_that_is_made_anew_has_them_again(device: Device) -> None:
    """As in a cold boot: the namespace gone with everything in it, and who looked after it."""
    spec: dict[str, Any] = {"routeTable": "routeTables/a", "bridge": {}, "addresses": ["10.2.0.1/24", "2001:db8:2::1/64"]}
    await device.apply(
        doc("routeTables/a", forwarding=True, reversePathFilter="STRICT"),
        doc("interfaces/br", **spec),
        rule(priority=100, family="IPV4", interface="interfaces/br", kernelTable=100),
        neighbor(address="10.2.0.6", interface="interfaces/br", macAddress=SERVER_MAC),
        neighbor("proxy", address="2001:db8:2::9", interface="interfaces/br", proxy=True),
    )
    before = await ours()
    assert [len(before[what]) for what in ("rules", "neighbors", "proxies")] == [1, 1, 1]
    cookie = (await device.client.get("routeTables/a")).status.netns_cookie  # type: ignore[union-attr]
    (incarnation,) = device.layout.incarnations.glob("a.*")
    victims = [device.pid(name) for name in ("agent a", "nsmanager", "launcher")]
    for mount in (incarnation, device.layout.netns / "a"):
        await do("umount", str(mount))
        mount.unlink()
    for pid in victims:
        # An agent whose namespace is gone may have been sent away already.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    await wait_until(device.serves, timeout_s=40)

    async def is_back() -> bool:
        found: Any = (await device.client.get("routeTables/a")).status
        return found.netns_cookie != cookie and TABLE.exists() and await ours() == before

    await wait_until(is_back, timeout_s=30)
    filters = await proc.run(["ip", "netns", "exec", "a", "cat", "/proc/sys/net/ipv4/conf/all/rp_filter"])
    assert filters.stdout.strip() == "1"
