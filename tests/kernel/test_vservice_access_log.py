"""What the access log says of each connection and request, on the real HAProxy with real clients: one line, with everything."""

import json
import os
import signal
from typing import Any

import pytest

from crossns.testing.device import Device, doc, wait_until
from crossns.testing.lab import Lab
from tests.kernel.test_proxy import A, B, frontend, is_served, load, plug, served_by, vservice
from tests.kernel.test_vservice_statistics import talk

pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]

CLOSE = "Host: web\\r\\nConnection: close\\r\\n\\r\\n"


def logged(name: str, protocol: str, *frontends: dict[str, Any], **pools: list[dict[str, Any]]) -> str:
    """A vService that writes an access log."""
    named = [{"name": pool, "members": members} for pool, members in pools.items()]
    return doc(f"vServices/{name}", protocol=protocol, frontends=frontends, pools=named, accessLog=True)


def lines(device: Device, name: str) -> list[dict[str, Any]]:
    """What the access log says of a vService."""
    told = (json.loads(line) for process, line in device.log if process == "proxy" and '"access"' in line)
    return [each for each in told if each.get("message") == "access" and each["v_service"] == f"vServices/{name}"]


async def line(device: Device, name: str) -> dict[str, Any]:
    """The only line of a vService, without what every line of every log has."""
    await wait_until(lambda: lines(device, name))
    (found,) = lines(device, name)
    return {key: value for key, value in found.items() if key not in ("time", "level", "service", "logger", "message")}


async def test_a_tcp_connection_leaves_one_line_with_everything(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "a")
    await device.apply(logged("tcplog", "TCP", frontend("dmz", "dmz", "203.0.113.10"), main=[A]))
    request = f"GET /one HTTP/1.1\\r\\n{CLOSE}"
    port, size = await talk(lab.hosts["dmz"], "203.0.113.10", 80, request)
    found = await line(device, "tcplog")
    assert [found.pop(each) >= 0 for each in ("queue_ms", "connect_ms", "total_ms")] == [True] * 3
    assert found == {
        "v_service": "vServices/tcplog",
        "frontend": "dmz",
        "route_table": "routeTables/dmz",
        "client_address": "203.0.113.9",
        "client_port": port,
        "vip": "203.0.113.10",
        "vip_port": 80,
        "pool": "main",
        "member": "a",
        "member_route_table": "routeTables/a",
        "member_address": "10.0.0.5",
        "member_port": 8080,
        "received_bytes": len(request.encode().decode("unicode_escape")),
        "sent_bytes": size,
        "ended": "--",
    }


async def test_an_http_request_leaves_one_line_with_everything(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "a")
    await device.apply(
        logged("httplog", "HTTP", frontend("six", "dmz", "2001:db8:1::10", 8080), main=[{**A, "address": "fd00::5"}])
    )
    # What a client says looks like other fields.
    words = f"GE|T /x|503|--|,vs.other.fe.fe?secret=1 HTTP/1.1\\r\\n{CLOSE}"
    port, _ = await talk(lab.hosts["dmz"], "2001:db8:1::10", 8080, words)
    found = await line(device, "httplog")
    for each in ("queue_ms", "connect_ms", "answer_ms", "total_ms", "received_bytes", "sent_bytes"):
        assert found.pop(each) >= 0, each
    assert found == {
        "v_service": "vServices/httplog",
        "frontend": "six",
        "route_table": "routeTables/dmz",
        "client_address": "2001:db8:1::9",
        "client_port": port,
        "vip": "2001:db8:1::10",
        "vip_port": 8080,
        "pool": "main",
        "member": "a",
        "member_route_table": "routeTables/a",
        "member_address": "fd00::5",
        "member_port": 8080,
        "ended": "--",
        "status": 200,
        "method": "GE|T",
        "path": "/x|503|--|,vs.other.fe.fe",
    }


