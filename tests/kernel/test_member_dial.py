"""One attempt to connect to a member, on the privileged tree alone: whose it is, which way it goes, what it finds and leaves."""

import asyncio
import ipaddress
import json
import os
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from crossns import errors, operation, proc
from crossns.testing.device import wait_until
from crossns.testing.lab import Cable, Host, Lab
from services.proxy import model
from services.proxy.driver.check import Checker
from services.proxy.driver.dial import Dialler
from tests.kernel.privileged import LAYOUT, Tree, address, card, running_for_a_module, token, tree

__all__ = ["running_for_a_module", "tree"]
pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]

# Listens on a port of both families and takes nothing: what it was given stays in its queue.
LISTENER = """
import socket, sys, time
held = socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True, backlog=100)
print("listening", flush=True)
time.sleep(600)
"""
# Counts, by table, who opens connections to port 8080.
COUNTERS = f"""
table inet probe {{
    counter haproxys {{}}
    counter others {{}}
    chain output {{
        type filter hook output priority 0;
        tcp dport 8080 tcp flags == syn meta skuid {LAYOUT.uid("haproxy")} counter name haproxys
        tcp dport 8080 tcp flags == syn meta skuid != {LAYOUT.uid("haproxy")} counter name others
    }}
}}
"""


@pytest_asyncio.fixture(loop_scope="module")
async def hosts(tree: Tree, lab: Lab) -> dict[str, Host]:
    """The tables `a` and `b`, with a host each on the same address."""
    for table in ("a", "b"):
        await tree.create(table)
        await lab.host(table, Cable(card=f"card-{table}"), ["10.0.0.5/24", "fd00::5/64"])
        agent = await card(tree, table, f"card-{table}")
        for prefix in ("10.0.0.1/24", "fd00::1/64"):
            await address(agent, prefix, "lan")
    return lab.hosts


@pytest_asyncio.fixture(loop_scope="module")
async def dialler() -> AsyncIterator[Dialler]:
    made = Dialler(LAYOUT, token())
    yield made
    await made.keep(())


async def target(tree: Tree, table: str, host: str = "10.0.0.5", port: int = 8080) -> model.Target:
    return model.Target(f"{table}.{(await tree.namespaces())[table].cookie}", ipaddress.ip_address(host), port)


async def listen(host: Host) -> None:
    listener = await host.start(["/usr/bin/python3", "-c", LISTENER, "8080"])
    assert listener.stdout
    assert await listener.stdout.readline() == b"listening\n"


async def filtered(host: Host, rule: str) -> None:
    """The host does this with what comes in."""
    text = f"table inet probe {{\nchain input {{\ntype filter hook input priority 0;\n{rule}\n}}\n}}\n"
    (await host.run(["nft", "-f", "-"], stdin=text)).check()


async def counted(*where: str) -> dict[str, int]:
    """Connections opened since the counters were put there, by owner."""
    listed = (await proc.run([*where, "nft", "-j", "list", "counters"])).check().stdout
    counters = (each["counter"] for each in json.loads(listed)["nftables"] if "counter" in each)
    return {counter["name"]: counter["packets"] for counter in counters}


@pytest.mark.parametrize("host", ["10.0.0.5", "fd00::5"])
async def test_what_listens_is_reached_and_never_hears_of_it(
    tree: Tree, hosts: dict[str, Host], dialler: Dialler, host: str
) -> None:
    await listen(hosts["a"])
    wanted = await target(tree, "a", host)
    assert [await dialler.attempt(wanted) for _ in range(20)] == [""] * 20
    # Received and not taken by the program: nothing. Connections on either side, in TIME_WAIT or otherwise: none.
    listening = (await hosts["a"].run(["ss", "-Hltn", "sport = 8080"])).check().stdout.split()
    assert listening[:2] == ["LISTEN", "0"]
    for inside in (["ip", "netns", "exec", "a"], ["nsenter", f"--net={hosts['a'].namespace}"]):
        sockets = await proc.run([*inside, "ss", "-Htan", "state", "all", "exclude", "listening"])
        assert sockets.check().stdout == ""


async def test_members_with_one_address_in_two_tables_are_told_apart(
    tree: Tree, hosts: dict[str, Host], dialler: Dialler
) -> None:
    await listen(hosts["a"])
    assert await dialler.attempt(await target(tree, "a")) == ""
    assert await dialler.attempt(await target(tree, "b")) == "10.0.0.5:8080 in b refuses connections"


