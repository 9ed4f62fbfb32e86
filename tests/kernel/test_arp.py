"""Neighbours, ARP behaviour and the reverse-path filter of route tables in the real kernel, with real packets."""

from pathlib import Path

import pytest

from crossns import proc
from crossns.testing.device import Device, doc, wait_until
from crossns.testing.lab import Cable, Host, Lab
from tests.kernel import datagram
from tests.kernel.view import do, link, reaches
from tests.kernel.ways import SERVER_MAC, TABLE, card, is_answered, neighbor, state_of, two_ways

pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]


async def silent_server(device: Device, lab: Lab) -> Host:
    """A host that answers no ARP request and no other, so that only who knows its MAC address reaches it."""
    await two_ways(device, lab)
    server = lab.hosts["two"]
    (await server.run(["sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=8"])).check()
    await server.configure("link set eth0 address " + SERVER_MAC, "neighbor flush dev eth0")
    # The table may have learned it when the server spoke.
    await do("ip", "-n", "a", "neighbor", "flush", "dev", "two")
    await do("ip", "netns", "exec", "a", "sysctl", "-qw", "net.ipv4.neigh.two.retrans_time_ms=50")
    return server


async def test_static_neighbour_is_used_where_nobody_answers(device: Device, lab: Lab) -> None:
    server = await silent_server(device, lab)
    client = lab.hosts["client"]
    assert not await is_answered(TABLE, "10.2.0.6", lambda: datagram.send(client, "10.1.0.6", "10.2.0.6"))
    await device.apply(neighbor(address="10.2.0.6", interface="interfaces/two", macAddress=SERVER_MAC.upper()))
    assert await state_of(TABLE, "10.2.0.6") == ["PERMANENT"]
    with datagram.ears({"two": server.namespace}, "10.2.0.6") as ears:
        assert await datagram.taken_by(client, "10.1.0.6", "10.2.0.6", ears) == "two"
    await device.delete("routeTables/a/neighbors/n")
    assert "PERMANENT" not in await state_of(TABLE, "10.2.0.6")


@pytest.mark.parametrize(("behind", "version"), [("10.1.0.9", 4), ("2001:db8:1::9", 6)])
async def test_table_answers_for_an_address_that_is_behind_it(device: Device, lab: Lab, behind: str, version: int) -> None:
    """Proxy ARP and ND: the address is of the client's own subnet, and behind another interface."""
    client = await two_ways(device, lab)
    length = 32 if version == 4 else 128
    server = lab.hosts["two"]
    back = "10.2.0.1" if version == 4 else "2001:db8:2::1"
    # A route takes no source that is tentative still.
    at_once = "" if version == 4 else " nodad"
    await server.configure(
        f"addr add {behind}/{length} dev eth0{at_once}", f"route add default via {back} dev eth0 src {behind} onlink"
    )
    way = {"interface": "interfaces/two"}
    await device.apply(doc("routeTables/a/routes/behind", destination=f"{behind}/{length}", gateways=[way]))
    retrans = f"net.ipv{version}.neigh.eth0.retrans_time_ms=50"
    (await client.run(["sysctl", "-qw", retrans])).check()

    def ask() -> None:
        datagram.send(client, "10.1.0.6" if version == 4 else "2001:db8:1::6", behind)

    assert not await is_answered(client.namespace, behind, ask)
    await device.apply(neighbor(address=behind, interface="interfaces/one", proxy=True))
    (await client.run(["sysctl", "-qw", retrans.replace("=50", "=1000")])).check()
    await wait_until(lambda: reaches(client, behind))
    await device.delete("routeTables/a/neighbors/n")
    (await client.run(["sysctl", "-qw", retrans])).check()
    await client.configure("neighbor flush dev eth0")
    assert not await is_answered(client.namespace, behind, ask)


async def test_proxy_entry_in_a_table_that_does_not_forward_says_what_to_do(device: Device, lab: Lab) -> None:
    await lab.host("client", Cable("one"), ["10.1.0.6/24"])
    await device.apply(doc("routeTables/a"), card("one", "10.1.0.1/24"))
    await device.apply(neighbor(address="10.1.0.9", interface="interfaces/one", proxy=True), wait=False)
    found = await device.wait_until_state("routeTables/a/neighbors/n", "DEGRADED")
    assert found.status.conditions[0].reason == "FORWARDING_OFF"
    await device.apply(doc("routeTables/a", forwarding=True))
    await device.wait_until_state("routeTables/a/neighbors/n", "READY")


