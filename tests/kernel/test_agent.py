"""Links as an agent makes, changes, moves and leaves them alone: in the real kernel, of every kind that it has."""

import os
import signal

import pytest

from crossns import errors, operation
from crossns.agent import Agent
from crossns.testing.device import wait_until
from crossns.testing.lab import Cable, Lab
from tests.kernel.privileged import LAYOUT, Tree, agent, bridge, dump, ip, link, refusal, running_for_a_module, tree, writes

__all__ = ["agent", "running_for_a_module", "tree"]
pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]

MAC = "02:00:00:00:00:05"
KINDS: dict[str, dict[str, str]] = {
    "bridge": {"stp": "1"},
    "macvlan": {"mode": "private"},
    "vlan": {"vlan_id": "7"},
    "vxlan": {"vni": "42", "local": "10.0.0.1", "remote": "10.0.0.2", "port": "4789"},
    "bond": {"mode": "1"},
    "dummy": {},
    "tap": {"owner_uid": "1234"},
}


def creation(kind: str) -> operation.CreateLink:
    parent = "br0" if kind in {"macvlan", "vlan"} else ""
    return operation.CreateLink(name="new0", mark="interfaces.new", kind=kind, parent=parent, attributes=KINDS[kind])  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=pytest.mark.needs(kind)) for kind in KINDS])
async def test_link_of_each_kind_is_as_asked_marked_and_deleted_again(agent: Agent, kind: str) -> None:
    await bridge(agent)
    wanted = creation(kind)
    await agent.call(wanted)
    made = await link(agent, "new0")
    assert (made.kind, made.mark, made.attributes) == (kind, "interfaces.new", KINDS[kind])
    before = await writes(agent)
    await agent.call(wanted)
    assert await writes(agent) == before
    for _ in range(2):
        await agent.call(operation.DeleteLink(name="new0", mark="interfaces.new"))
    assert [each.name for each in (await dump(agent)).links] == ["lo", "br0"]


@pytest.mark.parametrize("kind", KINDS)
async def test_kind_that_the_kernel_lacks_is_named_and_leaves_nothing(agent: Agent, kind: str) -> None:
    """Of each kind there is afterwards either the link or a refusal that names the kind, and nothing else."""
    await bridge(agent)
    try:
        await agent.call(creation(kind))
        outcome = ""
    except errors.PermanentError as error:
        outcome = f"{error.reason}: {error.message}"
    made = [(each.name, each.kind) for each in (await dump(agent)).links if each.name not in {"lo", "br0"}]
    refused = f"KIND_UNSUPPORTED: this device's kernel does not offer links of kind {kind}"
    assert (outcome, made) in [("", [("new0", kind)]), (refused, [])]


async def test_macvlan_is_made_into_another_table(tree: Tree, agent: Agent) -> None:
    await tree.create("b")
    await bridge(agent)
    await agent.call(
        operation.CreateLink(
            name="mv", mark="interfaces.mv", kind="macvlan", parent="br0", table="b", attributes={"mode": "bridge"}
        )
    )
    there = await tree.link("b", "mv")
    assert there
    assert (there.kind, there.mark, there.parent_index) == ("macvlan", "interfaces.mv", (await link(agent, "br0")).index)
    assert [each.name for each in (await dump(agent)).links] == ["lo", "br0"]


async def test_missing_parent_and_missing_table_are_waited_for(agent: Agent) -> None:
    nowhere = operation.CreateLink(name="mv", mark="interfaces.mv", kind="macvlan", parent="gone")
    refused = await refusal(agent, nowhere)
    assert (type(refused), refused.reason) == (errors.AgentUnavailable, "PARENT_MISSING")
    elsewhere = operation.CreateLink(name="br0", mark="interfaces.br0", kind="bridge", table="gone")
    assert (await refusal(agent, elsewhere)).reason == "ROUTE_TABLE_ABSENT"


async def test_link_is_changed_as_asked_and_only_where_it_differs(agent: Agent) -> None:
    await bridge(agent)
    await agent.call(creation("tap"))
    wanted = operation.SetLink(name="new0", new_name="tap9", mtu=1400, up=True, master="br0")
    await agent.call(wanted)
    seen = await link(agent, "tap9")
    assert (seen.mtu, seen.up, seen.master, seen.mark) == (1400, True, "br0", "interfaces.new")
    before = await writes(agent)
    again = operation.SetLink(name="tap9", mtu=1400, up=True, master="br0")
    await agent.call(again)
    assert await writes(agent) == before
    await agent.call(operation.SetLink(name="tap9", master="", up=False))
    seen = await link(agent, "tap9")
    assert (seen.master, seen.up) == ("", False)


async def test_foreign_link_stays_untouched(tree: Tree, agent: Agent) -> None:
    await tree.create("b")
    await ip("-netns", "a", "link", "add", "theirs", "type", "bridge")
    before = await link(agent, "theirs")
    attempts = (
        operation.CreateLink(name="theirs", mark="interfaces.x", kind="bridge"),
        operation.DeleteLink(name="theirs", mark="interfaces.x"),
        operation.MoveLink(name="theirs", table="b", new_name="x", mark="interfaces.x"),
        operation.SetLink(name="theirs", mtu=1300),
    )
    for wanted in attempts:
        assert (await refusal(agent, wanted)).reason == "FOREIGN_OBJECT"
    assert await link(agent, "theirs") == before