async def test_an_attempt_is_haproxys_and_leaves_through_the_members_table_only(
    tree: Tree, hosts: dict[str, Host], dialler: Dialler
) -> None:
    await listen(hosts["a"])
    places = {"a": ["ip", "netns", "exec", "a"], "b": ["ip", "netns", "exec", "b"], "default": []}
    for place in places.values():
        (await proc.run([*place, "nft", "-f", "-"], stdin=COUNTERS)).check()
    try:
        wanted = await target(tree, "a")
        for _ in range(3):
            assert await dialler.attempt(wanted) == ""
        seen = {table: await counted(*place) for table, place in places.items()}
    finally:
        (await proc.run(["nft", "delete", "table", "inet", "probe"])).check()
    nobody = {"haproxys": 0, "others": 0}
    assert seen == {"a": {"haproxys": 3, "others": 0}, "b": nobody, "default": nobody}


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("tcp dport 8080 drop", "does not answer within 1 s"),
        ("tcp dport 8080 reject with tcp reset", "refuses connections"),
        ("tcp dport 8080 reject with icmpx type host-unreachable", "cannot be reached: no host answers there"),
    ],
    ids=["drops", "resets", "is closed off"],
)
async def test_what_stands_in_the_way_is_said(
    tree: Tree, hosts: dict[str, Host], dialler: Dialler, rule: str, words: str
) -> None:
    await listen(hosts["a"])
    await filtered(hosts["a"], rule)
    wanted = await target(tree, "a")
    async with asyncio.timeout(3):
        said = await dialler.attempt(wanted)
    assert said is not None
    assert said.startswith(f"10.0.0.5:8080 in a {words}")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("", "no route leads to it"),
        ("unreachable", "no host answers there, or a route or router says so"),
        ("blackhole", "a blackhole route leads to it"),
        ("prohibit", "a route or rule prohibits it"),
    ],
)
async def test_where_no_route_leads_is_said(tree: Tree, hosts: dict[str, Host], dialler: Dialler, kind: str, words: str) -> None:
    if kind:
        (await proc.run(["ip", "-netns", "a", "route", "add", kind, "192.0.2.5"])).check()
    said = await dialler.attempt(await target(tree, "a", "192.0.2.5"))
    assert said == f"192.0.2.5:8080 in a cannot be reached: {words}"


async def test_a_table_that_was_made_anew_answers_for_no_old_target(
    tree: Tree, hosts: dict[str, Host], dialler: Dialler, lab: Lab
) -> None:
    old = await target(tree, "a")
    assert await dialler.attempt(old) == "10.0.0.5:8080 in a refuses connections"
    await (await tree.launcher()).call(operation.DestroyNamespace(table="a"))
    assert await dialler.attempt(old) is None
    await tree.create("a")
    said: list[str | None] = []

    async def is_answered() -> bool:
        said.extend([await dialler.attempt(old), await dialler.attempt(await target(tree, "a", "192.0.2.5"))])
        return said[-1] is not None

    await wait_until(is_answered)
    assert set(said[0::2]) == {None}
    assert said[-1] == "192.0.2.5:8080 in a cannot be reached: no route leads to it"


async def test_who_is_fenced_is_told(tree: Tree, hosts: dict[str, Host], dialler: Dialler) -> None:
    wanted = await target(tree, "a")
    assert await dialler.attempt(wanted) is not None
    newer = Dialler(LAYOUT, token(2))

    async def is_fenced() -> bool:
        # At first it finds only that its session is lost.
        try:
            return await dialler.attempt(wanted) is not None
        except errors.FailedPrecondition as error:
            return error.reason == "FENCED"

    try:
        assert await newer.attempt(wanted) is not None
        await wait_until(is_fenced)
        assert await newer.attempt(wanted) is not None
    finally:
        await newer.keep(())
        # For the tests behind this one.
        (LAYOUT.fence_dir / "proxy").unlink()


async def test_a_killed_agent_changes_no_verdict(tree: Tree, hosts: dict[str, Host]) -> None:
    up, down = await target(tree, "a"), await target(tree, "b")
    await listen(hosts["a"])
    seen: set[tuple[model.Target, ...]] = set()
    checker = Checker(LAYOUT, token(), lambda: frozenset({up, down}), lambda: seen.add(tuple(checker.down)))
    running = asyncio.create_task(checker.run())
    try:
        await wait_until(lambda: checker.down)
        for table in ("a", "b"):
            os.kill((await tree.namespaces())[table].agent_pid, signal.SIGKILL)
        await wait_until(lambda: _are_back(tree))
        assert dict(checker.down) == {down: "10.0.0.5:8080 in b refuses connections"}
        assert seen <= {(), (down,)}
        # It is checked again.
        await listen(hosts["b"])
        await hosts["a"].stop_all()
        await wait_until(lambda: set(checker.down) == {up})
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _are_back(tree: Tree) -> bool:
    namespaces = (await tree.namespaces()).values()
    return all(each.agent_pid and each.agent_restarts for each in namespaces)
