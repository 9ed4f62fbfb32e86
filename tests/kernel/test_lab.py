"""The sandbox and the lab: private, real, and gone afterwards, also after a kill."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from crossns import errors, proc
from crossns.testing import sandbox
from crossns.testing.lab import Cable, Host, Lab
from crossns.testing.traffic import proxy_header

pytestmark = pytest.mark.kernel

SANDBOX = (sys.executable, "-m", "crossns.testing.sandbox")
TRAFFIC = (sys.executable, "-m", "crossns.testing.traffic")
# A duration that nobody else sleeps.
SLEEP = "12345"
# An established connection to 10.0.0.5:80, as proc(5) spells it.
_ESTABLISHED = "0500000A:0050 01"
MAC = "02:00:00:00:00:05"


async def ip(*commands: str) -> None:
    (await proc.run(["ip", "-batch", "-"], stdin="\n".join(commands))).check()


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    async with Lab() as made:
        yield made


async def plugged(lab: Lab, name: str, **macs: str) -> Host:
    """A host 10.0.0.5, fd00::5, whose card is up in the default namespace as 10.0.0.1, fd00::1."""
    cable = Cable(f"card-{name}", **macs)
    host = await lab.host(name, cable, ["10.0.0.5/24", "fd00::5/64"], ["10.0.0.1", "fd00::1"])
    await ip(f"addr add 10.0.0.1/24 dev {cable.card}", f"addr add fd00::1/64 dev {cable.card} nodad", f"link set {cable.card} up")
    return host


async def serving(host: Host, name: str, *flags: str) -> None:
    server = await host.start([*TRAFFIC, "serve", "--listen", "10.0.0.5:80", "--listen", "[fd00::5]:80", "--name", name, *flags])
    assert server.stdout is not None
    assert json.loads(await server.stdout.readline()) == {"listening": ["10.0.0.5:80", "[fd00::5]:80"]}


async def traffic(*arguments: str) -> tuple[int, list[Any]]:
    completed = await proc.run([*TRAFFIC, *arguments])
    assert completed.stderr == ""
    return completed.status, [json.loads(line) for line in completed.stdout.splitlines()]


async def test_host_and_device_reach_each_other_over_the_cable(lab: Lab) -> None:
    host = await plugged(lab, "a")
    await serving(host, "a")
    status, outcomes = await traffic("reach", "10.0.0.5", "10.0.0.5:80", "fd00::5", "[fd00::5]:80")
    assert (status, [outcome["reached"] for outcome in outcomes]) == (0, [True] * 4)
    back = await host.run([*TRAFFIC, "reach", "10.0.0.1", "fd00::1"])
    assert back.status == 0


async def test_an_attempt_says_what_stopped_it(lab: Lab) -> None:
    await plugged(lab, "a")
    status, outcomes = await traffic("reach", "10.0.0.5:81", "10.0.0.9", "192.0.2.1", "--timeout", "0.2")
    assert status == 1
    assert [outcome["why"] for outcome in outcomes] == ["Connection refused", "no answer within 0.2 s", "Network is unreachable"]


async def test_two_hosts_have_the_same_addresses_down_to_the_mac(lab: Lab) -> None:
    hosts = [
        await lab.host(name, Cable(f"card-{name}", card_mac="02:00:00:00:00:01", host_mac=MAC), ["10.0.0.5/24"])
        for name in ("a", "b")
    ]
    for host in hosts:
        shown = (await host.run(["ip", "-json", "address", "show", "eth0"])).check().stdout
        (link,) = json.loads(shown)
        assert link["address"] == MAC
        assert [entry["local"] for entry in link["addr_info"] if entry["family"] == "inet"] == ["10.0.0.5"]
    cards = (await proc.run(["ip", "-brief", "link"])).stdout
    assert cards.count("02:00:00:00:00:01") == 2


async def test_host_is_gone_with_cable_and_programs_when_it_is_removed(lab: Lab) -> None:
    host = await plugged(lab, "a")
    sleeper = await host.start(["sleep", "1000"])
    await lab.remove(host)
    assert sleeper.returncode == -signal.SIGKILL
    assert not host.namespace.exists()
    assert "card-a" not in (await proc.run(["ip", "-brief", "link"])).stdout
    await plugged(lab, "a")


async def test_lab_refuses_to_work_outside_the_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(sandbox.VARIABLE)
    with pytest.raises(errors.FailedPrecondition, match="run it in the sandbox"):
        async with Lab():
            pass


async def test_load_counts_what_was_answered_by_whom(lab: Lab) -> None:
    await serving(await plugged(lab, "a"), "first")
    _, (counts,) = await traffic("load", "--target", "10.0.0.5:80", "--connections", "4", "--requests", "100")
    assert (counts["kept"]["ok"], counts["kept"]["failed"], counts["by_backend"]) == (100, 0, {"first": 100})
    assert 0 < counts["kept"]["latency_ms"]["p50"] <= counts["kept"]["latency_ms"]["max"]
    _, (counts,) = await traffic(
        "load", "--target", "[fd00::5]:80", "--connections", "0", "--rate-new", "200", "--requests", "20"
    )
    assert (counts["new"]["ok"], counts["new"]["failed"], counts["kept"]["ok"]) == (20, 0, 0)


async def test_load_keeps_to_its_rate(lab: Lab) -> None:
    await serving(await plugged(lab, "a"), "first")
    _, (counts,) = await traffic("load", "--target", "10.0.0.5:80", "--connections", "8", "--rate", "200", "--seconds", "1")
    assert 150 <= counts["kept"]["ok"] <= 210


async def test_load_reports_what_is_lost_and_never_asks_again(lab: Lab) -> None:
    await plugged(lab, "a")
    _, (counts,) = await traffic("load", "--target", "10.0.0.5:80", "--connections", "0", "--rate-new", "100", "--requests", "10")
    assert counts["new"]["errors"] == {"connect: Connection refused": 10}
    assert counts["new"]["ok"] == 0


async def test_load_tells_how_long_nothing_was_answered(lab: Lab) -> None:
    host = await plugged(lab, "a")
    await serving(host, "first")
    load = asyncio.create_task(
        traffic("load", "--target", "10.0.0.5:80", "--rate", "100", "--seconds", "1.5", "--timeout", "0.2")
    )
    await wait_until(lambda: _ESTABLISHED in Path("/proc/net/tcp").read_text())
    # A connection stands before its first answer: some must have come, or there is nothing to be silent after.
    await asyncio.sleep(0.3)
    await host.stop_all()
    _, (counts,) = await load
    assert counts["kept"]["ok"] > 0
    assert counts["kept"]["failed"] > 0
    assert 500 < counts["longest_gap_ms"] <= 1500


async def test_load_sends_nothing_to_who_says_that_it_closes(lab: Lab) -> None:
    """An engine that is being reloaded says so; whatever came afterwards would be lost, and be the client's own fault."""
    overheard = []

    async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nconnection: close\r\n\r\n{}")
            overheard.append(await reader.read())
        writer.close()

    async with await asyncio.start_server(answer_once, "127.0.0.1", 8080):
        _, (counts,) = await traffic("load", "--target", "127.0.0.1:8080", "--connections", "4", "--requests", "40")
    assert (counts["kept"]["ok"], counts["kept"]["failed"]) == (40, 0)
    assert set(overheard) == {b""}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("client", "target", "told"),
    [
        (("192.0.2.7", 4711), ("192.0.2.1", 80), "192.0.2.7:4711"),
        (("2001:db8::7", 4711), ("2001:db8::1", 80), "[2001:db8::7]:4711"),
    ],
    ids=["IPv4", "IPv6"],
)
async def test_backend_tells_the_client_that_a_proxy_names(
    lab: Lab, version: Literal[1, 2], client: tuple[str, int], target: tuple[str, int], told: str
) -> None:
    await serving(await plugged(lab, "a"), "first", "--proxy-protocol")
    header = proxy_header.render(version, client, target)
    reader, writer = await asyncio.open_connection("10.0.0.5", 80)
    # As much of it as makes no sense yet; the rest comes together with a request, and another one by itself.
    writer.write(header[:14])
    await asyncio.sleep(0.05)
    answers = []
    for request in (header[14:] + b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"):
        writer.write(request)
        answers.append((await reader.readuntil(b"}\n")).partition(b"\r\n\r\n")[2])
    writer.close()
    assert [json.loads(answer)["client"] for answer in answers] == [told, told]


@pytest.mark.parametrize(
    "first",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"PROXY UNKNOWN\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 many 80\r\n",
        b"PROXY " + b"x" * 107,
        proxy_header.render(2, ("192.0.2.7", 1), ("192.0.2.1", 80)).replace(b"\x11", b"\x12"),
    ],
    ids=["none", "nobody", "no port", "no end", "UDP"],
)
async def test_backend_that_expects_a_header_closes_who_has_none(lab: Lab, first: bytes) -> None:
    await serving(await plugged(lab, "a"), "first", "--proxy-protocol")
    reader, writer = await asyncio.open_connection("10.0.0.5", 80)
    writer.write(first)
    with contextlib.suppress(ConnectionError):
        assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()


