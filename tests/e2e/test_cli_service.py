"""`crossns service` on the whole suite, with real clients and backends: what came through is shown, who is drained is drained."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from typing import Any

import pytest

from crossns import proc
from crossns.testing.device import Device, doc
from crossns.testing.lab import Cable, Host, Lab
from tests.e2e.terminal import CROSSNS, ENVIRON, crossns

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

TRAFFIC = [sys.executable, "-m", "crossns.testing.traffic"]
VIP = "203.0.113.10"
A = {"name": "a", "routeTable": "routeTables/a", "address": "10.0.0.5", "port": 8080}
B = {"name": "b", "routeTable": "routeTables/b", "address": "10.0.0.5", "port": 8080}
# Is served once, says by whom, and keeps the connection until its other end closes it.
HOLD = """
import socket, sys
file = socket.create_connection((sys.argv[1], 80)).makefile("rwb")
file.write(b"GET / HTTP/1.1\\r\\n\\r\\n")
file.flush()
while file.readline().strip():
    pass
print(file.readline().decode(), flush=True)
file.read()
"""


def web(protocol: str = "TCP", *members: dict[str, Any]) -> str:
    front = {"name": "dmz", "routeTable": "routeTables/dmz", "address": VIP, "port": 80}
    return doc("vServices/web", protocol=protocol, frontends=[front], pools=[{"name": "main", "members": members or (A, B)}])


async def command(*argv: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(crossns, *argv)


async def done(*argv: str) -> str:
    """The output of a command that must succeed."""
    completed = await command(*argv)
    assert completed.returncode == 0, completed.stderr
    return completed.stdout


async def plug(device: Device, lab: Lab, backends: str = "ab") -> Host:
    """The tables dmz, a and b with a host on each, the backends serving under their table's name; the client."""
    for table, net in (("dmz", "203.0.113"), ("a", "10.0.0"), ("b", "10.0.0")):
        number = 9 if table == "dmz" else 5
        await lab.host(table, Cable(card=f"card-{table}"), [f"{net}.{number}/24"])
        lan = {"routeTable": f"routeTables/{table}", "linkName": "lan", "physical": {"linkName": f"card-{table}"}}
        await device.apply(doc(f"routeTables/{table}"), doc(f"interfaces/{table}-lan", **lan, addresses=[f"{net}.1/24"]))
    for table in backends:
        await serve(lab.hosts[table], table)
    return lab.hosts["dmz"]


async def serve(host: Host, name: str) -> None:
    backend = await host.start([*TRAFFIC, "serve", "--listen", "10.0.0.5:8080", "--name", name])
    assert backend.stdout is not None
    assert b"listening" in await backend.stdout.readline()


async def served_by(client: Host, count: int = 8) -> list[str]:
    """Who answers requests, each on a connection of its own."""
    answers = await client.run(["curl", "-sS", "--max-time", "5", "-H", "Connection: close", *[f"http://{VIP}/"] * count])
    return [json.loads(line)["backend"] for line in answers.check().stdout.splitlines()]


async def hold(client: Host) -> tuple[str, proc.Process]:
    """A connection that stays, and who serves it."""
    held = await client.start([sys.executable, "-c", HOLD, VIP])
    assert held.stdout is not None
    return json.loads(await held.stdout.readline())["backend"], held


def member(shown: str, name: str) -> list[str]:
    """The words of a member's line on the screen of `service show`."""
    (line,) = re.findall(rf"^  {name} .*$", shown.partition("\nmembers:\n")[2].partition("\nrequests")[0], re.MULTILINE)
    return str(line).split()


