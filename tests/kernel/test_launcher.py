"""Namespaces and agents as a service meets them at the launcher, and what is left of them when somebody is killed."""

import asyncio
import os
import random
import signal
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from crossns import errors, netns, operation, proc, wire
from crossns.testing.device import wait_until
from crossns.testing.lab import Cable, Lab
from services.nsmanager.agent.spares import KEPT
from tests.kernel.privileged import LAYOUT, Tree, inode, ip, own_loop, own_tree, process_status, refusal, spares, token

__all__ = ["own_loop", "own_tree"]
pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]


def name_of(table: str) -> Path:
    return LAYOUT.netns / table


def incarnations() -> list[str]:
    """The mounts that stand for namespaces which the launcher made."""
    return [path.name for path in LAYOUT.incarnations.iterdir() if not path.name.startswith("default.")]


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}/cmdline").exists() and bool(Path(f"/proc/{pid}/cmdline").read_bytes())


def agents() -> list[str]:
    """The table (as far as the kernel keeps it) of every process that calls itself an agent."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                comm = (entry / "comm").read_text().strip()
            except OSError:
                continue
            if comm.startswith("agent-"):
                found.append(comm.removeprefix("agent-"))
    return sorted(found)


async def test_new_namespace_is_there_for_operators_with_an_agent_in_it(tree: Tree) -> None:
    made = await tree.create("a")
    assert "a" in (await ip("netns", "list")).split()
    seen = await tree.dump("a")
    assert seen.cookie == made.cookie
    assert [(link.name, link.up) for link in seen.links] == [("lo", True)]
    assert seen.sysctls["net.ipv4.ip_nonlocal_bind"] == seen.sysctls["net.ipv6.ip_nonlocal_bind"] == "1"
    assert netns.is_same(name_of("a"), LAYOUT.incarnations / f"a.{made.cookie}")


async def test_creating_what_is_there_changes_nothing(tree: Tree) -> None:
    launcher = await tree.launcher()
    first = await launcher.call(operation.CreateNamespace(table="a"))
    before = await launcher.call(operation.Statistics())
    assert await launcher.call(operation.CreateNamespace(table="a")) == first
    after = await launcher.call(operation.Statistics())
    assert isinstance(before, operation.Counters)
    assert isinstance(after, operation.Counters)
    assert before.writes == after.writes


async def test_destroyed_namespace_is_gone_and_its_successor_is_another(tree: Tree) -> None:
    first = await tree.create("a")
    launcher = await tree.launcher()
    for _ in range(2):
        assert await launcher.call(operation.DestroyNamespace(table="a")) is None
    assert not is_alive(first.agent_pid)
    assert not name_of("a").exists()
    assert incarnations() == []
    assert (await tree.create("a")).cookie != first.cookie


async def test_namespace_of_somebody_else_stays_untouched(tree: Tree) -> None:
    await ip("netns", "add", "a")
    before = inode(name_of("a"))
    refused = await refusal(await tree.launcher(), operation.CreateNamespace(table="a"))
    assert (type(refused), refused.reason) == (errors.PermanentError, "FOREIGN_OBJECT")
    assert await (await tree.launcher()).call(operation.DestroyNamespace(table="a")) is None
    assert inode(name_of("a")) == before
    assert await tree.namespaces() == {}
    await ip("netns", "delete", "a")


async def test_plain_file_in_the_way_stays_untouched(tree: Tree) -> None:
    name_of("a").write_text("mine")
    assert (await refusal(await tree.launcher(), operation.CreateNamespace(table="a"))).reason == "FOREIGN_OBJECT"
    assert name_of("a").read_text() == "mine"
    name_of("a").unlink()


async def test_name_that_an_operator_deleted_comes_back_on_the_same_namespace(tree: Tree) -> None:
    events: list[operation.Event] = []
    launcher = await tree.launcher(on_event=events.append)
    made = await launcher.call(operation.CreateNamespace(table="a"))
    assert isinstance(made, operation.Namespace)
    await ip("netns", "delete", "a")
    await wait_until(lambda: operation.NamespaceChanged(table="a") in events)
    assert not (await tree.namespaces())["a"].attached
    attached = await (await tree.launcher()).call(operation.AttachNamespace(table="a"))
    assert isinstance(attached, operation.Namespace)
    assert (attached.attached, attached.cookie, attached.agent_pid) == (True, made.cookie, made.agent_pid)
    assert (await tree.dump("a")).cookie == made.cookie


async def test_name_that_somebody_took_meanwhile_is_reported_and_left(tree: Tree) -> None:
    await tree.create("a")
    await ip("netns", "delete", "a")
    await ip("netns", "add", "a")
    taken = (await tree.namespaces())["a"]
    assert (taken.attached, taken.occupied) == (False, True)
    assert (await refusal(await tree.launcher(), operation.AttachNamespace(table="a"))).reason == "FOREIGN_OBJECT"
    await (await tree.launcher()).call(operation.DestroyNamespace(table="a"))
    assert name_of("a").exists()
    await ip("netns", "delete", "a")


@pytest.mark.parametrize("table", ["../a", "", "a/b", "A", "a.1", "a\n", "default"])
async def test_name_that_is_no_id_reaches_no_file(tree: Tree, table: str) -> None:
    launcher = await tree.launcher()
    for wanted in (operation.CreateNamespace(table=table), operation.DestroyNamespace(table=table)):
        assert (await refusal(launcher, wanted)).reason in {"INVALID_NAME", "REQUIRED_FIELD", "ROUTE_TABLE_BUILT_IN"}
    assert incarnations() == []


async def test_stale_token_is_refused_everywhere_once_a_newer_one_was_seen_anywhere(tree: Tree) -> None:
    """The new session has talked to the launcher only; the agent that the old one still talks to knows nevertheless."""
    await tree.create("a")
    old_launcher, old_agent = await tree.launcher(key=token(1)), await tree.agent("a", token(1))
    await tree.launcher(key=token(2))
    await old_launcher.wait_until_closed()
    bridge = operation.CreateLink(name="br0", mark="interfaces.br0", kind="bridge")
    assert (await refusal(old_agent, bridge)).reason == "FENCED"
    for connect in (tree.launcher(key=token(1)), tree.agent("a", token(1))):
        with pytest.raises(errors.FailedPrecondition) as raised:
            await connect
        assert raised.value.reason == "FENCED"
    assert [link.name for link in (await (await tree.agent("a", token(2))).call(operation.Dump())).links] == ["lo"]  # type: ignore[union-attr]
    counted = await old_agent.call(operation.Statistics()) if not old_agent.is_closed else None
    assert counted is None or counted.refused >= 1  # type: ignore[union-attr]


async def test_replaced_cluster_never_comes_back(tree: Tree) -> None:
    await tree.launcher(key=token(9, cluster=1))
    await tree.launcher(key=token(1, cluster=2))
    with pytest.raises(errors.FailedPrecondition):
        await tree.launcher(key=token(10, cluster=1))
    await tree.launcher(key=token(2, cluster=2))


async def test_fence_outlives_the_launcher(tree: Tree) -> None:
    await tree.launcher(key=token(5))
    await tree.end()
    await tree.start()
    with pytest.raises(errors.FailedPrecondition):
        await tree.launcher(key=token(4))
    await tree.launcher(key=token(5))


async def test_services_do_not_do_each_others_work(tree: Tree) -> None:
    proxy = await tree.launcher("proxy")
    assert (await refusal(proxy, operation.CreateNamespace(table="a"))).reason == "PERMISSION_DENIED"
    launcher = await tree.launcher()
    for engine in (operation.StartEngine(engine="haproxy", config=""), operation.SaveEngine(engine="haproxy", config="")):
        assert (await refusal(launcher, engine)).reason == "PERMISSION_DENIED"
    counted = await proxy.call(operation.Statistics())
    assert isinstance(counted, operation.Counters)
    assert (counted.refused, counted.writes) == (3, 0)
    assert isinstance(await proxy.call(operation.ListNamespaces()), operation.Namespaces)


_TALK = """
import socket, sys
peer = socket.socket(socket.AF_UNIX); peer.settimeout(5); peer.connect(sys.argv[1]); peer.send(bytes.fromhex(sys.argv[2]))
print(peer.recv(4096).hex())
"""


async def talk_as(uid: int, path: Path, service: str) -> operation.Reply | None:
    """What a process of that uid hears to its hello; None when it is cut off."""
    hello = wire.encode(operation.Call(1, operation.Hello(service=service, token=token())))
    become = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    done = await proc.run([*become, "/usr/bin/python3", "-c", _TALK, str(path), hello.hex()])
    decoder: wire.Decoder[operation.Reply] = wire.Decoder(operation.Reply)
    replies = decoder.feed(bytes.fromhex(done.stdout.strip())) if done.status == 0 else []
    return replies[0] if replies else None


async def test_uid_decides_who_a_peer_is(tree: Tree) -> None:
    path = LAYOUT.launcher_socket
    assert await talk_as(12345, path, "nsmanager") is None
    assert await talk_as(12345, LAYOUT.agent_socket("default"), "nsmanager") is None
    other = await talk_as(LAYOUT.uid("proxy"), path, "nsmanager")
    assert other
    assert other.fault
    assert other.fault.reason == "PERMISSION_DENIED"
    own = await talk_as(LAYOUT.uid("nsmanager"), path, "nsmanager")
    assert own
    assert isinstance(own.result, operation.Welcome)


async def test_peer_that_speaks_something_else_is_cut_off_and_no_other(tree: Tree) -> None:
    launcher = await tree.launcher()
    for garbage in (b"GET / HTTP/1.0\r\n\r\n", struct.pack(">I", 3) + b"abc", struct.pack(">I", 2**31)):
        reader, writer = await asyncio.open_unix_connection(os.fspath(LAYOUT.launcher_socket))
        writer.write(garbage)
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
    assert isinstance(await launcher.call(operation.ListNamespaces()), operation.Namespaces)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_launcher_that_returns_finds_its_namespaces_and_agents(tree: Tree, number: signal.Signals) -> None:
    made = await tree.create("a")
    agent = await tree.agent("a")
    await tree.end(number)
    # Nobody needs the launcher to go on.
    assert isinstance(await agent.call(operation.Dump()), operation.Snapshot)
    await tree.start()
    assert await tree.namespaces() == {"a": made}
    assert not agent.is_closed


async def test_agent_that_was_killed_is_back_in_its_namespace(tree: Tree) -> None:
    events: list[operation.Event] = []
    launcher = await tree.launcher(on_event=events.append)
    made = await launcher.call(operation.CreateNamespace(table="a"))
    assert isinstance(made, operation.Namespace)
    for restarts in (1, 2, 3):
        pid = (await _namespace(launcher)).agent_pid
        os.kill(pid, signal.SIGKILL)
        await wait_until(lambda pid=pid: operation.AgentExited(table="a", pid=pid) in events)
        await wait_until(lambda pid=pid: _is_answering(launcher, pid))
        assert (await _namespace(launcher)).agent_restarts == restarts
    assert (await tree.dump("a")).cookie == made.cookie


async def _namespace(launcher: object) -> operation.Namespace:
    listed = await launcher.call(operation.ListNamespaces(table="a"))  # type: ignore[attr-defined]
    assert isinstance(listed, operation.Namespaces)
    return listed.items[0]


async def _is_answering(launcher: object, but: int) -> bool:
    return (await _namespace(launcher)).agent_pid not in {0, but}


async def test_agents_that_died_with_the_launcher_are_back_with_it(tree: Tree) -> None:
    made = await tree.create("a")
    await tree.end()
    os.kill(made.agent_pid, signal.SIGKILL)
    await wait_until(lambda: not is_alive(made.agent_pid))
    await tree.start()
    launcher = await tree.launcher()
    await wait_until(lambda: _is_answering(launcher, made.agent_pid))
    assert (await tree.dump("a")).cookie == made.cookie


async def test_zygote_that_was_killed_costs_no_agent_and_is_replaced(tree: Tree) -> None:
    """Its spares end with it: they are nobody's."""
    made = await tree.create("a")
    await wait_until(lambda: len(spares()) == KEPT)
    waiting = spares()
    zygote = int(process_status(made.agent_pid)["PPid"])
    os.kill(zygote, signal.SIGKILL)
    await wait_until(lambda: not is_alive(zygote))
    await wait_until(lambda: not waiting & spares())
    assert is_alive(made.agent_pid)
    assert (await tree.create("b")).agent_pid


