"""Rules, neighbours and links' sysctls as an agent puts and removes them, beside those of others and of the kernel itself."""

from collections.abc import Callable

import pytest

from crossns import entry, operation, proc, sysctl
from crossns.agent import Agent
from crossns.testing.device import wait_until
from tests.kernel.privileged import Tree, address, agent, bridge, dump, ip, link, refusal, running_for_a_module, tree, writes

__all__ = ["agent", "running_for_a_module", "tree"]
pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]

MAC = "02:00:00:00:00:05"
# The kernel keeps at most 1024 neighbours in a namespace (gc_thresh3).
MANY = 900
RULES = (
    entry.Rule(family="inet", priority=100, source="10.1.0.0/16", kernel_table=100),
    entry.Rule(family="inet", priority=100, source="10.1.0.0/16", link="br0", kernel_table=100),
    entry.Rule(family="inet", priority=100, source="10.1.0.0/16", mark=1, mark_mask=0xFF, kernel_table=100),
    entry.Rule(family="inet", priority=100, source="10.1.0.0/16", destination="192.0.2.1/32", kernel_table=100),
    entry.Rule(family="inet", priority=101, kernel_table=2**32 - 1, link="absent0"),
    entry.Rule(family="inet", priority=32765, mark_mask=0xF0, action="blackhole"),
    entry.Rule(family="inet6", priority=1, source="2001:db8::/32", mark=7, mark_mask=2**32 - 1, action="unreachable"),
    entry.Rule(family="inet6", priority=1, action="prohibit"),
)
NEIGHBORS = (
    entry.Neighbor(link="br0", address="10.0.0.9", mac=MAC),
    entry.Neighbor(link="br0", address="2001:db8::9", mac=MAC),
    entry.Neighbor(link="br0", address="10.0.0.10", proxy=True),
    entry.Neighbor(link="br0", address="2001:db8::10", proxy=True),
)


async def ip_a(*arguments: str) -> str:
    return await ip("-netns", "a", *arguments)


async def linked(agent: Agent) -> None:
    await bridge(agent)
    await address(agent, "10.0.0.1/16")
    await address(agent, "2001:db8::1/64")


async def test_rules_of_every_shape_are_seen_as_they_were_put_and_removed_one_by_one(agent: Agent) -> None:
    """In whichever order: the kernel would take one that selects more for one that selects less."""
    await bridge(agent)
    kernels_own = [await ip_a(family, "rule", "show") for family in ("-4", "-6")]
    for ordered in (RULES, RULES[::-1]):
        for rule in ordered:
            await agent.call(entry.PutRule(rule=rule))
        before = await writes(agent)
        for rule in ordered:
            await agent.call(entry.PutRule(rule=rule))
        assert await writes(agent) == before
        left = set(RULES)
        for rule in RULES:
            seen = (await dump(agent)).rules
            assert (set(seen), len(seen)) == (left, len(left))
            left.remove(rule)
            for _ in range(2):
                await agent.call(entry.RemoveRule(rule=rule))
        assert (await dump(agent)).rules == ()
    assert [await ip_a(family, "rule", "show") for family in ("-4", "-6")] == kernels_own


async def test_foreign_rules_and_the_kernels_own_stay(agent: Agent) -> None:
    await bridge(agent)
    await ip_a("rule", "add", "pref", "100", "from", "10.1.0.0/16", "lookup", "100")
    planted = await ip_a("rule", "show")
    assert (await dump(agent)).rules == ()
    await agent.call(entry.RemoveRule(rule=RULES[0]))
    assert await ip_a("rule", "show") == planted
    await agent.call(entry.PutRule(rule=RULES[0]))
    await agent.call(entry.RemoveRule(rule=RULES[0]))
    assert await ip_a("rule", "show") == planted
    own = entry.Rule(family="inet", priority=32766, kernel_table=254)
    await agent.call(entry.RemoveRule(rule=own))
    assert await ip_a("rule", "show") == planted


