"""The trial of isolation itself: what is broken is found by trying, and nothing of it stays, whatever dies in the middle."""

import signal
from collections.abc import Sequence

import pytest

from crossns import errors, kernel, netns, operation, proc, proof
from crossns.testing.device import wait_until
from crossns.v1 import isolation_pb2
from services.nsmanager.driver import Device, Examiner
from services.nsmanager.plan import isolation
from tests.kernel.privileged import LAYOUT, Tree, running_for_a_module, socket_in, token, tree
from tests.kernel.view import do, ip

pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]

__all__ = ["running_for_a_module", "tree"]

GROUND = proof.Ground(network="169.254.96.0/30", port=29200)


async def examine(*tables: str) -> isolation.Evidence:
    """As nsmanager does it, in its place."""
    device = Device(LAYOUT, token(), on_change=lambda _unit: None, on_links=lambda: None, on_news=lambda _table, _news: None)
    try:
        *_, evidence = [each async for each in Examiner(device, dict).examine(tables)]
    finally:
        await device.close()
    assert isinstance(evidence, isolation.Evidence)
    return evidence


def verdicts(evidence: isolation.Evidence) -> dict[str, set[str]]:
    """By layer, of what was tried: what was merely looked at says where links lead, or names processes."""
    found: dict[str, set[str]] = {}
    for each in isolation.report(evidence).findings:
        if " in each" in each.tried or " into each" in each.tried:
            layer = isolation_pb2.IsolationLayer.Name(each.layer).removeprefix("ISOLATION_LAYER_")
            found.setdefault(layer, set()).add(isolation_pb2.IsolationVerdict.Name(each.verdict).rpartition("_")[2])
    return found


async def create(tree: Tree, *tables: str) -> None:
    for table in tables:
        await tree.create(table)


async def left(table: str) -> Sequence[str]:
    """What of a trial is there."""
    links = [each["ifname"] for each in await ip("link", table=table) if each["ifname"].startswith("~")]
    rules = [each["priority"] for family in ("-4", "-6") for each in await ip(family, "rule", table=table) if each.get("iif")]
    tables = (await proc.run(["ip", "netns", "exec", table, "nft", "list", "tables"])).check().stdout.splitlines()
    return [*links, *map(str, rules), *tables]


async def is_clean(table: str) -> bool:
    return not await left(table)


async def begun(tree: Tree, table: str, patience_s: float = 15.0) -> None:
    held = await (await tree.agent(table)).call(proof.BeginTrial(ground=GROUND, number=1, seal=1, patience_s=patience_s))
    assert isinstance(held, proof.Held)
    assert [step for step in held.steps if step.code] == []


async def test_tables_that_are_one_namespace_are_found_in_every_layer_by_trying(tree: Tree) -> None:
    made = await tree.create("a")
    await tree.end()
    # As if the table `b` had got the namespace of `a`: the launcher finds it so when it is back.
    other = LAYOUT.incarnations / f"b.{made.cookie}"
    other.touch()
    netns.mount(LAYOUT.incarnations / f"a.{made.cookie}", other, netns.MS_BIND)
    await tree.start()
    evidence = await examine("a", "b")
    # Both agents work on the same links at once: some of it may be UNPROVEN, too.
    found = {layer for layer, verdict in verdicts(evidence).items() if "LEAK" in verdict}
    assert found == {"INTERFACE", "ROUTING", "NEIGHBOR", "FIREWALL", "SOCKET"}
    told = [each.evidence for each in isolation.report(evidence).findings]
    assert told.count("routeTables/a, routeTables/b are the same network namespace") == 5
    assert await left("a") == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_agent_that_ends_in_the_middle_leaves_nothing(tree: Tree, number: signal.Signals) -> None:
    await create(tree, "a")
    await begun(tree, "a")
    assert await left("a") == ["~trial-b", "~trial-a", "32000", "32000", "table inet crossns-trial"]
    (namespace,) = (await tree.namespaces()).values()
    await do("kill", f"-{int(number)}", str(namespace.agent_pid))
    await wait_until(lambda: is_clean("a"))


async def test_trial_ends_by_itself_when_nobody_goes_on_with_it(tree: Tree) -> None:
    await create(tree, "a")
    await begun(tree, "a", patience_s=0.3)
    await wait_until(lambda: is_clean("a"))


async def test_next_trial_takes_the_place_of_one_that_was_left(tree: Tree) -> None:
    await create(tree, "a", "b")
    await begun(tree, "a")
    await begun(tree, "a")
    assert {verdict for each in verdicts(await examine("a", "b")).values() for verdict in each} == {"ISOLATED"}
    assert await left("a") == await left("b") == []


async def test_trial_ends_with_the_session_that_follows(tree: Tree) -> None:
    await create(tree, "a")
    await begun(tree, "a", patience_s=600)
    await (await tree.agent("a")).call(kernel.Subscribe())
    await wait_until(lambda: is_clean("a"))


