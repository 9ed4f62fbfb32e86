"""Members that fail on a running device: taken out, told apart, taken back; who is asked, and what the end of a process means."""

import asyncio
import json
import os
import re
import signal
import time
from collections import Counter

import pytest

from crossns import proc
from crossns.testing.device import Device, wait_until
from crossns.testing.lab import Host, Lab
from crossns.v1 import status_pb2, v_service_pb2
from tests.kernel.test_proxy import A, B, frontend, plug, serve, served_by, vservice

pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]

VIP = "203.0.113.10"
# A host counts who asks for port 8080, and may drop it.
INPUT = """
table inet probe {{
    counter asked {{}}
    chain input {{
        type filter hook input priority 0;
        tcp dport 8080 tcp flags == syn counter name asked {verdict}
    }}
}}
"""
# A table counts who opens connections to port 8080.
OUTPUT = """
table inet probe {{
    counter haproxys {{}}
    counter others {{}}
    chain output {{
        type filter hook output priority 0;
        tcp dport 8080 tcp flags == syn meta skuid {uid} counter name haproxys
        tcp dport 8080 tcp flags == syn meta skuid != {uid} counter name others
    }}
}}
"""


async def served(device: Device, lab: Lab) -> None:
    """One vService with a member in `a` and one in `b`, both on one address."""
    await plug(device, lab, "dmz", "a", "b")
    await device.apply(vservice("web", frontend("fe", "dmz", VIP), main=[A, B]))
    assert Counter(await served_by(lab.hosts["dmz"], VIP)) == {"a": 4, "b": 4}


async def until_members_are(device: Device, state: str, **reasons: str) -> dict[str, str]:
    """Until the vService is in this state and the proxy says that of its members; what it says for a person."""
    seen: dict[str, str] = {}
    words: dict[str, str] = {}

    async def is_so() -> bool:
        found = await device.client.get("vServices/web")
        assert isinstance(found, v_service_pb2.VService)
        parts = {part.name.removeprefix("main/"): part for part in found.status.members if part.service == "proxy"}
        seen.update({name: part.reason for name, part in parts.items()}, state=status_pb2.State.Name(found.status.state))
        words.update({name: part.message for name, part in parts.items()})
        return seen == {**reasons, "state": f"STATE_{state}"}

    try:
        await wait_until(is_so)
    except TimeoutError:
        pytest.fail(f"{seen} {words}")
    return words


async def counted(*where: str) -> dict[str, int]:
    listed = (await proc.run([*where, "nft", "-j", "list", "counters"])).check().stdout
    counters = (each["counter"] for each in json.loads(listed)["nftables"] if "counter" in each)
    return {counter["name"]: counter["packets"] for counter in counters}


async def asked(host: Host) -> int:
    return (await counted("nsenter", f"--net={host.namespace}"))["asked"]


def member_lines(device: Device) -> list[str]:
    """What the log says of members, in order."""
    lines = (json.loads(line)["message"] for name, line in device.log if name == "proxy" and line.startswith("{"))
    return [line for line in lines if re.match("member (up|down): ", line)]


@pytest.mark.parametrize(("dead", "alive"), [("a", "b"), ("b", "a")])
async def test_a_member_whose_program_has_ended_is_asked_by_nobody_until_it_is_back(
    device: Device, lab: Lab, dead: str, alive: str
) -> None:
    await served(device, lab)
    logged = len(member_lines(device))
    await lab.hosts[dead].stop_all()
    words = await until_members_are(device, "DEGRADED", **{dead: "MEMBER_DOWN", alive: "OK"})
    assert words[dead] == f"10.0.0.5:8080 in {dead} refuses connections"
    (await lab.hosts[dead].run(["nft", "-f", "-"], stdin=INPUT.format(verdict=""))).check()
    assert set(await served_by(lab.hosts["dmz"], VIP, 50)) == {alive}
    # By the checks alone: 50 clients would have been 25 more.
    assert await asked(lab.hosts[dead]) < 10
    await serve(lab.hosts[dead], dead, "10.0.0.5")
    await until_members_are(device, "READY", a="OK", b="OK")
    assert Counter(await served_by(lab.hosts["dmz"], VIP)) == {"a": 4, "b": 4}
    down, up = member_lines(device)[logged:]
    assert down == f"member down: 10.0.0.5:8080 in {dead} refuses connections"
    assert up == f"member up: 10.0.0.5:8080 in {dead} accepts connections"