async def test_every_request_of_a_connection_leaves_its_line(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "a", "b")
    await device.apply(logged("kept", "HTTP", frontend("dmz", "dmz", "203.0.113.10"), main=[A, B]))
    (await lab.hosts["dmz"].run(["curl", "-sS", *[f"http://203.0.113.10/{number}" for number in range(6)]])).check()
    await wait_until(lambda: len(lines(device, "kept")) == 6)
    assert [each["path"] for each in lines(device, "kept")] == [f"/{number}" for number in range(6)]
    assert sorted(each["member"] for each in lines(device, "kept")) == ["a"] * 3 + ["b"] * 3
    assert len({each["client_port"] for each in lines(device, "kept")}) == 1


async def test_the_client_is_the_one_that_was_told_and_the_vip_is_ours(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "a")
    told = {**frontend("dmz", "dmz", "203.0.113.10"), "acceptProxyProtocol": True}
    await device.apply(logged("told", "TCP", told, main=[A]))
    header = "PROXY TCP4 198.51.100.77 198.51.100.78 1234 5678\\r\\n"
    await talk(lab.hosts["dmz"], "203.0.113.10", 80, f"{header}GET / HTTP/1.1\\r\\n{CLOSE}")
    found = await line(device, "told")
    assert (found["client_address"], found["client_port"]) == ("198.51.100.77", 1234)
    assert (found["vip"], found["vip_port"]) == ("203.0.113.10", 80)


async def test_a_connection_that_no_member_took_names_none(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "a")
    await device.apply(logged("alone", "TCP", frontend("dmz", "dmz", "203.0.113.10"), main=[{**A, "port": 9}]))
    await lab.hosts["dmz"].run(["curl", "-s", "--max-time", "5", "http://203.0.113.10/"])
    found = await line(device, "alone")
    assert not {"member", "member_route_table", "member_address", "member_port", "connect_ms"} & found.keys()
    assert (found["pool"], found["ended"][0]) == ("main", "S")


async def test_only_a_vservice_that_wants_a_log_leaves_lines(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "a")
    quiet = vservice("quiet", frontend("dmz", "dmz", "203.0.113.11"), main=[A])
    await device.apply(quiet, logged("spoken", "TCP", frontend("dmz", "dmz", "203.0.113.10"), main=[A]))
    await served_by(lab.hosts["dmz"], "203.0.113.11", 2)
    await served_by(lab.hosts["dmz"], "203.0.113.10", 2)
    await wait_until(lambda: len(lines(device, "spoken")) == 2)
    assert lines(device, "quiet") == []


async def test_nobody_waits_for_a_reader_of_the_log_that_does_not_read(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "a", "b")
    await device.apply(logged("busy", "HTTP", frontend("dmz", "dmz", "203.0.113.10"), main=[A, B]))
    pid = device.pid("proxy")
    os.kill(pid, signal.SIGSTOP)
    try:
        outcome = await load(lab.hosts["dmz"], "203.0.113.10:80")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert set(outcome) == {"ok", "a", "b"}, outcome
    # Of 2,400 that it does on an idle machine.
    assert outcome["ok"] > 1000, outcome
    # What found a full socket is lost, and what comes now is written again.
    await wait_until(lambda: lines(device, "busy"))
    assert len(lines(device, "busy")) < outcome["ok"]
    assert await is_served(lab.hosts["dmz"], "203.0.113.10")


async def test_a_restarted_proxy_writes_on(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "a")
    await device.apply(logged("again", "TCP", frontend("dmz", "dmz", "203.0.113.10"), main=[A]))
    await device.kill("proxy")
    # Nobody listens: the traffic does not mind.
    assert await served_by(lab.hosts["dmz"], "203.0.113.10", 2) == ["a", "a"]
    await wait_until(device.serves)
    before = len(lines(device, "again"))
    await served_by(lab.hosts["dmz"], "203.0.113.10", 2)
    await wait_until(lambda: len(lines(device, "again")) == before + 2)