async def test_sandbox_has_nothing_but_a_loopback_that_is_up() -> None:
    shown = (await proc.run([*SANDBOX, "ip", "-json", "address"])).check().stdout
    (link,) = json.loads(shown)
    assert (link["ifname"], "UP" in link["flags"]) == ("lo", True)
    assert {entry["local"] for entry in link["addr_info"]} == {"127.0.0.1", "::1"}


async def test_what_is_written_in_the_sandbox_stays_there() -> None:
    script = "touch /run/x /var/lib/crossns/x /etc/netns/x && ls /etc/passwd && ls -A /var/lib/crossns /etc/netns | grep -c x"
    inside = (await proc.run([*SANDBOX, "sh", "-c", script])).check()
    assert inside.stdout == "/etc/passwd\n2\n"
    assert (await proc.run(["ls", "/run/x", "/var/lib/crossns/x", "/etc/netns/x"])).stdout == ""


async def test_mounts_of_the_machine_are_not_seen_in_the_sandbox_and_stay_outside() -> None:
    place = "/run/mounted-outside"
    (await proc.run(["sh", "-c", f"mkdir {place} && mount -t tmpfs outside {place}"])).check()
    try:
        inside = (await proc.run([*SANDBOX, "cat", "/proc/self/mountinfo"])).check().stdout
        outside = (await proc.run(["cat", "/proc/self/mountinfo"])).check().stdout
    finally:
        (await proc.run(["sh", "-c", f"umount {place} && rmdir {place}"])).check()
    assert (place in inside, place in outside) == (False, True)


