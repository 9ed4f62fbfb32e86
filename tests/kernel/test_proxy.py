"""vServices on the real HAProxy with real packets: clients in two networks, members with one address in two others."""

import asyncio
import contextlib
import itertools
import json
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from crossns import errors, operation, proc
from crossns.launcher import Launcher
from crossns.testing.device import Device, doc, wait_until
from crossns.testing.lab import Cable, Host, Lab
from crossns.v1 import v_service_pb2

pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]

TESTDATA = Path(__file__).parent.parent / "testdata" / "proxy"
TRAFFIC = [sys.executable, "-m", "crossns.testing.traffic"]
# Table -> the addresses of its link and of the host on it.
NETWORKS = {
    "dmz": (["203.0.113.1/24", "2001:db8:1::1/64"], ["203.0.113.9/24", "2001:db8:1::9/64"]),
    "office": (["192.0.2.1/24"], ["192.0.2.9/24"]),
    "default": (["198.51.100.1/24"], ["198.51.100.9/24"]),
    "a": (["10.0.0.1/24", "fd00::1/64"], ["10.0.0.5/24", "fd00::5/64"]),
    "b": (["10.0.0.1/24", "fd00::1/64"], ["10.0.0.5/24", "fd00::5/64"]),
}
A = {"name": "a", "routeTable": "routeTables/a", "address": "10.0.0.5", "port": 8080}
B = {"name": "b", "routeTable": "routeTables/b", "address": "10.0.0.5", "port": 8080}
# Keeps one connection, asks again and again on it and prints each answer.
SESSION = """
import socket, sys, time
file = socket.create_connection((sys.argv[1], int(sys.argv[2]))).makefile("rwb")
while True:
    file.write(b"GET / HTTP/1.1\\r\\n\\r\\n")
    file.flush()
    while file.readline().strip():
        pass
    sys.stdout.buffer.write(file.readline())
    sys.stdout.flush()
    time.sleep(0.02)
"""
# Listens on a port and says so.
HOLD = """
import socket, sys, time
held = socket.create_server((sys.argv[1], int(sys.argv[2])))
print(1, flush=True)
time.sleep(600)
"""


def frontend(name: str, table: str, address: str, port: int = 80, pool: str = "") -> dict[str, Any]:
    return {"name": name, "routeTable": f"routeTables/{table}", "address": address, "port": port, "pool": pool}


def vservice(name: str, *frontends: dict[str, Any], **pools: list[dict[str, Any]]) -> str:
    named = [{"name": pool, "members": members} for pool, members in pools.items()]
    return doc(f"vServices/{name}", protocol="TCP", frontends=frontends, pools=named)


def web(*members: dict[str, Any]) -> str:
    """Two frontends, in dmz and office, and one pool."""
    return vservice("web", frontend("dmz", "dmz", "203.0.113.10"), frontend("office", "office", "192.0.2.10"), main=[*members])


async def plug(device: Device, lab: Lab, *tables: str) -> None:
    """Each of the tables with a host on its link; those of `a`, `b` and `default` serve on 8080 under their table's name."""
    for table in tables:
        link, host = NETWORKS[table]
        await lab.host(table, Cable(card=f"card-{table}"), host)
        lan = {"routeTable": f"routeTables/{table}", "linkName": "lan", "physical": {"linkName": f"card-{table}"}}
        await device.apply(doc(f"routeTables/{table}"), doc(f"interfaces/{table}-lan", **lan, addresses=link))
        if table in ("a", "b", "default"):
            await serve(lab.hosts[table], table, *(address.split("/")[0] for address in host))


async def serve(host: Host, name: str, *addresses: str) -> None:
    listen = [
        part for address in addresses for part in ("--listen", f"[{address}]:8080" if ":" in address else f"{address}:8080")
    ]
    backend = await host.start([*TRAFFIC, "serve", *listen, "--name", name])
    assert backend.stdout is not None
    assert b"listening" in await backend.stdout.readline()


async def served_by(host: Host, target: str, count: int = 8) -> list[str]:
    """Who answers requests that are made one after the other, each on a connection of its own."""
    done = await host.run(["curl", "-sgS", "--max-time", "5", "-H", "Connection: close", *[f"http://{target}/"] * count])
    return [json.loads(line)["backend"] for line in done.check().stdout.splitlines()]


async def is_refused(host: Host, target: str) -> bool:
    """Whether connections to it are refused, or closed without an answer."""
    return (await host.run(["curl", "-sg", "--max-time", "5", f"http://{target}/"])).status in (7, 52, 56)


async def cookie(device: Device, table: str) -> int:
    return (await device.client.identity(f"routeTables/{table}")).netns_cookie


