"""VIPs and ports of vServices in the real kernel: where an address is and how its neighbours hear of it, ranges of ports, and
what belongs to whom.
"""

import asyncio
import contextlib
import ipaddress
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from crossns import errors
from crossns.testing.device import Device, doc
from crossns.testing.lab import Cable, Host, Lab
from tests.kernel.client import VIP, VIP6, Dial, backend, dial, single
from tests.kernel.privileged import socket_in
from tests.kernel.test_proxy import NETWORKS, A, B, frontend, is_refused, is_served, plug, served_by, vservice
from tests.kernel.view import addresses, ip, link

__all__ = ["dial"]  # a fixture
pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]

# linux/if_ether.h
_ETH_P_ALL = 0x0003
_ARP, _IPV6 = b"\x08\x06", b"\x86\xdd"
_ICMPV6, _NEIGHBOR_ADVERTISEMENT = 58, 136
# The MAC address of the device's card.
CARD_MAC, OTHER_MAC = "02:00:00:00:00:01", "02:00:00:00:00:99"
# A new address is announced by the time that it is said to be there, and again 2 s later (RFC 5227, 2.3).
AT_ONCE_S, ONCE_MORE_S = 0.5, 2.5
# As addresses of a link.
ENTIRE = {f"{VIP}/32", f"{VIP6}/128"}


def announced(frame: bytes) -> tuple[str, str] | None:
    """(address, MAC) of an announcement to everybody: a gratuitous ARP (RFC 5227), an unsolicited NA (RFC 4861, 7.2.6)."""
    kind, rest = frame[12:14], frame[14:]
    if kind == _ARP and rest[14:18] == rest[24:28]:
        return str(ipaddress.ip_address(rest[14:18])), rest[8:14].hex(":")
    if kind == _IPV6 and rest[6] == _ICMPV6 and rest[40] == _NEIGHBOR_ADVERTISEMENT and rest[24] == 0xFF:
        # An NA's one option is the link-layer address (type 2, of 8 bytes).
        return str(ipaddress.ip_address(rest[48:64])), rest[66:72].hex(":")
    return None


@contextlib.asynccontextmanager
async def listening(host: Host) -> AsyncIterator[Callable[..., Awaitable[dict[str, str]]]]:
    """Hears what is announced on the host's link; call it with addresses to wait for all of them, and the MAC address of each."""
    loop = asyncio.get_running_loop()
    with socket_in(host.namespace, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL)) as ear:
        ear.setblocking(False)  # noqa: FBT003 - the name of the parameter is the method's

        async def hear(*wanted: str, within_s: float = AT_ONCE_S) -> dict[str, str]:
            heard: dict[str, str] = {}
            async with asyncio.timeout(within_s):
                while not heard.keys() >= set(wanted):
                    told = announced(await loop.sock_recv(ear, 2048))
                    heard |= [told] if told is not None and told[0] in wanted else []
            return heard

        yield hear


def lan(table: str, *given: str) -> str:
    """The interface of `plug`, with addresses of choice."""
    return doc(
        f"interfaces/{table}-lan",
        routeTable=f"routeTables/{table}",
        linkName="lan",
        physical={"linkName": f"card-{table}"},
        addresses=given,
    )


async def neighbor(host: Host, address: str) -> str:
    """The MAC address that the host takes `address` to have; "" for none."""
    shown = await host.run(["ip", "-json", "neighbor", "show", address])
    return next((each.get("lladdr", "") for each in json.loads(shown.check().stdout or "[]")), "")


async def test_a_vip_stays_until_its_last_vservice_goes(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "a")
    first = vservice("first", frontend("fe", "dmz", VIP, 80), main=[A])
    second = vservice("second", frontend("fe", "dmz", VIP, 81), frontend("too", "dmz", VIP, 82), main=[A])
    await device.apply(first, second)
    assert f"{VIP}/32" in await addresses("lan", "dmz")
    before = await device.kernel_writes("dmz")
    await device.delete("vServices/first")
    # It has not even been away for a moment.
    assert (await device.kernel_writes("dmz"))["dmz"] == before["dmz"]
    assert f"{VIP}/32" in await addresses("lan", "dmz")
    assert await is_served(lab.hosts["dmz"], f"{VIP}:81")
    # One of its own two goes.
    await device.apply(vservice("second", frontend("fe", "dmz", VIP, 81), main=[A]))
    assert await is_served(lab.hosts["dmz"], f"{VIP}:81")
    await device.delete("vServices/second")
    assert f"{VIP}/32" not in await addresses("lan", "dmz")
    assert "203.0.113.1/24" in await addresses("lan", "dmz")