async def test_sandbox_leads_nowhere_outside() -> None:
    outside = dict.fromkeys(("CROSSNS_RUN_DIR", "CROSSNS_STATE_DIR", "CROSSNS_NETNS_DIR", "CROSSNS_ETCD"), "/somewhere")
    inside = (await proc.run([*SANDBOX, "env"], environ={**os.environ, **outside})).check().stdout
    assert "/somewhere" not in inside


@pytest.mark.parametrize(("command", "status"), [("exit 7", 7), ("kill -TERM $$", 143), ("exit 0", 0)])
async def test_sandbox_exits_as_its_command_does(command: str, status: int) -> None:
    assert (await proc.run([*SANDBOX, "sh", "-c", command])).status == status


async def test_sandbox_reaps_orphans() -> None:
    script = "(true & true & true &); for i in $(seq 500); do ps -e -o stat= | grep -q Z || exit 0; done; exit 1"
    assert (await proc.run([*SANDBOX, "sh", "-c", script])).status == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_signal_reaches_the_command_inside(number: signal.Signals) -> None:
    script = f"trap 'exit 9' {number.name.removeprefix('SIG')}; echo ready; while :; do sleep 0.01; done"
    outer = await proc.start([*SANDBOX, "sh", "-c", script])
    assert outer.stdout is not None
    await outer.stdout.readline()
    outer.send_signal(number)
    assert await asyncio.wait_for(outer.wait(), 5) == 9


async def test_nothing_is_left_when_the_outermost_process_is_killed() -> None:
    sleep = f"sleep {SLEEP}"
    script = f"ip netns add x; (setsid {sleep} &); (setsid ip netns exec x {sleep} &); echo ready; {sleep}"
    outer = await proc.start([*SANDBOX, "sh", "-c", script])
    assert outer.stdout is not None
    await outer.stdout.readline()
    await wait_until(lambda: len(sleepers()) >= 3)
    outer.kill()
    await outer.wait()
    await wait_until(lambda: not sleepers())


def sleepers() -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdecimal() and (entry / "cmdline").read_bytes().split(b"\0")[:2] == [b"sleep", SLEEP.encode()]:
                found.append(entry.name)
    return found


async def wait_until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not is_so():
            await asyncio.sleep(0.01)
