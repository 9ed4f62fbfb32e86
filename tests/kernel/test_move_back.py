"""A move that fails at any of its steps leaves everything as it was, to the last word that the kernel has about it."""

import asyncio
import functools
import random
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from crossns import errors
from crossns.testing.device import Device, doc, wait_until
from crossns.testing.lab import Cable, Lab
from tests.kernel import relay
from tests.kernel.things import every_word, move, settled, without_dad, without_ipv6
from tests.kernel.view import bridge, do, table_with_card
from tests.raw import raw

pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]

# Of each kind what makes it hard to put back: an attribute that nobody else needs, another link, something it stands on.
FOREIGN = """address add 10.44.0.1/24 dev lan label lan:x valid_lft 5000 preferred_lft 4000
address add 10.46.0.1 peer 10.46.0.2 dev lan metric 5
address add 2001:db8:44::1/64 dev lan noprefixroute
neighbor add 10.0.0.77 lladdr 02:00:00:00:00:77 dev lan nud permanent
neighbor add proxy 10.0.0.78 dev lan
neighbor add 2001:db8::77 lladdr 02:00:00:00:00:77 dev lan nud permanent
route add 10.45.0.0/24 dev lan
route add 10.47.0.0/16 via 10.44.0.9 metric 7 mtu lock 1300 proto 55 table 77
route add 10.48.0.0/16 via 10.66.0.9 dev lan onlink src 10.44.0.1
route add 10.48.0.0/16 via 10.0.0.8 dev lan metric 3 tos 0x10
route add 10.49.0.0/16 nexthop via 10.0.0.9 weight 2 nexthop via 10.8.0.9
route add 10.50.0.0/16 via 10.8.0.9 src 10.44.0.1
route add local 10.51.0.0/16 dev lan table 78
route add 2001:db8:a::/48 nexthop via 2001:db8::9 nexthop via 2001:db8:8::9 weight 3
route add 2001:db8:b::/48 via 2001:db8::9 expires 3000 pref high
nexthop add id 5 via 10.0.0.9 dev lan
nexthop add id 6 via 10.8.0.9 dev br0
nexthop add id 7 group 5/6,3
route add 10.52.0.0/16 nhid 7
route add 10.53.0.0/16 nhid 5
rule add priority 66 iif lan lookup 66"""

# What the move of that interface takes, and who is asked for it.
STEPS = (
    ("a", "MoveLink("),
    ("b", "SetLink("),
    ("b", "AddAddress(link='lan', prefix='10.0"),
    ("b", "AddAddress(link='lan', prefix='2001"),
    ("b", "PutRule("),
    ("b", "PutRoute("),
    ("b", "PutNeighbor("),
)


@pytest_asyncio.fixture(loop_scope="module", name="lan")
async def card_with_much_of_others(device: Device, lab: Lab) -> AsyncIterator[str]:
    await lab.host("h", Cable("card-a"), ["10.0.0.6/24"])
    await device.apply(doc("routeTables/a"), doc("routeTables/b"))
    await without_dad("a", "b")
    via = [{"address": "10.0.0.254"}]
    await device.apply(
        table_with_card("a", "card-a", "10.0.0.1/24", "2001:db8::1/64")[1],
        bridge("br", linkName="br0", addresses=["10.8.0.1/24", "2001:db8:8::1/64"]),
        doc("routeTables/a/routes/r", destination="0.0.0.0/0", gateways=via),
        doc("routeTables/a/rules/u", interface="interfaces/a-lan", priority=77, family="IPV4", kernelTable=100),
        doc("routeTables/a/neighbors/n", interface="interfaces/a-lan", address="10.0.0.9", macAddress="02:00:00:00:00:09"),
    )
    for command in FOREIGN.splitlines():
        await do("ip", "-n", "a", *command.split())
    yield "a-lan"
    await do("ip", "-n", "a", "rule", "delete", "priority", "66")


async def _becomes(expected: frozenset[str], *tables: str) -> None:
    """The kernel, within a while; tells the difference otherwise."""

    async def is_so() -> bool:
        return await every_word(*tables) == expected

    try:
        await wait_until(is_so, timeout_s=8)
    except TimeoutError:
        now = await every_word(*tables)
        pytest.fail(f"come: {sorted(now - expected)}; gone: {sorted(expected - now)}")


async def test_whichever_step_of_a_move_fails_everything_is_as_it_was(
    device: Device, lan: str, dice: random.Random, count: Callable[[int, int], int]
) -> None:
    async with relay.between(device, "a", "b") as fate:
        before, stored = await settled(lambda: every_word("a", "b", "default")), await raw(device)
        for table, beginning in dice.sample(STEPS, count(3, len(STEPS))):
            fate.begin(table, beginning)
            with pytest.raises(errors.PermanentError) as caught:
                await move(device, lan, "b")
            assert fate.is_met, beginning
            assert caught.value.message.endswith("everything is as it was"), beginning
            await _becomes(before, "a", "b", "default")
            assert await raw(device) == stored


async def test_nsmanager_that_dies_before_all_is_given_back_gives_it_back_when_it_returns(device: Device, lan: str) -> None:
    await without_ipv6("b")
    async with relay.between(device, "a") as fate:
        before, stored = await settled(lambda: every_word("a", "b", "default")), await raw(device)
        fate.begin("a", "GiveBack(")
        moving = asyncio.create_task(move(device, lan, "b"))
        await wait_until(lambda: fate.is_met)
        assert await every_word("a") != {each for each in before if each.startswith("a:")}
        fate.begin("", "")
        await device.kill("nsmanager")
        with pytest.raises(errors.CrossnsError):
            await moving
        await _becomes(before, "a", "b", "default")
        await wait_until(functools.partial(_is_stored, device, stored))


async def _is_stored(device: Device, stored: dict[str, str]) -> bool:
    return await raw(device) == stored


async def test_virtual_link_that_could_not_be_made_anew_elsewhere_is_what_it_was(device: Device, lan: str) -> None:
    """With its MAC address, and with what others have on it and on a link above it."""
    assert lan
    await device.apply(
        doc("interfaces/vx", routeTable="routeTables/a", linkName="vx", vxlan={"vni": 7}, addresses=["10.9.0.1/24"]),
        doc("interfaces/mv", routeTable="routeTables/a", linkName="mv", macvlan={"parent": "interfaces/vx"}),
    )
    for command in (
        "address add 10.80.0.1/24 dev vx",
        "address add 10.81.0.1/24 dev mv",
        "route add 10.82.0.0/16 via 10.81.0.9 src 10.80.0.1",
        "neighbor add 10.81.0.9 lladdr 02:00:00:00:00:81 dev mv nud permanent",
    ):
        await do("ip", "-n", "a", *command.split())
    async with relay.between(device, "b") as fate:
        before, stored = await settled(lambda: every_word("a", "b")), await raw(device)
        fate.begin("b", "AddAddress(")
        with pytest.raises(errors.PermanentError) as caught:
            await move(device, "vx", "b")
        assert caught.value.message.endswith("everything is as it was")
        await _becomes(before, "a", "b")
        await wait_until(functools.partial(_is_stored, device, stored))