async def test_link_of_another_resource_is_not_deleted_for_this_one(agent: Agent) -> None:
    await bridge(agent)
    assert (await refusal(agent, operation.DeleteLink(name="br0", mark="interfaces.other"))).reason == "FOREIGN_OBJECT"
    assert (await link(agent, "br0")).mark == "interfaces.br0"


async def test_half_made_link_of_a_killed_agent_is_swept(tree: Tree, agent: Agent) -> None:
    await ip("-netns", "a", "link", "add", "~0123456789", "type", "bridge")
    await ip("-netns", "a", "link", "add", "kept", "type", "bridge")
    os.kill((await tree.namespaces())["a"].agent_pid, signal.SIGKILL)
    await agent.wait_until_closed()
    await wait_until(lambda: _names(tree) if LAYOUT.agent_socket("a").exists() else False)


async def _names(tree: Tree) -> bool:
    try:
        return [each.name for each in (await tree.dump("a")).links] == ["lo", "kept"]
    except errors.AgentUnavailable:
        return False


async def test_card_keeps_name_and_mark_on_its_way_through_two_tables_and_back(tree: Tree, lab: Lab) -> None:
    await lab.host("h", Cable(card="card0", card_mac=MAC))
    for table in ("a", "b"):
        await tree.create(table)
    steps = (
        ("default", operation.MoveLink(name="card0", table="a", new_name="lan", mark="interfaces.lan")),
        ("a", operation.MoveLink(name="lan", table="b", new_name="wan", mark="interfaces.lan")),
    )
    for table, step in steps:
        await (await tree.agent(table)).call(step)
        moved = await tree.link(step.table, step.new_name)
        assert moved
        assert (moved.mark, moved.was, moved.mac) == ("interfaces.lan", "card0", MAC)
        assert await tree.link(table, step.name) is None
    back = operation.MoveLink(name="wan", table="default", new_name="card0", mark="")
    for _ in range(2):
        # The second time it is there already: as after a crash.
        await (await tree.agent("b")).call(back)
    returned = await tree.link("default", "card0")
    assert returned
    assert (returned.mark, returned.was, returned.mac) == ("", "", MAC)


async def test_marks_that_a_crash_left_on_a_returned_card_come_off(tree: Tree, lab: Lab) -> None:
    await lab.host("h", Cable(card="card0"))
    await tree.create("a")
    await ip("link", "property", "add", "dev", "card0", "altname", "interfaces.lan", "altname", "was.card0")
    await (await tree.agent("a")).call(operation.MoveLink(name="lan", table="default", new_name="card0", mark=""))
    returned = await tree.link("default", "card0")
    assert returned
    assert (returned.mark, returned.was) == ("", "")


@pytest.mark.parametrize("taken", ["name", "altname"])
async def test_taken_name_in_the_target_changes_nothing(tree: Tree, lab: Lab, taken: str) -> None:
    await lab.host("h", Cable(card="card0"))
    await tree.create("a")
    await ip("-netns", "a", "link", "add", "lan" if taken == "name" else "other", "type", "bridge")
    if taken == "altname":
        await ip("-netns", "a", "link", "property", "add", "dev", "other", "altname", "lan")
    before = await tree.link("default", "card0"), (await tree.dump("a")).links
    agent = await tree.agent("default")
    refused = await refusal(agent, operation.MoveLink(name="card0", table="a", new_name="lan", mark="interfaces.lan"))
    assert (type(refused), refused.reason) == (errors.PermanentError, "FOREIGN_OBJECT")
    assert (await tree.link("default", "card0"), (await tree.dump("a")).links) == before


async def test_card_that_does_not_arrive_is_unmarked_again(tree: Tree, lab: Lab) -> None:
    await lab.host("h", Cable(card="card0"))
    await tree.create("a")
    before = await tree.link("default", "card0")
    move = operation.MoveLink(name="card0", table="a", new_name="no such name/", mark="interfaces.lan")
    assert (await refusal(await tree.agent("default"), move)).reason == "KERNEL_REFUSED"
    assert await tree.link("default", "card0") == before


async def test_bridge_that_cannot_move_is_not_lost(tree: Tree, agent: Agent) -> None:
    await tree.create("b")
    await bridge(agent)
    refused = await refusal(agent, operation.MoveLink(name="br0", table="b", new_name="br0", mark="interfaces.br0"))
    assert refused.reason == "KERNEL_REFUSED"
    assert (await link(agent, "br0")).mark == "interfaces.br0"


async def test_card_is_taken_and_released_where_it_is(tree: Tree, lab: Lab) -> None:
    await lab.host("h", Cable(card="card0"))
    agent = await tree.agent("default")
    for mark, was in (("interfaces.lan", "card0"), ("interfaces.lan", "card0"), ("", ""), ("", "")):
        await agent.call(operation.MarkLink(name="card0", mark=mark))
        seen = await link(agent, "card0")
        assert (seen.mark, seen.was) == (mark, was)


async def test_link_that_is_nowhere_is_missing(tree: Tree, agent: Agent) -> None:
    move = operation.MoveLink(name="gone", table="default", new_name="gone", mark="")
    assert (await refusal(agent, move)).reason == "LINK_MISSING"
    assert (await refusal(agent, operation.SetLink(name="gone", up=True))).reason == "LINK_MISSING"