async def engine(device: Device) -> operation.Engine:
    session = await Launcher.connect(device.layout.launcher_socket, "observer", operation.Token(0, 0))
    try:
        engines = await session.call(operation.ListEngines())
    finally:
        await session.close()
    assert isinstance(engines, operation.Engines)
    return engines.items[0]


async def load(host: Host, target: str) -> Counter[str]:
    """For two seconds 1,000 requests a second on kept connections and 200 on new ones; what came of them."""
    rates = ["--connections", "16", "--rate", "1000", "--rate-new", "200", "--seconds", "2"]
    result = json.loads((await host.run([*TRAFFIC, "load", "--target", target, *rates])).check().stdout)
    outcome = Counter({"ok": result["kept"]["ok"] + result["new"]["ok"], **result["by_backend"]})
    return outcome + Counter(result["kept"]["errors"]) + Counter(result["new"]["errors"])


async def while_loaded(host: Host, target: str, change: Callable[[], Coroutine[None, None, None]]) -> Counter[str]:
    """How many requests were `ok`, how many each member answered, how many failed in which way, while the change was made."""
    loaded = asyncio.create_task(load(host, target))
    await wait_until(lambda: is_served(host, target))
    changed = asyncio.create_task(change())
    outcome = await loaded
    while not changed.done():
        outcome += await load(host, target)
    await changed
    return outcome


async def is_served(host: Host, target: str) -> bool:
    return (await host.run(["curl", "-sg", "--max-time", "1", f"http://{target}/"])).status == 0


@contextlib.asynccontextmanager
async def held(table: str, address: str, port: int) -> AsyncIterator[None]:
    """The port is another process's meanwhile."""
    holder = await proc.start(["ip", "netns", "exec", table, sys.executable, "-c", HOLD, address, str(port)])
    try:
        assert holder.stdout is not None
        assert await holder.stdout.readline() == b"1\n"
        yield
    finally:
        proc.kill(holder)
        await holder.wait()


async def test_two_frontends_are_served_in_turn_by_two_members_with_one_address(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "office", "a", "b")
    await device.apply(web(A, B))
    for client, target in (("dmz", "203.0.113.10"), ("office", "192.0.2.10")):
        answers = await served_by(lab.hosts[client], target, 10)
        assert Counter(answers) == {"a": 5, "b": 5}
        assert all(one != other for one, other in itertools.pairwise(answers)), answers


async def test_the_table_of_arrival_chooses_the_pool(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "office", "a", "b")
    frontends = frontend("dmz", "dmz", "203.0.113.10", pool="pa"), frontend("office", "office", "192.0.2.10", pool="pb")
    await device.apply(vservice("web", *frontends, pa=[A], pb=[B]))
    assert set(await served_by(lab.hosts["dmz"], "203.0.113.10")) == {"a"}
    assert set(await served_by(lab.hosts["office"], "192.0.2.10")) == {"b"}
    # The other way round.
    frontends = frontend("dmz", "dmz", "203.0.113.10", pool="pb"), frontend("office", "office", "192.0.2.10", pool="pa")
    await device.apply(vservice("web", *frontends, pa=[A], pb=[B]))
    assert set(await served_by(lab.hosts["dmz"], "203.0.113.10")) == {"b"}
    assert set(await served_by(lab.hosts["office"], "192.0.2.10")) == {"a"}


async def test_both_families_arrive_and_are_forwarded_to_both(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "a", "b")
    frontends = frontend("four", "dmz", "203.0.113.10"), frontend("six", "dmz", "2001:db8:1::10")
    await device.apply(vservice("web", *frontends, main=[A, {**B, "address": "fd00::5"}]))
    for target in ("203.0.113.10", "[2001:db8:1::10]"):
        assert Counter(await served_by(lab.hosts["dmz"], target)) == {"a": 4, "b": 4}


async def test_default_is_listened_in_and_forwarded_to_as_any_other_table(device: Device, lab: Lab) -> None:
    await plug(device, lab, "default", "dmz", "a")
    outside = {"name": "up", "routeTable": "routeTables/default", "address": "198.51.100.9", "port": 8080}
    frontends = frontend("in", "default", "198.51.100.10", pool="a"), frontend("out", "dmz", "203.0.113.10", pool="up")
    await device.apply(vservice("web", *frontends, a=[A], up=[outside]))
    assert set(await served_by(lab.hosts["default"], "198.51.100.10")) == {"a"}
    assert set(await served_by(lab.hosts["dmz"], "203.0.113.10")) == {"default"}


async def test_haproxy_itself_stands_in_no_network(device: Device, lab: Lab) -> None:
    """So that a socket of it that were made in no table would lead nowhere."""
    await plug(device, lab, "dmz", "a")
    await device.apply(vservice("web", frontend("dmz", "dmz", "203.0.113.10"), main=[A]))
    own = [Path(f"/proc/{pid}/ns/net").stat().st_ino for pid in device.pids("haproxy")]
    assert Path("/proc/self/ns/net").stat().st_ino not in own
    links = await proc.run(["nsenter", f"--net=/proc/{device.pid('haproxy')}/ns/net", "ip", "-o", "link", "show", "up"])
    assert links.check().stdout == ""


