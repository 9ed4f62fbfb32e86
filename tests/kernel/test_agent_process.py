"""The agent as a process: what it tells, which sockets it makes, what it may, and that it does nothing unasked."""

import asyncio
import contextlib
import os
import signal
import socket
from pathlib import Path

import pytest

from crossns import counter, errors, operation, proc, standing, sysctl
from crossns.agent import Agent
from crossns.budget import Budget, PutBudget, RemoveBudget, Seen
from crossns.listener import OpenListener
from crossns.testing.device import wait_until
from crossns.testing.lab import Cable, Lab
from services.nsmanager.agent import privilege
from tests.kernel.privileged import (
    LAYOUT,
    Tree,
    address,
    agent,
    bridge,
    card,
    dump,
    ip,
    process_status,
    refusal,
    running_for_a_module,
    token,
    tree,
    writes,
)

__all__ = ["agent", "running_for_a_module", "tree"]
pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]

# Of the loop: an agent that is not held up answers within them.
MANY_TURNS = 3000
MAC = "02:00:00:00:00:05"


def kinds(events: list[operation.Event]) -> set[str]:
    return {kind for event in events if isinstance(event, operation.Changed) for kind in event.kinds}


async def test_what_anybody_changes_is_told_once_for_many(tree: Tree, agent: Agent) -> None:
    events: list[operation.Event] = []
    await tree.agent("a", on_event=events.append)
    batch = "\n".join(["link add br0 type bridge", *(f"address add 10.0.0.{n}/24 dev br0" for n in range(1, 100))])
    (await proc.run(["ip", "-netns", "a", "-batch", "-"], stdin=batch)).check()
    await wait_until(lambda: {"link", "address"} <= kinds(events))
    (await proc.run(["ip", "-netns", "a", "link", "set", "br0", "up"])).check()
    await wait_until(lambda: "route" in kinds(events))
    assert len(events) < 50


async def test_change_of_each_kind_wakes_those_who_look_again(tree: Tree, agent: Agent) -> None:
    await bridge(agent)
    await ip("-netns", "a", "link", "set", "br0", "up")
    events: list[operation.Event] = []
    await tree.agent("a", on_event=events.append)
    for words, kind in (
        ("link set br0 mtu 1400", "link"),
        ("address add 10.0.0.1/24 dev br0", "address"),
        ("address add 2001:db8::1/64 dev br0", "address"),
        ("route add blackhole 192.0.2.0/24", "route"),
        ("route add blackhole 2001:db8:2::/48", "route"),
        ("rule add pref 9 lookup 9", "rule"),
        ("-6 rule add pref 9 lookup 9", "rule"),
        ("neighbor add 10.0.0.9 lladdr 02:00:00:00:00:09 dev br0 nud permanent", "neighbor"),
    ):
        events.clear()
        await ip("-netns", "a", *words.split())
        await wait_until(lambda kind=kind: kind in kinds(events))


async def test_overrun_is_told_as_such(tree: Tree, agent: Agent) -> None:
    events: list[operation.Event] = []
    await tree.agent("a", on_event=events.append)
    pid = (await tree.namespaces())["a"].agent_pid
    os.kill(pid, signal.SIGSTOP)
    try:
        toggles = "\n".join(["link add br0 type bridge", *["link set br0 up", "link set br0 down"] * 500])
        (await proc.run(["ip", "-netns", "a", "-batch", "-"], stdin=toggles)).check()
    finally:
        os.kill(pid, signal.SIGCONT)
    await wait_until(lambda: "overrun" in kinds(events))
    assert [each.name for each in (await tree.dump("a")).links] == ["lo", "br0"]


async def test_every_change_on_the_device_passes_few_sockets_of_an_agent(tree: Tree, agent: Agent) -> None:
    """The kernel walks past each one that listens, whatever namespace it is in."""
    pid = (await tree.namespaces())["a"].agent_pid
    # sk, protocol (0: route), port id, groups, ... (net/netlink/af_netlink.c)
    lines = Path(f"/proc/{pid}/net/netlink").read_text(encoding="ascii").splitlines()[1:]
    listening = [line for line in lines if line.split()[1] == "0" and int(line.split()[3], 16)]
    assert 1 <= len(listening) <= 3


