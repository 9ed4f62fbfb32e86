"""What is counted of a vService, on the real HAProxy with real clients: nothing less, nothing twice."""

import asyncio
import os
import signal
import sys
import time

import pytest

from crossns import errors
from crossns.testing.device import Device, doc, wait_until
from crossns.testing.lab import Host, Lab
from crossns.v1 import v_service_pb2, v_service_pb2_grpc
from tests.kernel.test_proxy import SESSION, A, B, engine, frontend, plug, served_by, vservice, web

pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]

# Connects, says a line, and prints the port that it came from and the length of the answer.
TALK = """
import socket, sys
peer = socket.create_connection((sys.argv[1], int(sys.argv[2])))
print(peer.getsockname()[1])
peer.sendall(sys.argv[3].encode().decode("unicode_escape").encode("latin-1"))
size = 0
while piece := peer.recv(65536):
    size += len(piece)
print(size)
"""


async def counted(device: Device, name: str = "web") -> v_service_pb2.VServiceStatistics:
    api = device.client
    method = v_service_pb2_grpc.VServicesStub(api.channel).GetVServiceStatistics
    request = v_service_pb2.GetVServiceStatisticsRequest(name=f"vServices/{name}")
    found: v_service_pb2.VServiceStatistics = await api.call(method, request)
    return found


async def totals(device: Device, name: str = "web") -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """Connections so far, by frontend, pool and member."""
    found = await counted(device, name)
    return (
        {each.name: each.traffic.connections_total for each in found.frontends},
        {each.name: each.traffic.connections_total for each in found.pools},
        {each.name: each.traffic.connections_total for each in found.members},
    )


async def connections(device: Device) -> tuple[int, int, int]:
    """Those of now: of the first frontend, the first pool and all members."""
    found = await counted(device)
    frontend, pool = found.frontends[0].traffic, found.pools[0].traffic
    return frontend.connections, pool.connections, sum(each.traffic.connections for each in found.members)


async def talk(host: Host, address: str, port: int, words: str) -> tuple[int, int]:
    """Says `words` (with escapes) on a connection of its own; the port that it came from, and how many bytes came back."""
    done = (await host.run([sys.executable, "-c", TALK, address, str(port), words])).check().stdout.split()
    return int(done[0]), int(done[1])


async def reload(device: Device, port: int) -> None:
    """By a vService that has nothing to do with the others."""
    before = (await engine(device)).reloads
    await device.apply(vservice("elsewhere", frontend("fe", "office", "192.0.2.99", port), main=[A]))
    assert (await engine(device)).reloads > before


async def test_every_connection_is_counted_where_it_came_and_went(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "office", "a", "b")
    await device.apply(web(A, B))
    assert await totals(device) == ({"dmz": 0, "office": 0}, {"main": 0}, {"main/a": 0, "main/b": 0})
    await served_by(lab.hosts["dmz"], "203.0.113.10", 6)
    await served_by(lab.hosts["office"], "192.0.2.10", 4)
    assert await totals(device) == ({"dmz": 6, "office": 4}, {"main": 10}, {"main/a": 5, "main/b": 5})


async def test_every_byte_is_counted_in_its_direction(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "a")
    await device.apply(vservice("web", frontend("dmz", "dmz", "203.0.113.10"), main=[A]))
    told = "%{size_request} %{size_header} %{size_download}\\n"
    argv = ["curl", "-sS", "-o", "/dev/null", "-H", "Connection: close", "-w", told, "http://203.0.113.10/"]
    request, head, body = map(int, (await lab.hosts["dmz"].run(argv)).check().stdout.split())
    found = await counted(device)
    for part in (found.frontends[0], found.pools[0], found.members[0]):
        assert (part.traffic.received_bytes_total, part.traffic.sent_bytes_total) == (request, head + body)