async def test_a_member_that_refuses_costs_no_client_its_request(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "a", "b")
    await device.apply(vservice("web", frontend("dmz", "dmz", "203.0.113.10"), main=[A, {**B, "port": 8081}]))
    assert set(await served_by(lab.hosts["dmz"], "203.0.113.10")) == {"a"}


async def test_a_deleted_vservice_no_longer_listens_and_the_last_one_ends_the_engine(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "a")
    other = vservice("other", frontend("dmz", "dmz", "203.0.113.11"), main=[A])
    await device.apply(vservice("web", frontend("dmz", "dmz", "203.0.113.10"), main=[A]), other)
    assert await is_served(lab.hosts["dmz"], "203.0.113.10")
    await device.delete("vServices/web")
    assert not await is_served(lab.hosts["dmz"], "203.0.113.10")
    assert await is_served(lab.hosts["dmz"], "203.0.113.11")
    await device.delete("vServices/other")
    assert device.pids("haproxy") == []


async def test_a_table_that_was_made_anew_is_served_from_its_new_namespace(device: Device, lab: Lab) -> None:
    """HAProxy runs on because of another vService, and must not keep the listener in the namespace that is gone."""
    await plug(device, lab, "dmz", "office", "a")
    await device.apply(
        vservice("stays", frontend("office", "office", "192.0.2.10"), main=[A]),
        vservice("web", frontend("dmz", "dmz", "203.0.113.10"), main=[A]),
    )
    before = await cookie(device, "dmz")
    master = device.pid("haproxy")
    await device.delete("vServices/web")
    await device.delete("interfaces/dmz-lan", "routeTables/dmz")
    await lab.remove(lab.hosts["dmz"])
    await plug(device, lab, "dmz")
    await device.apply(vservice("web", frontend("dmz", "dmz", "203.0.113.10"), main=[A]))
    assert await cookie(device, "dmz") != before
    assert device.pid("haproxy") == master
    assert set(await served_by(lab.hosts["dmz"], "203.0.113.10")) == {"a"}


async def test_reloads_under_load_lose_no_request(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "office", "a", "b")
    await device.apply(web(A, B))
    before = (await engine(device)).reloads

    async def change() -> None:
        for number in range(6):
            await device.apply(vservice("other", frontend("dmz", "dmz", "203.0.113.11", 81 + number), main=[A]))

    outcome = await while_loaded(lab.hosts["dmz"], "203.0.113.10:80", change)
    assert (await engine(device)).reloads >= before + 6
    assert set(outcome) == {"ok", "a", "b"}, outcome
    assert outcome["ok"] > 1000, outcome


async def test_an_established_connection_survives_a_reload(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "a", "b")
    await device.apply(vservice("web", frontend("dmz", "dmz", "203.0.113.10"), main=[A]))
    session = await lab.hosts["dmz"].start([sys.executable, "-c", SESSION, "203.0.113.10", "80"])
    assert session.stdout is not None
    first = json.loads(await session.stdout.readline())
    workers = set(device.pids("haproxy"))
    # Even the member that it goes to leaves the pool.
    await device.apply(vservice("web", frontend("dmz", "dmz", "203.0.113.10"), main=[B]))
    assert set(await served_by(lab.hosts["dmz"], "203.0.113.10")) == {"b"}
    assert set(device.pids("haproxy")) > workers
    for _ in range(20):
        assert json.loads(await session.stdout.readline()) == first


async def test_changes_that_come_together_share_reloads(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "a")
    await device.apply(vservice("web", frontend("dmz", "dmz", "203.0.113.10"), main=[A]))
    before = (await engine(device)).reloads
    many = [vservice(f"v{port}", frontend("dmz", "dmz", "203.0.113.10", port), main=[A]) for port in range(100, 150)]
    await device.apply(*many)
    assert (await engine(device)).reloads - before < 25
    assert await is_served(lab.hosts["dmz"], "203.0.113.10:149")


async def test_the_engine_is_back_when_it_was_killed_and_is_not_reloaded(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "a")
    await device.apply(vservice("web", frontend("dmz", "dmz", "203.0.113.10"), main=[A]))
    before = await device.kernel_writes()
    await device.kill("haproxy")
    await wait_until(lambda: is_served(lab.hosts["dmz"], "203.0.113.10"))
    assert (await engine(device)).restarts == 1
    # A further vService is one change, and everything that came before it has settled.
    await device.apply(vservice("other", frontend("dmz", "dmz", "203.0.113.11"), main=[A]))
    assert (await device.kernel_writes())["launcher"] == before["launcher"] + 1