async def test_how_another_tables_vservices_stand_is_none_of_an_agents_business(agent: Agent) -> None:
    fe = standing.Standing(vservice="vServices/web", part="fe", address="203.0.113.10", port=80, state="READY")
    await agent.call(standing.PutStandings(table="a", standings=(fe,)))
    refused = await refusal(agent, standing.PutStandings(table="b", standings=(), gone=(fe.key,)))
    assert (type(refused), refused.reason) == (errors.FailedPrecondition, "FOREIGN_OBJECT")
    assert await agent.call(standing.ReadStandings()) == standing.Standings(items=(fe,))
    await agent.call(standing.PutStandings(table="a", standings=(), gone=(fe.key, ("vServices/none", "fe"))))
    assert await agent.call(standing.ReadStandings()) == standing.Standings()


async def test_things_are_counted_where_they_are(tree: Tree, agent: Agent) -> None:
    await tree.create("b")
    await bridge(agent)
    await address(agent, "10.0.0.1/24")
    lines = [
        *(f"route add 10.{n}.0.0/16 via 10.0.0.9" for n in range(1, 41)),
        "route add blackhole 192.0.2.0/24 table 7",
        "neigh add 10.0.0.2 lladdr 02:00:00:00:00:02 dev br0 nud permanent",
        "neigh add 10.0.0.3 lladdr 02:00:00:00:00:03 dev br0 nud stale",
        "neigh add 10.0.0.4 lladdr 02:00:00:00:00:04 dev br0 nud reachable",
        "neigh add 10.0.0.5 dev br0 nud failed",
    ]
    (await proc.run(["ip", "-netns", "a", "-batch", "-"], stdin="\n".join(lines))).check()
    assert await census(agent) == {
        # 127.0.0.1 is one, too.
        "addresses": 2,
        # Beside those above, that of the address's own network.
        "routes": 42,
        "neighbors.permanent": 1,
        "neighbors.stale": 1,
        "neighbors.reachable": 1,
        "neighbors.failed": 1,
    }
    elsewhere = await census(await tree.agent("b"))
    assert elsewhere.pop("addresses") == 1
    assert set(elsewhere.values()) == {0}


async def census(agent: Agent) -> dict[str, int]:
    """How much of IPv4 the agent counts."""
    read = await agent.call(operation.ReadCounters())
    assert isinstance(read, counter.KernelCounters)
    return {name.removeprefix("inet."): value for name, value in read.values.items() if name.startswith("inet.")}


@pytest.mark.parametrize(
    ("name", "shown"), [(b"bad\xff", "bad\\xff"), (b"esc\x1b[1m", "esc\\x1b[1m"), ("caf\u00e9".encode(), "caf\u00e9")]
)
async def test_link_whose_name_is_no_text_is_shown_and_harms_nobody(tree: Tree, agent: Agent, name: bytes, shown: str) -> None:
    await ip("-netns", "a", "link", "add", "name", os.fsdecode(name), "type", "bridge")
    assert shown in {link.name for link in (await dump(agent)).links}
    before = (await tree.namespaces())["a"].agent_pid
    os.kill(before, signal.SIGKILL)

    async def is_back() -> bool:
        return (await tree.namespaces())["a"].agent_pid not in {0, before}

    await wait_until(is_back)
    again = await tree.agent("a")
    assert shown in {link.name for link in (await dump(again)).links}


async def test_looking_writes_nothing(agent: Agent) -> None:
    await bridge(agent)
    before = await writes(agent)
    for _ in range(5):
        await dump(agent)
        await agent.call(sysctl.SetSysctl(name="net.ipv4.ip_forward", value="0"))
    assert await writes(agent) == before


async def test_sysctl_is_the_tables_own(tree: Tree, agent: Agent) -> None:
    await agent.call(sysctl.SetSysctl(name="net.ipv4.ip_forward", value="1"))
    assert (await dump(agent)).sysctls["net.ipv4.ip_forward"] == "1"
    assert (await tree.dump("default")).sysctls["net.ipv4.ip_forward"] == "0"


async def test_socket_is_in_the_table_and_belongs_to_the_uid(tree: Tree, agent: Agent) -> None:
    await bridge(agent)
    await address(agent, "10.0.0.1/24")
    with await agent.open_socket(operation.OpenSocket(family="inet", kind="stream", owner_uid=64999)) as made:
        made.bind(("10.0.0.1", 80))
        made.listen()
        lines = (await proc.run(["ip", "netns", "exec", "a", "cat", "/proc/net/tcp"])).check().stdout.splitlines()[1:]
        # 10.0.0.1:80 as proc(5) has it; the eighth field is the uid.
        assert [line.split()[7] for line in lines if line.split()[1] == "0100000A:0050"] == ["64999"]
    with await agent.open_socket(operation.OpenSocket(family="inet6", kind="dgram")) as made:
        assert (made.family, made.type & socket.SOCK_DGRAM) == (socket.AF_INET6, socket.SOCK_DGRAM)
        assert os.fstat(made.fileno()).st_uid == 0