async def test_neighbours_of_every_shape_are_seen_as_they_were_put_and_removed_one_by_one(agent: Agent) -> None:
    await linked(agent)
    for neighbor in NEIGHBORS:
        await agent.call(entry.PutNeighbor(neighbor=neighbor))
    before = await writes(agent)
    for neighbor in NEIGHBORS:
        await agent.call(entry.PutNeighbor(neighbor=neighbor))
    assert await writes(agent) == before
    left = set(NEIGHBORS)
    for neighbor in NEIGHBORS:
        assert set((await dump(agent)).neighbors) == left
        left.remove(neighbor)
        for _ in range(2):
            await agent.call(entry.RemoveNeighbor(neighbor=neighbor))
    assert (await dump(agent)).neighbors == ()
    assert await ip_a("neighbor", "show", "nud", "permanent") == ""


async def test_neighbour_that_the_kernel_has_learned_gives_way_to_ours(agent: Agent) -> None:
    await linked(agent)
    await ip_a("neighbor", "add", "10.0.0.9", "lladdr", "02:00:00:00:00:77", "dev", "br0", "nud", "reachable")
    assert (await dump(agent)).neighbors == ()
    await agent.call(entry.PutNeighbor(neighbor=NEIGHBORS[0]))
    assert (await dump(agent)).neighbors == (NEIGHBORS[0],)
    # Somebody lets the kernel forget it: that is seen, and mended.
    await ip_a("neighbor", "change", "10.0.0.9", "lladdr", MAC, "dev", "br0", "nud", "reachable")
    assert [each.permanent for each in (await dump(agent)).neighbors] == [False]
    await agent.call(entry.PutNeighbor(neighbor=NEIGHBORS[0]))
    assert (await dump(agent)).neighbors == (NEIGHBORS[0],)


@pytest.mark.parametrize("neighbor", NEIGHBORS, ids=lambda each: f"{each.address} proxy={each.proxy}")
async def test_foreign_neighbour_is_neither_replaced_nor_removed(agent: Agent, neighbor: entry.Neighbor) -> None:
    await linked(agent)
    if neighbor.proxy:
        await ip_a("neighbor", "add", "proxy", neighbor.address, "dev", "br0")
    else:
        await ip_a("neighbor", "add", neighbor.address, "lladdr", "02:00:00:00:00:77", "dev", "br0", "nud", "permanent")
    what = ["show", "proxy"] if neighbor.proxy else ["show", "nud", "permanent"]
    planted = await ip_a("neighbor", *what)
    assert neighbor.address in planted
    assert (await refusal(agent, entry.PutNeighbor(neighbor=neighbor))).reason == "FOREIGN_OBJECT"
    await agent.call(entry.RemoveNeighbor(neighbor=neighbor))
    assert await ip_a("neighbor", *what) == planted


async def test_neighbour_on_a_link_that_is_missing_says_which(agent: Agent) -> None:
    refused = await refusal(agent, entry.PutNeighbor(neighbor=NEIGHBORS[0]))
    assert (refused.reason, refused.metadata["link"]) == ("LINK_MISSING", "br0")
    await agent.call(entry.RemoveNeighbor(neighbor=NEIGHBORS[0]))


async def test_links_own_sysctls_are_seen_and_set(agent: Agent) -> None:
    await bridge(agent, "br.0")
    for name in ("arp_ignore", "arp_announce", "arp_filter", "rp_filter", "proxy_ndp"):
        await agent.call(sysctl.SetLinkSysctl(link="br.0", name=name, value="1"))
        assert (await link(agent, "br.0")).sysctls == {name: "1"}
        await agent.call(sysctl.SetLinkSysctl(link="br.0", name=name, value="0"))
    assert (await link(agent, "br.0")).sysctls == {}
    # What is gone needs none, and what is no link is no file either.
    for gone in ("absent0", "..", "../../../net/ipv4/conf/lo"):
        await agent.call(sysctl.SetLinkSysctl(link=gone, name="rp_filter", value="1"))