async def test_a_member_that_drops_what_comes_delays_no_client(device: Device, lab: Lab) -> None:
    await served(device, lab)
    (await lab.hosts["b"].run(["nft", "-f", "-"], stdin=INPUT.format(verdict="drop"))).check()
    words = await until_members_are(device, "DEGRADED", a="OK", b="MEMBER_DOWN")
    assert words["b"] == "10.0.0.5:8080 in b does not answer within 1 s"
    began = time.monotonic()
    assert set(await served_by(lab.hosts["dmz"], VIP, 20)) == {"a"}
    # One attempt to connect to it alone would take longer.
    assert time.monotonic() - began < 5
    (await lab.hosts["b"].run(["nft", "delete", "table", "inet", "probe"])).check()
    await until_members_are(device, "READY", a="OK", b="OK")
    assert Counter(await served_by(lab.hosts["dmz"], VIP)) == {"a": 4, "b": 4}


async def test_checks_are_haproxys_and_leave_through_the_members_table_only(device: Device, lab: Lab) -> None:
    await served(device, lab)
    places = {table: ["ip", "netns", "exec", table] for table in ("a", "b", "dmz")} | {"default": []}
    for place in places.values():
        (await proc.run([*place, "nft", "-f", "-"], stdin=OUTPUT.format(uid=device.layout.uid("haproxy")))).check()

    async def all_counted() -> dict[str, dict[str, int]]:
        return {table: await counted(*place) for table, place in places.items()}

    async def are_checked() -> bool:
        seen = await all_counted()
        return min(seen["a"]["haproxys"], seen["b"]["haproxys"]) >= 2

    try:
        await wait_until(are_checked)
        seen = await all_counted()
    finally:
        (await proc.run(["nft", "delete", "table", "inet", "probe"])).check()
    assert {table: counts["others"] for table, counts in seen.items()} == dict.fromkeys(places, 0)
    assert (seen["dmz"]["haproxys"], seen["default"]["haproxys"]) == (0, 0)


@pytest.mark.parametrize("process", ["agent", "proxy"])
async def test_a_killed_process_takes_nobody_out_and_nobody_back(device: Device, lab: Lab, process: str) -> None:
    await served(device, lab)
    await lab.hosts["b"].stop_all()
    await until_members_are(device, "DEGRADED", a="OK", b="MEMBER_DOWN")
    logged, mark = len(member_lines(device)), len(device.log)
    for name in ["agent a", "agent b"] if process == "agent" else ["proxy"]:
        await device.kill(name)
        await wait_until(lambda name=name: device.pids(name))
    await wait_until(device.serves)
    await until_members_are(device, "DEGRADED", a="OK", b="MEMBER_DOWN")
    if process == "agent":
        assert member_lines(device)[logged:] == []
    # What HAProxy says when it takes a server back.
    assert not [line for _, line in device.log[mark:] if "is UP/READY" in line]
    # They are checked again.
    await serve(lab.hosts["b"], "b", "10.0.0.5")
    await until_members_are(device, "READY", a="OK", b="OK")
    await asyncio.gather(lab.hosts["a"].stop_all(), lab.hosts["b"].stop_all())
    await until_members_are(device, "ERROR", a="MEMBER_DOWN", b="MEMBER_DOWN")


async def test_a_frozen_agent_changes_no_verdict_and_delays_no_other_table(device: Device, lab: Lab) -> None:
    await served(device, lab)
    agent = device.pid("agent b")
    os.kill(agent, signal.SIGSTOP)
    try:
        await asyncio.gather(lab.hosts["a"].stop_all(), lab.hosts["b"].stop_all())
        await until_members_are(device, "DEGRADED", a="MEMBER_DOWN", b="OK")
    finally:
        os.kill(agent, signal.SIGCONT)
    await until_members_are(device, "ERROR", a="MEMBER_DOWN", b="MEMBER_DOWN")