async def test_a_vip_that_no_link_holds_is_on_the_loopback_and_is_served_over_a_gateway(device: Device, lab: Lab) -> None:
    await plug(device, lab, "a")
    host = await lab.host("far", Cable("card-dmz"), ["10.7.0.9/24"], ["10.7.0.1"])
    await device.apply(doc("routeTables/dmz"), lan("dmz", "10.7.0.1/24"), single(A))
    assert f"{VIP}/32" in await addresses("lo", "dmz")
    assert set(await served_by(host, VIP)) == {"a"}


async def test_vips_move_to_the_link_that_comes_to_hold_them_and_are_announced(device: Device, lab: Lab) -> None:
    await plug(device, lab, "a")
    frontends = frontend("four", "dmz", VIP), frontend("six", "dmz", VIP6)
    await device.apply(doc("routeTables/dmz"), vservice("web", *frontends, main=[A]))
    assert await addresses("lo", "dmz") >= ENTIRE
    host = await lab.host("dmz", Cable("card-dmz", card_mac=CARD_MAC), NETWORKS["dmz"][1])
    async with listening(host) as hear:
        await device.apply(lan("dmz", *NETWORKS["dmz"][0]))
        assert await hear(VIP, VIP6) == {VIP: CARD_MAC, VIP6: CARD_MAC}
    assert await addresses("lan", "dmz") >= ENTIRE
    assert not ENTIRE & await addresses("lo", "dmz")
    assert await is_served(host, VIP)
    assert await is_served(host, f"[{VIP6}]")
    # And back where they were when the link goes.
    await device.delete("interfaces/dmz-lan")
    assert await addresses("lo", "dmz") >= ENTIRE


async def test_new_vips_are_announced_and_replace_what_neighbours_knew(device: Device, lab: Lab) -> None:
    """Such as of an appliance that had the addresses before."""
    await plug(device, lab, "dmz", "a")
    host = lab.hosts["dmz"]
    known = (f"neighbor replace {vip} lladdr {OTHER_MAC} dev eth0 nud stale" for vip in (VIP, VIP6))
    await host.configure(*known)
    card = await link("lan", "dmz")
    assert card is not None
    async with listening(host) as hear:
        await device.apply(vservice("web", frontend("four", "dmz", VIP), frontend("six", "dmz", VIP6), main=[A]))
        assert await hear(VIP, VIP6) == dict.fromkeys((VIP, VIP6), card["address"])
    for vip, target in ((VIP, VIP), (VIP6, f"[{VIP6}]")):
        assert await neighbor(host, vip) == card["address"]
        assert await is_served(host, target)


async def test_vips_that_stay_are_announced_once_more(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "a")
    async with listening(lab.hosts["dmz"]) as hear:
        await device.apply(vservice("web", frontend("four", "dmz", VIP), frontend("six", "dmz", VIP6), main=[A]))
        told = await hear(VIP, VIP6)
        assert await hear(VIP, VIP6, within_s=ONCE_MORE_S) == told


@pytest.mark.parametrize("vip", [VIP, VIP6])
async def test_a_vip_that_goes_at_once_is_not_announced_once_more(device: Device, lab: Lab, vip: str) -> None:
    """Somebody else may have it by then."""
    await plug(device, lab, "dmz", "a")
    async with listening(lab.hosts["dmz"]) as hear:
        await device.apply(single(A, entry={"address": vip}))
        await hear(vip)
        await device.delete("vServices/web")
        with pytest.raises(TimeoutError):
            await hear(vip, within_s=ONCE_MORE_S)


async def test_vips_in_two_tables_are_told_of_at_each_change(device: Device, lab: Lab) -> None:
    """Two tables tell of one vService at the same time: neither takes back what the other has said."""
    await plug(device, lab, "a", "b")
    frontends = [frontend(table, table, "10.0.0.10") for table in ("a", "b")]
    for weight in range(1, 41):
        await device.apply(vservice("web", *frontends, main=[{**A, "weight": weight}]))