async def test_what_came_through_is_shown_with_every_part(device: Device, lab: Lab) -> None:
    client = await plug(device, lab)
    await device.apply(web("HTTP"))
    assert len(await served_by(client, 6)) == 6
    told = json.loads(await done("service", "show", "web", "-o", "json"))
    alone = json.loads(await done("get", "service", "web", "-o", "json"))
    assert told["vService"] == alone
    (front,), (pool,) = told["statistics"]["frontends"], told["statistics"]["pools"]
    assert (front["name"], front["requestsTotal"], front["responses"]["successfulTotal"]) == ("dmz", 6, 6)
    assert (front["traffic"]["connectionsTotal"], pool["responses"]["successfulTotal"]) == (6, 6)
    members = {each["name"]: each["traffic"]["connectionsTotal"] for each in told["statistics"]["members"]}
    assert (sorted(members), sum(members.values())) == (["main/a", "main/b"], 6)
    shown = await done("service", "show", "web")
    assert shown.startswith("vServices/web  READY  HTTP\n")
    assert re.search(rf"^  dmz +dmz {VIP}:80 +main +READY +0 +6 +[0-9.]+ K?i?B +[0-9.]+ K?i?B +0$", shown, re.MULTILINE)
    assert re.search(r"^  frontend dmz +6 +0 +6 +0 +0 +0 +0$", shown, re.MULTILINE)
    assert member(shown, "main/a")[1:8] == ["a", "10.0.0.5:8080", "1", "ENABLED", "READY", "0", str(members["main/a"])]
    assert re.search(rf"^web +READY +HTTP +dmz {VIP}:80 +1/1 +2/2$", await done("service", "list"), re.MULTILINE)


async def test_without_statistics_everything_else_is_shown_with_a_note(device: Device, lab: Lab) -> None:
    await plug(device, lab)
    await device.apply(web())
    frozen = device.pids("haproxy")
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        shown, as_json = await done("service", "show", "web"), await command("service", "show", "web", "-o", "json")
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
    assert "nothing is counted at present: " in shown
    assert member(shown, "main/a") == ["main/a", "a", "10.0.0.5:8080", "1", "ENABLED", "READY", *"-----"]
    assert (as_json.returncode, json.loads(as_json.stdout)["statistics"]) == (0, None)
    assert as_json.stderr.startswith("note: nothing is counted at present: ")


async def test_drained_member_takes_nothing_new_until_it_is_enabled_again(device: Device, lab: Lab) -> None:
    client = await plug(device, lab)
    await device.apply(web())
    before = (await device.client.get("vServices/web")).spec
    assert set(await served_by(client)) == {"a", "b"}
    assert await done("service", "drain", "web", "a") == "main/a of vServices/web is DRAIN\n"
    assert set(await served_by(client)) == {"b"}
    assert member(await done("service", "show", "web"), "main/a")[4:6] == ["DRAIN", "READY"]
    assert re.search(r" 1/2$", await done("service", "list"), re.MULTILINE)
    assert "already: nothing changed" in await done("service", "drain", "web", "main/a")
    assert await done("service", "enable", "web", "main/a") == "main/a of vServices/web is ENABLED\n"
    assert set(await served_by(client)) == {"a", "b"}
    assert (await device.client.get("vServices/web")).spec == before


async def test_drain_until_idle_waits_for_the_last_connection(device: Device, lab: Lab) -> None:
    client = await plug(device, lab)
    await device.apply(web("TCP", A))
    _, held = await hold(client)
    await device.apply(web())
    timed_out = await command("service", "drain", "web", "a", "--until-idle", "--timeout", "2")
    assert timed_out.returncode == 3
    assert "main/a of vServices/web has 1 connection left after 2 s; the state stays DRAIN" in timed_out.stderr
    idle = asyncio.create_task(done("service", "drain", "web", "a", "--until-idle"))
    await client.stop(held)
    assert (await idle).endswith("main/a of vServices/web has no connection left\n")