async def test_requests_and_answers_are_counted_with_http(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "a", "b")
    spec = {"protocol": "HTTP", "frontends": [frontend("dmz", "dmz", "203.0.113.10")]}
    await device.apply(doc("vServices/web", **spec, pools=[{"name": "main", "members": [A, B]}]))
    # Five requests on one connection, and something that is none.
    (await lab.hosts["dmz"].run(["curl", "-sS", *["http://203.0.113.10/"] * 5])).check()
    await talk(lab.hosts["dmz"], "203.0.113.10", 80, "nonsense\\r\\n\\r\\n")
    found = await counted(device)
    (seen,) = found.frontends
    assert (seen.traffic.connections_total, seen.requests_total, seen.request_errors_total) == (2, 6, 1)
    assert (seen.responses.successful_total, seen.responses.client_error_total) == (5, 1)
    assert found.pools[0].responses.successful_total == 5
    assert {each.name: each.responses.successful_total for each in found.members} in (
        {"main/a": 3, "main/b": 2},
        {"main/a": 2, "main/b": 3},
    )


async def test_attempts_that_fail_are_counted_apart(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "a", "b")
    await device.apply(vservice("web", frontend("dmz", "dmz", "203.0.113.10"), main=[A, {**B, "port": 8081}]))
    assert set(await served_by(lab.hosts["dmz"], "203.0.113.10", 4)) == {"a"}
    found = await counted(device)
    a, b = found.members
    assert found.pools[0].traffic.connections_total == a.traffic.connections_total == 4
    assert (a.connect_errors_total, b.traffic.connections_total) == (0, 0)
    assert b.connect_errors_total == b.retries_total
    assert found.pools[0].connect_errors_total == 0


async def test_totals_go_on_when_haproxy_is_reloaded(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "office", "a", "b")
    await device.apply(web(A, B))
    since = (await counted(device)).counted_since
    for round_ in range(1, 4):
        await served_by(lab.hosts["dmz"], "203.0.113.10", 4)
        assert await totals(device) == (
            {"dmz": 4 * round_, "office": 0},
            {"main": 4 * round_},
            dict.fromkeys(("main/a", "main/b"), 2 * round_),
        )
        await reload(device, 80 + round_)
    assert (await counted(device)).counted_since == since


async def test_reloads_lose_no_count_of_what_goes_on_meanwhile(device: Device, lab: Lab) -> None:
    """Also of the connections that a worker takes on its way out, and that nobody asks for before it ends."""
    await plug(device, lab, "dmz", "office", "a", "b")
    await device.apply(web(A, B))
    loading = asyncio.create_task(served_by(lab.hosts["dmz"], "203.0.113.10", 1500))
    reloads = 0
    while not loading.done():
        reloads += 1
        await reload(device, 80 + reloads)
    answers = await loading
    assert reloads > 1
    assert len(answers) == 1500
    # One that ends is kept until it was read.
    await wait_until(lambda: len(device.pids("haproxy")) == 2)
    members = {"main/a": answers.count("a"), "main/b": answers.count("b")}
    assert await totals(device) == ({"dmz": 1500, "office": 0}, {"main": 1500}, members)


async def test_connections_of_now_are_those_of_all_workers(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "office", "a", "b")
    await device.apply(web(A, B))
    argv = [sys.executable, "-c", SESSION, "203.0.113.10", "80"]
    first = await lab.hosts["dmz"].start(argv)
    await wait_until(lambda: _connections_are(device, 1))
    await reload(device, 81)
    # The worker from before has it still.
    assert await connections(device) == (1, 1, 1)
    await lab.hosts["dmz"].start(argv)
    await wait_until(lambda: _connections_are(device, 2))
    await lab.hosts["dmz"].stop(first)
    await wait_until(lambda: _connections_are(device, 1))
    assert (await totals(device))[:2] == ({"dmz": 2, "office": 0}, {"main": 2})