async def test_listener_is_where_the_table_has_the_address_and_nowhere_else(tree: Tree, agent: Agent) -> None:
    await bridge(agent)
    await address(agent, "10.0.0.1/24")
    gateway = await tree.agent("a", service="gateway")
    with await gateway.open_socket(OpenListener(address="10.0.0.1", port=7443, owner_uid=64999)) as made:
        lines = (await proc.run(["ip", "netns", "exec", "a", "cat", "/proc/net/tcp"])).check().stdout.splitlines()[1:]
        # 0A is LISTEN (net/tcp_states.h).
        assert [(line.split()[1], line.split()[3], line.split()[7]) for line in lines] == [("0100000A:1D13", "0A", "64999")]
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        for where, port, why in (
            ("10.0.0.2", 7443, "no link of the table has the address"),
            ("2001:db8::1", 7443, "no link of the table has the address"),
            ("10.0.0.1", 7443, "something else listens there"),
            ("10.0.0.1", 443, "ports below 1024"),
        ):
            with pytest.raises(errors.PermanentError, match=why) as caught:
                await gateway.open_socket(OpenListener(address=where, port=port))
            assert caught.value.reason == "KERNEL_REFUSED"
    for where in ("127.8.8.8", "::1", "0.0.0.0", "::"):
        with await gateway.open_socket(OpenListener(address=where, port=0)) as made:
            assert made.getsockname()[0] == where


async def test_gateway_may_listen_and_nothing_else_and_nobody_else_may_that(tree: Tree, agent: Agent) -> None:
    gateway = await tree.agent("a", service="gateway")
    for session, wanted in (
        (gateway, operation.OpenSocket(family="inet", kind="stream")),
        (gateway, sysctl.SetSysctl(name="net.ipv4.ip_forward", value="1")),
        (agent, OpenListener(address="127.0.0.1", port=0)),
    ):
        assert (await refusal(session, wanted)).reason == "PERMISSION_DENIED"


async def test_budget_that_is_there_is_not_written_again_and_a_foreign_frame_is_made_anew(agent: Agent) -> None:
    wanted = PutBudget(budget=Budget(5, 10, 20))
    await agent.call(wanted)
    before = await writes(agent)
    await agent.call(wanted)
    assert await writes(agent) == before
    assert (await dump(agent)).budget_seen == Seen(wanted.budget)
    for _ in range(2):
        await agent.call(RemoveBudget())
    assert await writes(agent) == before + 2
    assert (await dump(agent)).budget_seen is None
    chain = "add chain inet crossns_budget arriving { type filter hook input priority 0; }"
    for theirs in ("add table inet crossns_budget", f"flush ruleset; add table inet crossns_budget; {chain}"):
        await ip("netns", "exec", "a", "nft", theirs)
        assert (await dump(agent)).budget_seen == Seen(None)
        await agent.call(wanted)
        assert (await dump(agent)).budget_seen == Seen(wanted.budget)


async def test_budget_that_the_kernel_does_not_take_is_told_in_its_words_and_changes_nothing(agent: Agent) -> None:
    before = await writes(agent)
    refused = await refusal(agent, PutBudget(budget=Budget(-1)))
    assert refused.reason == "KERNEL_REFUSED"
    assert "Error:" in refused.message
    assert await writes(agent) == before
    assert (await dump(agent)).budget_seen is None


async def test_budget_is_recognised_without_anything_being_made_in_the_table(tree: Tree, agent: Agent) -> None:
    """By an agent that has not written it either."""
    wanted = PutBudget(budget=Budget(5, 10, 20))
    await agent.call(wanted)
    listing = ["ip", "netns", "exec", "a", "nft", "--handle", "list", "ruleset"]
    before = (await proc.run(listing)).check().stdout
    os.kill(agent.welcome.pid, signal.SIGKILL)
    await wait_until(lambda: is_served_by_another(agent.welcome.pid))
    assert (await tree.dump("a")).budget_seen == Seen(wanted.budget)
    # The handles say that nothing was written again.
    assert (await proc.run(listing)).check().stdout == before


