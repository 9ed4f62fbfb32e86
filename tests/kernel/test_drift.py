"""Drift of what is ours is repaired; what is not ours survives everything that is done beside it."""

import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from crossns import proc
from crossns.testing.device import Device, doc, wait_until
from crossns.testing.lab import Lab
from tests.kernel.view import addresses, bridge, do, ip, link, make_drifting, reaches, routes

pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]


@pytest.mark.parametrize(
    "drift",
    [
        ["ip", "-n", "a", "address", "del", "10.0.0.1/24", "dev", "lan"],
        ["ip", "-n", "a", "route", "del", "default"],
        ["ip", "-n", "a", "link", "del", "br0"],
        ["ip", "-n", "a", "link", "set", "lan", "down"],
        ["ip", "-n", "a", "link", "set", "br0", "name", "other"],
        ["ip", "-n", "a", "address", "flush", "dev", "br0"],
        ["ip", "netns", "exec", "a", "sysctl", "-qw", "net.ipv4.ip_nonlocal_bind=0"],
        ["ip", "netns", "delete", "a"],
    ],
    ids=lambda argv: " ".join(argv[1:]),
)
async def test_drift_is_repaired(device: Device, lab: Lab, drift: list[str]) -> None:
    await make_drifting(device, lab)
    await do(*drift)

    async def is_repaired() -> bool:
        if not Path("/run/netns/a").exists():
            return False
        down = await link("lan", "a")
        return (
            down is not None
            and "UP" in down["flags"]
            and await addresses("lan", "a") == {"10.0.0.1/24"}
            and await addresses("br0", "a") == {"10.8.0.1/24"}
            and await routes("a") == {"default"}
            and (await proc.run(["ip", "netns", "exec", "a", "cat", "/proc/sys/net/ipv4/ip_nonlocal_bind"])).stdout == "1\n"
        )

    if "sysctl" in drift:
        # Nobody tells of it: it is found at the next look, which a link that comes or goes brings about.
        await do("ip", "-n", "a", "link", "set", "br0", "down")
    await wait_until(is_repaired)


async def test_deleted_name_of_a_quiet_namespace_is_put_back(device: Device) -> None:
    """Nothing happens in the namespace itself: only the launcher sees it."""
    await device.apply(doc("routeTables/a"))
    await do("ip", "netns", "delete", "a")
    await wait_until(lambda: Path("/run/netns/a").exists(), timeout_s=10)


async def test_namespace_whose_name_was_deleted_comes_back_with_everything_in_it(device: Device, lab: Lab) -> None:
    await make_drifting(device, lab)
    host = lab.hosts["h"]
    before = (await device.client.get("routeTables/a")).status.netns_cookie  # type: ignore[union-attr]
    await do("ip", "netns", "delete", "a")
    assert await reaches(host, "10.0.0.1")
    await wait_until(lambda: Path("/run/netns/a").exists())
    assert (await device.client.get("routeTables/a")).status.netns_cookie == before  # type: ignore[union-attr]


@contextlib.asynccontextmanager
async def planted(table: str) -> AsyncIterator[None]:
    """Foreign things in the table, which hold its deletion as long as they are there."""
    await plant(table)
    try:
        yield
    finally:
        await do("ip", "-n", table, "link", "del", "foreign0")


async def plant(table: str) -> None:
    inside = ["ip", "-n", table]
    await do(*inside, "link", "add", "foreign0", "type", "bridge")
    await do(*inside, "link", "set", "foreign0", "up")
    await do(*inside, "address", "add", "10.99.0.1/24", "dev", "foreign0")
    await do(*inside, "address", "add", "10.0.0.77/24", "dev", "lan")
    await do(*inside, "route", "add", "198.51.100.0/24", "via", "10.99.0.2", "proto", "static")
    rules = (
        "add table inet foreign; add chain inet foreign c { type filter hook input priority 0; }; add rule inet foreign c counter"
    )
    await do("ip", "netns", "exec", table, "nft", rules)


async def is_planted(table: str) -> bool:
    found = await link("foreign0", table)
    nft = await proc.run(["ip", "netns", "exec", table, "nft", "list", "tables"])
    foreign = [each["dst"] for each in await ip("-4", "route", "show", "proto", "static", table=table)]
    return (
        found is not None
        and await addresses("foreign0", table) == {"10.99.0.1/24"}
        and "10.0.0.77/24" in await addresses("lan", table)
        and foreign == ["198.51.100.0/24"]
        and "inet foreign" in nft.stdout
    )