async def test_second_agent_in_a_namespace_ends_itself(tree: Tree) -> None:
    """A launcher whose record of the agent was lost has another forked; the first one holds its place."""
    made = await tree.create("a")
    await tree.end()
    record = LAYOUT.launcher_dir / "agents" / f"a.{made.cookie}"
    content = record.read_bytes()
    record.write_bytes(b"")
    await tree.start()
    await wait_until(lambda: asyncio.sleep(0.3, result=True))
    assert agents() == ["a", "default"]
    record.write_bytes(content)
    assert (await tree.create("a")).agent_pid == made.agent_pid


async def test_launcher_killed_at_any_moment_leaks_nothing(
    tree: Tree, dice: random.Random, count: Callable[[int, int], int]
) -> None:
    for _ in range(count(12, 200)):
        launcher = await tree.launcher()
        rounds = asyncio.ensure_future(_create_and_destroy(launcher))
        await asyncio.sleep(dice.uniform(0, 0.06))
        await tree.end()
        await asyncio.gather(rounds, return_exceptions=True)
        await tree.start()
        left = await tree.namespaces()
        launcher = await tree.launcher()
        for table in left:
            await launcher.call(operation.CreateNamespace(table=table))
            await launcher.call(operation.DestroyNamespace(table=table))
        await wait_until(lambda: agents() == ["default"])
        assert incarnations() == []
        assert list(LAYOUT.netns.iterdir()) == []