async def arp_answers(client: Host, address: str) -> bool:
    """Whether the client's ARP request is answered on its own link."""
    await client.configure("neighbor flush dev eth0", f"route replace {address}/32 dev eth0")
    return await is_answered(client.namespace, address, lambda: datagram.send(client, "10.1.0.6", address))


async def test_arp_ignore_does_not_answer_for_an_address_of_another_link(device: Device, lab: Lab) -> None:
    client = await two_ways(device, lab)
    (await client.run(["sysctl", "-qw", "net.ipv4.neigh.eth0.retrans_time_ms=200"])).check()
    assert await arp_answers(client, "10.2.0.1")
    await device.apply(doc("routeTables/a", forwarding=True, arp={"ignore": "OTHER_LINK"}))
    assert not await arp_answers(client, "10.2.0.1")
    assert await arp_answers(client, "10.1.0.1")
    await device.apply(doc("routeTables/a", forwarding=True))
    assert await arp_answers(client, "10.2.0.1")


async def filtered() -> int:
    """How many packets the table's reverse-path filter has dropped."""
    text = (await proc.run(["ip", "netns", "exec", "a", "cat", "/proc/self/net/netstat"])).check().stdout
    lines = [line.split() for line in text.splitlines() if line.startswith("TcpExt:")]
    return int(dict(zip(*lines, strict=True))["IPReversePathFilter"])


async def is_dropped(client: Host, source: str) -> bool:
    """Whether the table drops what the client sends it from that source."""
    with datagram.ears({"a": TABLE}, "10.1.0.1") as ears:
        before, words = await filtered(), source.encode()
        datagram.send(client, source, "10.1.0.1", words)

        async def is_decided() -> bool:
            return datagram.heard(ears["a"], words) or await filtered() > before

        await wait_until(is_decided)
        return await filtered() > before


async def test_reverse_path_filter_drops_what_comes_by_the_wrong_link(device: Device, lab: Lab) -> None:
    """Also where a link was set loose before, or is while somebody looks away: the kernel takes the higher value."""
    client = await two_ways(device, lab)
    # One is of another link's subnet, the other of none.
    await client.configure("addr add 10.2.0.66/32 dev eth0", "addr add 198.51.100.9/32 dev eth0")
    # An ARP request with such a sender is not answered either: what is looked at is the packet.
    one = await link("one", "a")
    assert one is not None
    await client.configure(f"neighbor replace 10.1.0.1 lladdr {one['address']} dev eth0 nud permanent")
    outcomes = {}
    for mode in ("OFF", "LOOSE", "STRICT"):
        await device.apply(doc("routeTables/a", forwarding=True, reversePathFilter=mode))
        outcomes[mode] = [await is_dropped(client, source) for source in ("10.1.0.6", "10.2.0.66", "198.51.100.9")]
    assert outcomes == {"OFF": [False, False, False], "LOOSE": [False, False, True], "STRICT": [False, True, True]}
    await do("ip", "netns", "exec", "a", "sysctl", "-qw", "net.ipv4.conf.one.rp_filter=2")
    assert not await is_dropped(client, "10.2.0.66")
    # Nobody tells of a sysctl: it is found at the next look, which a change of a link brings about.
    await do("ip", "-n", "a", "link", "set", "lo", "multicast", "on")
    await wait_until(lambda: is_dropped(client, "10.2.0.66"))


async def test_default_keeps_its_own_arp_and_filter_unless_it_is_asked(device: Device) -> None:
    names = [f"net/ipv4/conf/{scope}/{name}" for scope in ("all", "default", "lo") for name in ("rp_filter", "arp_ignore")]
    before = {name: Path("/proc/sys", name).read_text() for name in names}
    await do("sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=2", "net.ipv4.conf.lo.rp_filter=2")
    try:
        await device.apply(doc("routeTables/default", description="looked at", reversePathFilter="STRICT"))
        shown = {name: Path("/proc/sys", name).read_text().strip() for name in names}
        assert [shown[f"net/ipv4/conf/{scope}/rp_filter"] for scope in ("all", "default", "lo")] == ["1", "1", "1"]
        assert shown["net/ipv4/conf/all/arp_ignore"] == "2"
    finally:
        await device.apply(doc("routeTables/default"))
        for name, value in before.items():
            Path("/proc/sys", name).write_text(value)