async def test_disabled_member_loses_what_it_has_and_others_do_not(device: Device, lab: Lab) -> None:
    client = await plug(device, lab)
    await device.apply(web("TCP", A))
    # The second member takes a reload: this connection is a worker's that only finishes.
    _, early = await hold(client)
    await device.apply(web())
    late = dict([await hold(client) for _ in range(2)])
    assert await done("service", "disable", "web", "a") == "main/a of vServices/web is DISABLED\n"
    for held in (early, late["a"]):
        assert await asyncio.wait_for(held.wait(), 10) == 0
    assert set(await served_by(client)) == {"b"}
    assert late["b"].returncode is None
    assert await done("service", "enable", "web", "a") == "main/a of vServices/web is ENABLED\n"


async def test_last_member_that_serves_goes_only_with_yes(device: Device, lab: Lab) -> None:
    client = await plug(device, lab)
    await device.apply(web())
    await done("service", "drain", "web", "b")
    refused = await command("service", "drain", "web", "a")
    assert refused.returncode == 1
    assert "No other member of the pool main of vServices/web serves" in refused.stderr
    assert f"dmz {VIP}:80 new connections would be closed" in refused.stderr
    assert set(await served_by(client)) == {"a"}
    assert await done("service", "drain", "web", "a", "--yes") == "main/a of vServices/web is DRAIN\n"
    assert (await client.run(["curl", "-s", "--max-time", "5", f"http://{VIP}/"])).status in (52, 56)


async def test_unknown_member_is_told_with_those_there_are(device: Device, lab: Lab) -> None:
    await plug(device, lab)
    await device.apply(web())
    unknown = await command("service", "drain", "web", "c")
    assert unknown.returncode == 1
    assert "vServices/web has no member 'c': it has main/a, main/b" in unknown.stderr
    assert (await command("service", "drain", "nowhere", "a")).returncode == 1


async def test_changes_of_several_people_at_once_all_come_to_pass(device: Device, lab: Lab) -> None:
    await plug(device, lab)
    names = [f"m{number}" for number in range(5)]
    await device.apply(web("TCP", A, *({**A, "name": name, "port": 8000 + int(name[1:])} for name in names)))
    await asyncio.gather(*(done("service", "drain", "web", name, "--no-wait") for name in names))
    members = (await device.client.get("vServices/web")).spec.pools[0].members  # type: ignore[union-attr]
    assert [each.name for each in members if each.state] == names


async def test_backend_that_is_not_up_holds_up_neither_apply_nor_its_draining(device: Device, lab: Lab) -> None:
    client = await plug(device, lab, backends="a")
    await device.apply(web())
    await device.wait_until_state("vServices/web", "DEGRADED")
    completed = await asyncio.to_thread(crossns, "apply", "-f", "-", stdin=web())
    assert completed.returncode == 0
    assert "vServices/web is DEGRADED\n" in completed.stdout
    assert "note: vServices/web: main/b: " in completed.stderr
    shown = await done("service", "show", "web")
    assert member(shown, "main/b")[4:6] == ["ENABLED", "ERROR"]
    assert re.search(r"Healthy +proxy +MEMBER_DOWN +main/b: ", shown)
    assert set(await served_by(client)) == {"a"}
    assert await done("service", "drain", "web", "b") == "main/b of vServices/web is DRAIN, but it does not serve: " + (
        " ".join(member(shown, "main/b")[13:]) + "\n"
    )


async def test_names_of_vservices_and_members_are_completed(device: Device, lab: Lab) -> None:
    await plug(device, lab)
    await device.apply(web())
    assert await completed("crossns service show w") == ["web"]
    assert await completed("crossns service drain web ") == ["a", "b", "main/a", "main/b"]
    assert await completed("crossns service enable web main/b") == ["main/b"]
    assert await completed("crossns service drain other ") == []


async def completed(line: str) -> list[str]:
    """What bash would offer behind `line`."""
    words = line.split(" ")
    asked = {"_CROSSNS_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    run = await asyncio.to_thread(
        subprocess.run, CROSSNS, env={**ENVIRON, **asked}, capture_output=True, text=True, check=True, timeout=20
    )
    return [each.removeprefix("plain,") for each in run.stdout.split()]