async def _create_and_destroy(launcher: object) -> None:
    while True:
        for table in ("a", "b"):
            await launcher.call(operation.CreateNamespace(table=table))  # type: ignore[attr-defined]
        for table in ("a", "b"):
            await launcher.call(operation.DestroyNamespace(table=table))  # type: ignore[attr-defined]


async def test_mounts_that_are_hidden_stop_the_start_before_anything_is_lost(tree: Tree) -> None:
    made = await tree.create("a")
    await tree.end()
    hidden = LAYOUT.incarnations / "b.77"
    hidden.touch()
    done = await proc.run([sys.executable, "-m", "services.nsmanager.launcher"])
    assert done.status == 1
    assert "plain file where a namespace should be mounted" in done.stderr
    assert is_alive(made.agent_pid)
    hidden.unlink()
    await tree.start()


async def test_second_launcher_refuses_to_start(tree: Tree) -> None:
    done = await proc.run([sys.executable, "-m", "services.nsmanager.launcher"])
    assert (done.status, "another launcher" in done.stderr) == (1, True)


@pytest.mark.parametrize("is_dead", [True, False])
async def test_down_gives_cards_back_and_leaves_nothing(tree: Tree, lab: Lab, *, is_dead: bool) -> None:
    await lab.host("h", Cable(card="card0"))
    await tree.create("a")
    move = operation.MoveLink(name="card0", table="a", new_name="lan", mark="interfaces.lan")
    await (await tree.agent("default")).call(move)
    route = operation.Route(destination="198.51.100.0/24", kind="blackhole")
    await (await tree.agent("default")).call(operation.PutRoute(route=route))
    vip = operation.AddAddress(link="lo", prefix="198.51.100.1/32", protocol=operation.VIP_PROTOCOL)
    await (await tree.agent("default")).call(vip)
    if is_dead:
        await tree.end()
    for _ in range(2):
        (await tree.down()).check()
    card = await ip("link", "show", "card0")
    assert "altname" not in card
    assert "198.51.100" not in await ip("route", "show") + await ip("address", "show")
    assert agents() == []
    assert not LAYOUT.run.exists()
    assert list(LAYOUT.netns.iterdir()) == []


async def test_down_leaves_what_is_not_ours(tree: Tree) -> None:
    await ip("netns", "add", "theirs")
    await ip("address", "add", "198.51.100.9/32", "dev", "lo")
    (await tree.down()).check()
    assert "theirs" in await ip("netns", "list")
    assert "198.51.100.9" in await ip("address", "show")
    await ip("netns", "delete", "theirs")
    await ip("address", "delete", "198.51.100.9/32", "dev", "lo")