async def test_of_neighbours_only_static_ones_and_ours_wake_anybody(
    tree: Tree, agent: Agent, count: Callable[[int, int], int]
) -> None:
    """What the kernel learns by itself does not even reach the agent; its own look at the table costs next to nothing."""
    told: set[str] = set()
    await linked(agent)
    # Links tell of themselves for a while after they came up.
    await tree.agent("a", on_event=lambda event: told.update(event.kinds if isinstance(event, operation.Changed) else ()))
    words = [f"neighbor replace 10.0.{n // 200}.{n % 200 + 20} lladdr {MAC} dev br0 nud reachable" for n in range(MANY)]
    for _ in range(count(3, 30)):
        (await proc.run(["ip", "-netns", "a", "-batch", "-"], stdin="\n".join(words))).check()
        await ip_a("neighbor", "flush", "dev", "br0")
    # What is told in their order comes behind all that could have been told of those.
    await ip_a("rule", "add", "pref", "9", "lookup", "9")
    await wait_until(lambda: "rule" in told)
    assert "neighbor" not in told
    static = ["10.0.9.9", "lladdr", MAC, "dev", "br0"]
    for change, how in (("add", ["nud", "permanent", "protocol", "197"]), ("del", [])):
        told.clear()
        await ip_a("neighbor", change, *static, *how)
        await wait_until(lambda: "neighbor" in told)
    told.clear()
    await ip_a("-6", "rule", "add", "pref", "9", "lookup", "9")
    await wait_until(lambda: "rule" in told)


async def test_among_thousands_of_others_ours_are_seen(agent: Agent) -> None:
    await linked(agent)
    await agent.call(entry.PutNeighbor(neighbor=NEIGHBORS[0]))
    await agent.call(entry.PutRule(rule=RULES[0]))
    # An address and a MAC address that hold the bytes of our mark.
    odd = ["neighbor add 5.0.12.0 lladdr c5:05:00:0c:00:c5 dev br0 nud permanent"]
    words = [f"neighbor add 10.0.{n // 200}.{n % 200 + 20} lladdr {MAC} dev br0 nud permanent" for n in range(MANY)]
    rules = [f"rule add pref {n} from 10.9.{n // 200}.{n % 200} lookup 7" for n in range(200, 1200)]
    (await proc.run(["ip", "-netns", "a", "-batch", "-"], stdin="\n".join(odd + words + rules))).check()
    seen = await dump(agent)
    assert (seen.neighbors, seen.rules) == ((NEIGHBORS[0],), (RULES[0],))


async def test_down_takes_our_rules_and_neighbours_out_of_default_and_no_others(tree: Tree) -> None:
    default = await tree.agent("default")
    await ip("link", "add", "theirs0", "type", "bridge")
    try:
        await ip("link", "set", "theirs0", "up")
        for proxy in (False, True):
            own = entry.Neighbor(link="theirs0", address="198.51.100.9", mac="" if proxy else MAC, proxy=proxy)
            await default.call(entry.PutNeighbor(neighbor=own))
        await default.call(
            entry.PutRule(rule=entry.Rule(family="inet", priority=9, source="198.51.100.0/24", action="blackhole"))
        )
        await ip("rule", "add", "pref", "10", "from", "198.51.101.0/24", "blackhole")
        await ip("neighbor", "add", "198.51.101.9", "lladdr", MAC, "dev", "theirs0", "nud", "permanent")
        (await tree.down()).check()
        left = await ip("rule", "show") + await ip("neighbor", "show") + await ip("neighbor", "show", "proxy")
        assert "198.51.100." not in left
        assert left.count("198.51.101.") == 2
        await ip("rule", "del", "pref", "10")
    finally:
        await ip("link", "del", "theirs0")