async def is_served_by_another(pid: int) -> bool:
    with contextlib.suppress(errors.AgentUnavailable):
        found = await Agent.connect(LAYOUT.agent_socket("a"), "observer", token())
        await found.close()
        return found.welcome.pid != pid
    return False


async def test_transactions_leave_neither_processes_nor_descriptors_behind(agent: Agent) -> None:
    place = Path(f"/proc/{agent.welcome.pid}")

    async def held() -> tuple[str, int]:
        await agent.call(PutBudget(budget=Budget(5)))
        await agent.call(RemoveBudget())
        children = (place / "task" / place.name / "children").read_text(encoding="ascii")
        return children, len(os.listdir(place / "fd"))

    first = await held()
    assert [await held() for _ in range(3)] == [first] * 3
    assert first[0] == ""


async def test_budget_that_somebody_has_flushed_is_still_lifted(agent: Agent) -> None:
    await agent.call(PutBudget(budget=Budget(5)))
    await ip("netns", "exec", "a", "nft", "flush", "ruleset")
    assert (await dump(agent)).budget_seen == Seen(None)
    await agent.call(RemoveBudget())
    assert await ip("netns", "exec", "a", "sysctl", "-n", "net.netfilter.nf_conntrack_tcp_loose") == "1\n"
    assert (await dump(agent)).budget_seen is None


async def test_budget_of_default_goes_when_everything_is_taken_down(tree: Tree) -> None:
    loose = Path("/proc/sys/net/netfilter/nf_conntrack_tcp_loose")
    await (await tree.agent("default")).call(PutBudget(budget=Budget(5)))
    assert loose.read_text(encoding="ascii") == "0\n"
    await tree.end()
    (await tree.down()).check()
    assert (await proc.run(["nft", "list", "ruleset"])).check().stdout == ""
    assert loose.read_text(encoding="ascii") == "1\n"
    await tree.start()


async def test_socket_that_nobody_waits_for_is_closed(agent: Agent) -> None:
    before = set(os.listdir("/proc/self/fd"))
    wanted = operation.OpenSocket(family="inet", kind="stream")
    for turns in (*range(6), MANY_TURNS):
        asked = asyncio.ensure_future(agent.open_socket(wanted))
        for _ in range(turns):
            await asyncio.sleep(0)
        if not asked.cancel():
            # It came before: it is the caller's to close.
            asked.result().close()
        await asyncio.gather(asked, return_exceptions=True)
    # Whatever was still on its way has come before this answer.
    await dump(agent)
    assert set(os.listdir("/proc/self/fd")) == before


async def test_agent_keeps_the_capabilities_that_it_needs_and_no_other(tree: Tree, agent: Agent) -> None:
    lines = process_status((await tree.namespaces())["a"].agent_pid)
    kept = f"{sum(1 << capability for capability in privilege.KEPT):016x}"
    shown = {name: value for name, value in lines.items() if name.startswith(("Cap", "NoNew"))}
    nothing = "0" * 16
    assert shown == {
        "CapInh": nothing,
        "CapPrm": kept,
        "CapEff": kept,
        "CapBnd": kept,
        "CapAmb": nothing,
        "NoNewPrivs": "1",
    }


_READ = "import socket; print(socket.create_connection(('10.0.0.1', 80), 5).recv(64).decode())"


async def _listen(agent: Agent, words: str) -> asyncio.Server:
    """Say `words` to whoever connects to 10.0.0.1:80 in the agent's table."""

    def say(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(words.encode())
        writer.close()

    listener = await agent.open_socket(operation.OpenSocket(family="inet", kind="stream"))
    listener.bind(("10.0.0.1", 80))
    return await asyncio.start_server(say, sock=listener)


async def test_two_tables_serve_on_the_same_address_port_and_mac_at_once(tree: Tree, lab: Lab) -> None:
    hosts, servers = [], []
    for table in ("a", "b"):
        await tree.create(table)
        hosts.append(await lab.host(table, Cable(card=f"card-{table}", card_mac=MAC), ["10.0.0.6/24"]))
        agent = await card(tree, table, f"card-{table}")
        await address(agent, "10.0.0.1/24", "lan")
        servers.append(await _listen(agent, table))
    heard = [(await host.run(["/usr/bin/python3", "-c", _READ])).check().stdout.strip() for host in hosts]
    for server in servers:
        server.close()
        await server.wait_closed()
    assert heard == ["a", "b"]