async def test_an_announced_vip_is_added_to_its_link_but_once(device: Device, lab: Lab) -> None:
    """A host route of its own, whatever else the link holds: no second network, no other source address."""
    await plug(device, lab, "dmz", "a")
    await device.apply(single(A), vservice("other", frontend("fe", "dmz", VIP, 81), main=[A]))
    shown = await ip("address", "show", "dev", "lan", table="dmz")
    found = [each for each in shown[0]["addr_info"] if each["local"] == VIP]
    assert [each["prefixlen"] for each in found] == [32]
    assert (await ip("route", "get", "203.0.113.9", table="dmz"))[0]["prefsrc"] == "203.0.113.1"


async def test_each_port_of_a_range_leads_to_the_same_port_of_its_member(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "a", "b")
    for port in (8000, 8003):
        for table in ("a", "b"):
            await backend(lab.hosts[table], f"{table}{port}", f"10.0.0.5:{port}")
    members = {**A, "port": 0}, {**B, "port": 0}
    for protocol in ("TCP", "HTTP"):
        await device.apply(single(*members, protocol=protocol, entry={"port": 8000, "endPort": 8003}))
        for port in (8000, 8003):
            assert sorted(await served_by(lab.hosts["dmz"], f"{VIP}:{port}", 4)) == sorted([f"a{port}", f"b{port}"] * 2)
        for port in (7999, 8004):
            assert await is_refused(lab.hosts["dmz"], f"{VIP}:{port}")


async def test_a_range_leads_to_one_port_where_its_member_has_one(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "a")
    await device.apply(single(A, entry={"address": VIP6, "port": 60000, "endPort": 61023}))
    for port in (60000, 60500, 61023):
        assert set(await served_by(lab.hosts["dmz"], f"[{VIP6}]:{port}", 2)) == {"a"}


async def test_a_range_that_shrinks_gives_its_ports_back(device: Device, lab: Lab, dial: Dial) -> None:
    await plug(device, lab, "dmz", "a", "b")
    await device.apply(single(A, entry={"port": 8000, "endPort": 8003}))
    last = await dial(lab.hosts["dmz"], f"{VIP}:8003")
    assert await last.name() == "a"
    await device.apply(single(A, entry={"port": 8000, "endPort": 8001}))
    assert await is_refused(lab.hosts["dmz"], f"{VIP}:8003")
    await device.apply(vservice("other", frontend("fe", "dmz", VIP, 8003), main=[B]))
    assert set(await served_by(lab.hosts["dmz"], f"{VIP}:8003")) == {"b"}
    # Whoever was served there still is.
    assert await last.name() == "a"


async def test_ports_of_a_vip_belong_to_one_vservice(device: Device) -> None:
    await device.apply(doc("routeTables/dmz"), doc("routeTables/a"))
    await device.apply(single(A, entry={"port": 80, "endPort": 89}))

    def second(port: int, end_port: int) -> str:
        return vservice("second", frontend("fe", "dmz", VIP, port) | {"endPort": end_port}, main=[A])

    for ports in ((80, 0), (89, 0), (85, 86), (70, 80), (89, 99), (70, 99)):
        with pytest.raises(errors.AlreadyExists, match="vServices/web") as raised:
            await device.apply(second(*ports), wait=False)
        assert raised.value.reason == "VIP_TAKEN"
    # Each in the place of the one before.
    for ports in ((90, 99), (70, 79), (79, 0), (90, 0)):
        await device.apply(second(*ports))


async def test_the_same_vip_and_port_belong_to_another_vservice_in_another_table(device: Device, lab: Lab) -> None:
    await plug(device, lab, "a", "b")
    for table, member in (("a", B), ("b", A)):
        await device.apply(vservice(f"in-{table}", frontend("fe", table, "10.0.0.10", 80), main=[member]))
    assert set(await served_by(lab.hosts["a"], "10.0.0.10")) == {"b"}
    assert set(await served_by(lab.hosts["b"], "10.0.0.10")) == {"a"}


async def test_a_refused_change_leaves_the_vservice_serving_as_it_was(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "a", "b")
    other = vservice("other", frontend("fe", "dmz", VIP, 81), main=[B])
    await device.apply(single(A), other)
    with pytest.raises(errors.AlreadyExists):
        await device.apply(single(B, entry={"port": 80, "endPort": 81}), wait=False)
    assert set(await served_by(lab.hosts["dmz"], VIP)) == {"a"}
    assert set(await served_by(lab.hosts["dmz"], f"{VIP}:81")) == {"b"}