async def test_a_restarted_proxy_finds_everything_as_it_should_be(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "a", "b")
    await device.apply(vservice("web", frontend("dmz", "dmz", "203.0.113.10"), main=[A, B]))
    before = await device.kernel_writes()

    async def change() -> None:
        await device.kill("proxy")
        await wait_until(lambda: device.pids("proxy"))

    assert set(await while_loaded(lab.hosts["dmz"], "203.0.113.10:80", change)) == {"ok", "a", "b"}
    await device.apply(vservice("other", frontend("dmz", "dmz", "203.0.113.11"), main=[A]))
    assert (await device.kernel_writes())["launcher"] == before["launcher"] + 1


async def test_a_port_that_another_process_holds_stops_nobody_else(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "office", "a", "b")
    await device.apply(web(A, B))
    wanted = [
        vservice("blocked", frontend("free", "office", "192.0.2.11"), frontend("held", "dmz", "203.0.113.11"), main=[A]),
        *(vservice(f"v{port}", frontend("fe", "office", "192.0.2.11", port), main=[B]) for port in range(81, 90)),
    ]

    async def change() -> None:
        await device.apply(*wanted, wait=False)
        await device.wait_until_state("vServices/v89", "READY")

    async with held("dmz", "203.0.113.11", 80):
        # HAProxy would pause all listeners for two seconds where it cannot open one.
        assert set(await while_loaded(lab.hosts["dmz"], "203.0.113.10:80", change)) == {"ok", "a", "b"}
        blocked = await device.wait_until_state("vServices/blocked", "DEGRADED")
    assert isinstance(blocked, v_service_pb2.VService)
    parts = {part.name: part.reason for part in blocked.status.frontends if part.service == "proxy"}
    assert parts == {"free": "OK", "held": "ENGINE_REFUSED"}
    assert await is_served(lab.hosts["office"], "192.0.2.11")
    assert await is_served(lab.hosts["office"], "192.0.2.11:89")
    assert Counter(await served_by(lab.hosts["dmz"], "203.0.113.10")) == {"a": 4, "b": 4}
    # Whatever happens to the engine now, it starts with what is in its file.
    await device.kill("haproxy")
    await wait_until(lambda: is_served(lab.hosts["office"], "192.0.2.11:89"))
    # The port is free again, which nobody tells.
    await device.wait_until_state("vServices/blocked", "READY")
    assert await is_served(lab.hosts["dmz"], "203.0.113.11")


async def test_a_pool_without_a_member_that_answers_refuses_its_clients(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "a")
    await device.apply(vservice("web", frontend("dmz", "dmz", "203.0.113.10"), main=[{**A, "port": 9}]))
    assert await is_refused(lab.hosts["dmz"], "203.0.113.10")


async def test_a_vip_belongs_to_one_vservice_and_is_free_again_behind_it(device: Device) -> None:
    await device.apply(doc("routeTables/dmz"))
    first = vservice("first", frontend("fe", "dmz", "203.0.113.10"), main=[{**A, "routeTable": "routeTables/dmz"}])
    second = vservice("second", frontend("fe", "dmz", "203.0.113.10"), main=[{**A, "routeTable": "routeTables/dmz"}])
    await device.apply(first)
    with pytest.raises(errors.CrossnsError, match=r"vServices/first listens on 203\.0\.113\.10:80 in routeTables/dmz already"):
        await device.apply(second, wait=False)
    await device.delete("vServices/first")
    await device.apply(second)


async def test_a_table_that_a_vservice_uses_stays(device: Device) -> None:
    await device.apply(doc("routeTables/dmz"), doc("routeTables/a"))
    await device.apply(vservice("web", frontend("fe", "dmz", "203.0.113.10"), main=[A]))
    for table in ("routeTables/dmz", "routeTables/a"):
        with pytest.raises(errors.FailedPrecondition, match=r"is still used by vServices/web"):
            await device.delete(table, wait=False)


@pytest.mark.parametrize("name", sorted(path.name for path in TESTDATA.glob("*.cfg")))
async def test_haproxy_takes_every_reviewed_file(name: str) -> None:
    text = (TESTDATA / name).read_text(encoding="utf-8")
    namespaces = sorted(set(re.findall(r" namespace (\S+)", text)))
    for namespace in namespaces:
        (await proc.run(["ip", "netns", "add", namespace])).check()
    try:
        checked = await proc.run(["haproxy", "-W", "-c", "-f", str(TESTDATA / name)])
        assert (checked.status, checked.stdout.strip()) == (0, "Configuration file is valid"), checked.stderr
        assert "WARNING" not in checked.stderr
    finally:
        for namespace in namespaces:
            (await proc.run(["ip", "netns", "delete", namespace])).check()