async def test_foreign_links_addresses_routes_and_firewalls_survive_everything(device: Device, lab: Lab) -> None:
    await make_drifting(device, lab)
    async with planted("a"):
        await device.delete("routeTables/a/routes/r", "interfaces/br")
        await device.apply(bridge("z", addresses=["10.3.0.1/24"]))
        assert await is_planted("a")
        card: dict[str, Any] = {"routeTable": "routeTables/a", "linkName": "lan", "physical": {"linkName": "card-a"}}
        await device.apply(doc("interfaces/a-lan", **card, addresses=["10.0.9.1/24"]))
        assert await addresses("lan", "a") == {"10.0.0.77/24", "10.0.9.1/24"}
        undeclared = (await device.wait_until_state("routeTables/a", "READY")).status.undeclared_links  # type: ignore[union-attr]
        assert undeclared == ["foreign0"]


async def test_foreign_things_survive_deletions_that_were_asked_while_nsmanager_was_down(device: Device, lab: Lab) -> None:
    await make_drifting(device, lab)
    async with planted("a"):
        await device.delete("routeTables/a/routes/r", "interfaces/br", wait=False)
        await device.kill("nsmanager")

        async def is_done() -> bool:
            return await link("br0", "a") is None and await routes("a") == set()

        await wait_until(is_done)
        assert await is_planted("a")


async def test_foreign_link_of_a_wanted_name_is_left_alone_and_reported(device: Device) -> None:
    await device.apply(doc("routeTables/a"))
    await do("ip", "-n", "a", "link", "add", "x0", "type", "bridge")
    await device.apply(bridge("x", linkName="x0"), wait=False)
    found = await device.wait_until_state("interfaces/x", "ERROR")
    assert found.status.conditions[0].reason == "FOREIGN_OBJECT"
    await do("ip", "-n", "a", "link", "del", "x0")
    await device.wait_until_state("interfaces/x", "READY")


async def test_card_that_lost_its_namespace_its_name_and_its_mark_is_found_by_its_mac_address(device: Device, lab: Lab) -> None:
    await make_drifting(device, lab)
    await do("ip", "-n", "a", "link", "property", "del", "dev", "lan", "altname", "interfaces.a-lan", "altname", "was.card-a")
    await do("ip", "-n", "a", "link", "set", "lan", "name", "other", "netns", "1")
    await wait_until(lambda: _is_back("a"))
    await device.delete("interfaces/a-lan", "routeTables/a/routes/r", wait=False)
    await device.delete("interfaces/br")
    await wait_until(lambda: _is_back("", "card-a"))


async def test_card_that_was_let_out_while_nsmanager_was_down_is_pulled_back_by_the_next(device: Device, lab: Lab) -> None:
    """Its namespace, its name and its mark are gone, and the process that has seen it; what it was stands in its status."""
    await make_drifting(device, lab)
    stopped = device.pid("nsmanager")
    os.kill(stopped, signal.SIGSTOP)
    try:
        await do("ip", "-n", "a", "link", "property", "del", "dev", "lan", "altname", "interfaces.a-lan", "altname", "was.card-a")
        await do("ip", "-n", "a", "link", "set", "lan", "name", "other", "netns", "1")
        await _remove_namespace(device, "a")
    finally:
        os.kill(stopped, signal.SIGKILL)
    await wait_until(lambda: Path("/run/netns/a").exists())
    await wait_until(lambda: _is_back("a"))
    await device.wait_until_state("interfaces/a-lan", "READY")


async def _remove_namespace(device: Device, table: str) -> None:
    """All that holds it: its name, what engines are shown of it, its agent."""
    (shown,) = device.layout.incarnations.glob(f"{table}.*")
    agent = device.pid(f"agent {table}")
    await do("ip", "netns", "delete", table)
    await do("umount", str(shown))
    shown.unlink()
    with contextlib.suppress(ProcessLookupError):
        os.kill(agent, signal.SIGKILL)


async def test_card_that_is_missing_is_known_when_it_comes_back_to_another_nsmanager(device: Device, lab: Lab) -> None:
    await make_drifting(device, lab)
    await do("ip", "-n", "a", "link", "property", "del", "dev", "lan", "altname", "interfaces.a-lan", "altname", "was.card-a")
    await do("ip", "netns", "add", "away")
    try:
        await do("ip", "-n", "a", "link", "set", "lan", "name", "other", "netns", "away")
        await wait_until(lambda: _is_missing(device))
        await device.kill("nsmanager")
        await wait_until(device.serves)
        assert await _is_missing(device)
    finally:
        await do("ip", "-n", "away", "link", "set", "other", "netns", "1")
        await do("ip", "netns", "delete", "away")
    await wait_until(lambda: _is_back("a"))


async def _is_back(table: str, name: str = "lan") -> bool:
    found = await link(name, table)
    return found is not None and (not table or await addresses(name, table) == {"10.0.0.1/24"})


async def test_card_that_is_gone_with_its_namespace_is_reported_missing(device: Device, lab: Lab) -> None:
    await make_drifting(device, lab)
    await lab.remove(lab.hosts["h"])
    await wait_until(lambda: _is_missing(device))


async def _is_missing(device: Device) -> bool:
    condition = (await device.client.get("interfaces/a-lan")).status.conditions[0]
    return condition.reason == "LINK_MISSING" and "plug it in" in condition.message