async def test_trial_whose_link_somebody_sets_down_says_what_did_not_arrive(tree: Tree) -> None:
    await create(tree, "a")
    await begun(tree, "a")
    await do("ip", "-n", "a", "link", "set", "~trial-b", "down")
    agent = await tree.agent("a")
    await agent.call(proof.PlayTrial())
    traces = await agent.call(proof.ReadTrial())
    assert isinstance(traces, proof.Traces)
    assert (traces.sent, traces.datagrams) == (2, ())
    await agent.call(proof.EndTrial())


async def test_links_of_a_trial_are_nobodys(tree: Tree) -> None:
    """Else a table were not deleted for them, and `default` offered them as cards."""
    await create(tree, "a")
    await begun(tree, "a")
    assert [each.name for each in (await tree.dump("a")).links] == ["lo"]


async def test_default_is_swept_when_everything_is_taken_down(tree: Tree) -> None:
    agent = await tree.agent("default")
    await agent.call(proof.BeginTrial(ground=GROUND, number=1, seal=1))
    await tree.end()
    (await tree.down()).check()
    assert [each["ifname"] for each in await ip("link")] == ["lo"]
    assert not [each for each in await ip("rule") if each.get("iif")]
    await tree.start()


async def test_trial_keeps_away_from_what_is_there(tree: Tree) -> None:
    await create(tree, "a", "b")
    await do("ip", "-n", "a", "route", "add", "169.254.96.0/20", "dev", "lo")
    with socket_in(LAYOUT.netns / "b", 2, 1) as listener:
        listener.bind(("0.0.0.0", 29200))
        evidence = await examine("a", "b")
    assert evidence.ground == proof.Ground(network="198.19.96.0/30", port=29300)
    assert {verdict for each in verdicts(evidence).values() for verdict in each} == {"ISOLATED"}


async def test_tables_that_leave_no_room_for_a_trial_are_told_so(tree: Tree) -> None:
    await create(tree, "a", "b")
    for network in ("169.254.0.0/16", "198.18.0.0/15", "192.0.2.0/24", "203.0.113.0/24"):
        await do("ip", "-n", "a", "route", "add", network, "dev", "lo")
    with pytest.raises(errors.FailedPrecondition, match="needs one that none of them uses"):
        await examine("a", "b")
    assert await left("b") == []


async def test_firewall_of_a_table_that_lets_nothing_in_is_no_leak(tree: Tree) -> None:
    await create(tree, "a", "b")
    rules = "table inet t { chain c { type filter hook input priority 0; policy drop; }; }"
    await do("ip", "netns", "exec", "a", "nft", rules)
    evidence = await examine("a", "b")
    assert verdicts(evidence) == {layer: {"ISOLATED"} for layer in ("INTERFACE", "ROUTING", "NEIGHBOR", "FIREWALL", "SOCKET")}
    assert "2 of 4 datagrams arrived" in str(isolation.report(evidence))


async def test_table_that_answers_no_request_leaves_the_neighbours_unproven(tree: Tree) -> None:
    await create(tree, "a", "b")
    rules = "table inet t { chain c { type filter hook input priority 0; policy drop; }; }"
    await do("ip", "netns", "exec", "a", "nft", rules)
    await do("ip", "netns", "exec", "a", "sysctl", "-q", "-w", "net.ipv4.conf.all.arp_ignore=8")
    assert verdicts(await examine("a", "b"))["NEIGHBOR"] == {"UNPROVEN"}


async def test_trial_is_no_session_of_the_table(tree: Tree) -> None:
    """Else it would be counted against a budget."""
    await create(tree, "a", "b")
    rules = "table inet t { chain c { type filter hook prerouting priority 0; ct state new counter; }; }"
    await do("ip", "netns", "exec", "a", "nft", rules)
    assert {verdict for each in verdicts(await examine("a", "b")).values() for verdict in each} == {"ISOLATED"}
    shown = (await proc.run(["ip", "netns", "exec", "a", "nft", "list", "ruleset"])).check().stdout
    assert "ct state new counter packets 0 bytes 0" in shown


async def test_table_without_ipv6_is_tried_with_ipv4_alone(tree: Tree) -> None:
    await create(tree, "a", "b")
    off = [f"net.ipv6.conf.{which}.disable_ipv6=1" for which in ("all", "default")]
    await do("ip", "netns", "exec", "a", "sysctl", "-q", "-w", *off)
    evidence = await examine("a", "b")
    assert {verdict for each in verdicts(evidence).values() for verdict in each} == {"ISOLATED"}
    assert [len(each.traces.routes) for each in evidence.played] == [1, 2]


async def test_many_tables_cost_each_of_them_as_much_as_few(tree: Tree) -> None:
    tables = [f"t{number}" for number in range(5)]
    await create(tree, *tables)

    async def asked(*chosen: str) -> int:
        before = await operations(tree, "t0")
        await examine(*chosen)
        return await operations(tree, "t0") - before

    assert await asked(*tables[:2]) == await asked(*tables)


async def operations(tree: Tree, table: str) -> int:
    counted = await (await tree.agent(table)).call(operation.Statistics())
    assert isinstance(counted, operation.Counters)
    return counted.operations