async def test_a_member_that_came_without_a_reload_is_counted_before_and_after_one(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "office", "a", "b")
    another = {**B, "name": "c"}
    await device.apply(vservice("web", frontend("dmz", "dmz", "203.0.113.10"), main=[A, {**B, "port": 8081}]))
    before = (await engine(device)).reloads
    await device.apply(vservice("web", frontend("dmz", "dmz", "203.0.113.10"), main=[A, another]))
    assert (await engine(device)).reloads == before
    await served_by(lab.hosts["dmz"], "203.0.113.10", 8)
    await reload(device, 81)
    await served_by(lab.hosts["dmz"], "203.0.113.10", 8)
    assert (await totals(device))[2] == {"main/a": 8, "main/c": 8}


async def test_a_vservice_that_was_made_anew_begins_at_nothing(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "office", "a", "b")
    await device.apply(web(A, B))
    await reload(device, 81)
    # Keeps the worker from before alive.
    await lab.hosts["dmz"].start([sys.executable, "-c", SESSION, "203.0.113.10", "80"])
    await wait_until(lambda: _connections_are(device, 1))
    await device.delete("vServices/web")
    await device.apply(web(A, B))
    assert await connections(device) == (0, 0, 0)
    await served_by(lab.hosts["dmz"], "203.0.113.10", 2)
    assert (await totals(device))[0] == {"dmz": 2, "office": 0}


async def test_a_member_is_its_name_in_its_table_and_forgotten_with_its_last_worker(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "office", "a", "b")
    entry = frontend("dmz", "dmz", "203.0.113.10")
    await device.apply(vservice("web", entry, main=[A]))
    await served_by(lab.hosts["dmz"], "203.0.113.10", 4)
    assert await totals(device) == ({"dmz": 4}, {"main": 4}, {"main/a": 4})
    namesake = {**B, "name": A["name"]}
    await device.apply(vservice("web", entry, main=[namesake]))
    assert await totals(device) == ({"dmz": 4}, {"main": 4}, {"main/a": 0})
    await served_by(lab.hosts["dmz"], "203.0.113.10", 2)
    await reload(device, 81)
    assert await totals(device) == ({"dmz": 6}, {"main": 6}, {"main/a": 2})
    await wait_until(lambda: len(device.pids("haproxy")) == 2)
    await device.apply(vservice("web", entry, main=[A]))
    assert await totals(device) == ({"dmz": 6}, {"main": 6}, {"main/a": 0})


async def test_a_haproxy_that_is_back_counts_from_its_start(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "office", "a", "b")
    await device.apply(web(A, B))
    await served_by(lab.hosts["dmz"], "203.0.113.10", 4)
    before = await counted(device)
    # HAProxy tells its age in whole seconds.
    await wait_until(lambda: time.time() > before.counted_since.seconds + 2)
    await device.kill("haproxy")
    after = await counted(device)
    assert after.counted_since.seconds > before.counted_since.seconds
    assert after.frontends[0].traffic.connections_total == 0


async def test_a_restarted_proxy_knows_what_the_worker_has_counted(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "office", "a", "b")
    await device.apply(web(A, B))
    await served_by(lab.hosts["dmz"], "203.0.113.10", 4)
    await device.kill("proxy")
    await wait_until(device.serves)
    assert (await totals(device))[0] == {"dmz": 4, "office": 0}


async def test_a_haproxy_that_does_not_answer_is_unavailable(device: Device, lab: Lab) -> None:
    await plug(device, lab, "dmz", "a")
    await device.apply(vservice("web", frontend("dmz", "dmz", "203.0.113.10"), main=[A]))
    pids = device.pids("haproxy")
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(errors.CrossnsError) as caught:
            await counted(device)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    assert (caught.value.code, caught.value.reason) == ("UNAVAILABLE", "ENGINE_UNAVAILABLE")


async def test_a_vservice_that_is_not_there_has_no_statistics(device: Device) -> None:
    with pytest.raises(errors.NotFound):
        await counted(device, "none")


async def _connections_are(device: Device, count: int) -> bool:
    return await connections(device) == (count,) * 3
