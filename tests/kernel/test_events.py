"""Events of the kernel and of agents, from where they happen to a client of the API: whose they are, what a storm costs."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from google.protobuf.json_format import MessageToDict

from crossns import errors, operation, proc, standing
from crossns.agent import Agent
from crossns.testing.device import Device, doc, wait_until
from crossns.testing.lab import Cable, Lab
from crossns.v1 import events_pb2, events_pb2_grpc, route_table_pb2, route_table_pb2_grpc, status_pb2, v_service_pb2
from services.nsmanager.agent.spares import KEPT
from tests.kernel.view import table_with_card

pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]

PATIENCE_S = 20.0
LINK, ADDRESS, ROUTE, NEIGHBOR, AGENT = (
    events_pb2.EVENT_KIND_LINK,
    events_pb2.EVENT_KIND_ADDRESS,
    events_pb2.EVENT_KIND_ROUTE,
    events_pb2.EVENT_KIND_NEIGHBOR,
    events_pb2.EVENT_KIND_AGENT,
)
MISSED, DELETED, STOPPED = events_pb2.EVENT_TYPE_MISSED, events_pb2.EVENT_TYPE_DELETED, events_pb2.EVENT_TYPE_STOPPED
# A core's share that an agent may take in a storm.
SHARE_MAX = 0.5
STORM = 20_000


class Watching:
    """A call of Watch that stands."""

    def __init__(self, device: Device, **request: object) -> None:
        stub = events_pb2_grpc.EventsStub(device.client.channel)
        self.call = stub.Watch(events_pb2.WatchRequest(**request), timeout=PATIENCE_S * 3)  # type: ignore[arg-type] # by name

    async def until(self, is_wanted: Callable[[events_pb2.Event], bool]) -> list[events_pb2.Event]:
        """Everything up to the event that is waited for."""
        told: list[events_pb2.Event] = []
        async with asyncio.timeout(PATIENCE_S):
            while not told or not is_wanted(told[-1]):
                event = await self.call.read()
                assert isinstance(event, events_pb2.Event), told
                told.append(event)
        return told


@contextlib.asynccontextmanager
async def watching(device: Device, **request: object) -> AsyncIterator[Watching]:
    watch = Watching(device, **request)
    await watch.call.initial_metadata()
    yield watch
    watch.call.cancel()


def link_is_up(name: str) -> Callable[[events_pb2.Event], bool]:
    return lambda event: event.link.link == name and event.link.up


def change(event: events_pb2.Event) -> dict[str, object]:
    """What it says, without what differs from run to run."""
    said = MessageToDict(event)
    for field in ("time", "resumeToken", "service", "kind"):
        said.pop(field, None)
    return said


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.asynccontextmanager
async def observing(device: Device, table: str) -> AsyncIterator[list[operation.Event]]:
    """Each word of the agent that makes nsmanager look again."""
    words: list[operation.Event] = []
    session = await Agent.connect(device.layout.agent_socket(table), "observer", operation.Token(0, 0), words.append)
    yield words
    await session.close()


async def batch(table: str, *lines: str) -> None:
    (await proc.run(["ip", "-netns", table, "-force", "-batch", "-"], stdin="\n".join(lines))).check()


async def test_what_the_kernel_tells_is_an_event_of_its_table_and_of_no_other(device: Device) -> None:
    await device.apply(doc("routeTables/a"), doc("routeTables/b"))
    async with watching(device, kinds=[LINK, ADDRESS, ROUTE, NEIGHBOR]) as everything:
        await batch(
            "a",
            "link add t0 type bridge",
            "link set t0 up",
            "address add 10.9.0.1/24 dev t0",
            "route add 10.10.0.0/16 via 10.9.0.2",
            "neigh add 10.9.0.3 lladdr 02:00:00:00:00:03 dev t0",
            "neigh del 10.9.0.3 dev t0",
            "route del 10.10.0.0/16",
            "link del t0",
        )
        told = await everything.until(lambda event: (event.type, event.link.link) == (DELETED, "t0"))
        await batch("b", "link add last type bridge", "link set last up")
        told += await everything.until(link_is_up("last"))
        # What else is read of `a` by then.
        await batch("a", "link add last type bridge", "link set last up", "link del last")
        told += await everything.until(lambda event: (event.type, event.link.link) == (DELETED, "last"))
        await batch("b", "link del last")
    mine = [event for event in told if event.route_tables == ["routeTables/a"]]
    assert {tuple(event.route_tables) for event in told} == {("routeTables/a",), ("routeTables/b",)}
    assert all(event.time.seconds > 0 for event in told)
    up = next(event for event in mine if event.link.up)
    assert (up.link.link, up.link.link_kind, up.link.interface) == ("t0", "bridge", "")
    route = {
        "destination": "10.10.0.0/16",
        "kernelTable": "254",
        "routeType": "unicast",
        "gateways": ["10.9.0.2"],
        "links": ["t0"],
    }
    neighbor = {"link": "t0", "address": "10.9.0.3", "macAddress": "02:00:00:00:00:03", "state": "permanent"}
    address = {"link": "t0", "prefix": "10.9.0.1/24"}
    said = [change(event) for event in mine]
    for wanted in (
        {"type": "EVENT_TYPE_UPDATED", "address": address},
        {"type": "EVENT_TYPE_DELETED", "address": address},
        {"type": "EVENT_TYPE_UPDATED", "route": route},
        {"type": "EVENT_TYPE_DELETED", "route": route},
        {"type": "EVENT_TYPE_UPDATED", "neighbor": neighbor},
    ):
        assert {**wanted, "routeTables": ["routeTables/a"]} in said


async def test_reader_gets_the_tables_and_kinds_that_he_asked_for(device: Device, lab: Lab) -> None:
    await lab.host("h", Cable("card-a"), ["10.0.0.6/24"])
    await device.apply(doc("routeTables/b"))
    async with watching(device, kinds=[LINK], route_tables=["routeTables/a"]) as links:
        await device.apply(*table_with_card("a", "card-a", "10.0.0.1/24"))
        await batch("b", "link add t0 type bridge", "link set t0 up", "address add 10.9.0.1/24 dev t0", "link del t0")
        await batch("a", "link add t1 type bridge", "link set t1 up")
        told = await links.until(link_is_up("t1"))
        await batch("a", "link del t1")
    assert {event.kind for event in told} == {LINK}
    assert {tuple(event.route_tables) for event in told} == {("routeTables/a",)}
    lan = [event.link for event in told if event.link.link == "lan"]
    assert (lan[-1].interface, lan[-1].up) == ("interfaces/a-lan", True)


async def test_storm_in_one_table_is_counted_costs_little_and_hides_nothing(
    device: Device, count: Callable[[int, int], int]
) -> None:
    """As much as `ip` can say: many times what can be told, and what the kernel keeps for a reader."""
    await device.apply(doc("routeTables/a"), doc("routeTables/b"))
    await batch("a", "link add t0 type bridge", "link set t0 up", "address add 192.0.2.1/24 dev t0")
    pid = device.pid("agent a")
    networks = [f"10.{n >> 8 & 255}.{n & 255}.0/24" for n in range(count(STORM, 200_000) // 2)]
    storm = [f"route {verb} {network} dev t0" for network in networks for verb in ("add", "del")]
    async with watching(device, kinds=[ROUTE, LINK]) as events, observing(device, "a") as words:
        await batch("b", "link add begin type bridge", "link set begin up")
        await events.until(link_is_up("begin"))
        used_s, begun = cpu_s(pid), time.monotonic()
        storming = asyncio.create_task(batch("a", *storm))
        await batch("b", "link add during type bridge", "link set during up")
        told = await events.until(link_is_up("during"))
        await storming
        # Routes have an ear of their own: links are told in the very table.
        await batch("a", "link add end type bridge", "link set end up")
        told += await events.until(link_is_up("end"))
        while (total := _total(told)) < len(storm):
            told += await events.until(lambda event: event.kind == ROUTE)
        took_s, used_s = time.monotonic() - begun, cpu_s(pid) - used_s
    await batch("a", "link del t0", "link del end")
    await batch("b", "link del begin", "link del during")
    missed = [event for event in told if event.type == MISSED]
    assert {(event.kind, tuple(event.route_tables)) for event in missed} == {(ROUTE, ("routeTables/a",))}
    assert all(event.missed.after_token and event.missed.after_token != event.resume_token for event in missed)
    # A link that is up brings routes of its own.
    assert 0 <= total - len(storm) <= 4
    assert used_s <= SHARE_MAX * took_s
    # Ever more seldom, once a second in the end, and a few for the links.
    assert 1 <= len(words) <= 12 + 2 * took_s


def _total(told: list[events_pb2.Event]) -> int:
    """Changes of the storm's routes, told or missed."""
    routes = [event for event in told if event.kind == ROUTE and event.route_tables == ["routeTables/a"]]
    return sum(event.missed.count if event.type == MISSED else event.route.destination.startswith("10.") for event in routes)


async def test_what_the_kernel_dropped_of_what_shares_an_ear_concerns_everybody(device: Device) -> None:
    await device.apply(doc("routeTables/a"))
    pid = device.pid("agent a")
    async with watching(device, kinds=[ADDRESS], route_tables=["routeTables/a"]) as events:
        os.kill(pid, signal.SIGSTOP)
        try:
            await batch("a", "link add t0 type bridge", *["link set t0 up", "link set t0 down"] * 500)
        finally:
            os.kill(pid, signal.SIGCONT)
        *_, missed = await events.until(lambda event: event.type == MISSED)
        assert (missed.kind, list(missed.route_tables)) == (0, ["routeTables/a"])
        assert missed.missed.count > 0
        # Nothing is missed for long.
        await batch("a", "address add 10.9.0.1/24 dev t0")
        await events.until(lambda event: event.address.prefix == "10.9.0.1/24")
    await batch("a", "link del t0")


async def test_agent_that_was_killed_is_told_and_tells_again(device: Device) -> None:
    await device.apply(doc("routeTables/a"))
    before = await restarts(device)
    async with watching(device, route_tables=["routeTables/a"], kinds=[AGENT, LINK]) as events:
        pid = await device.kill("agent a")
        stopped, *_, started, missed = await events.until(lambda event: event.type == MISSED)
        assert (stopped.type, stopped.agent.pid, stopped.name) == (STOPPED, pid, "routeTables/a")
        assert (started.agent.pid, started.agent.restarts) == (device.pid("agent a"), before + 1)
        assert missed.missed.message
        await wait_until(lambda: is_listening(device, started.agent.pid))
        # Without anybody's doing it is listened to again.
        await batch("a", "link add t0 type bridge", "link set t0 up")
        await events.until(link_is_up("t0"))
        await batch("a", "link del t0")

    async def is_counted() -> bool:
        return await restarts(device) == before + 1

    await wait_until(is_counted)


async def test_agent_that_does_not_stay_shows_in_the_status_until_it_does(device: Device) -> None:
    await device.apply(doc("routeTables/a"))
    before = await restarts(device)

    async def is_told() -> bool:
        for pid in device.pids("agent a"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        status = await status_of(device)
        return any(each.type == "Observed" and each.reason == "AGENT_UNAVAILABLE" for each in status.conditions)

    await wait_until(is_told)
    assert (await status_of(device)).state == status_pb2.STATE_DEGRADED
    assert await restarts(device) > before

    async def is_well() -> bool:
        status = await status_of(device)
        is_seen = all(each.type != "Observed" for each in status.conditions)
        return is_seen and status.state == status_pb2.STATE_READY and status.agent_restarts > before

    await wait_until(is_well)


async def test_agent_that_died_beside_the_launcher_is_told_and_counted_like_any_other(device: Device) -> None:
    await device.apply(doc("routeTables/a"))
    pid = device.pid("agent a")
    before = await restarts(device)
    async with watching(device, route_tables=["routeTables/a"], kinds=[AGENT]) as events:
        for process in (device.pid("launcher"), pid):
            os.kill(process, signal.SIGKILL)
        told = await events.until(lambda event: event.type == MISSED)
    stopped, started, missed = told
    assert (stopped.type, stopped.agent.pid, stopped.name) == (STOPPED, pid, "routeTables/a")
    assert (started.agent.pid, started.agent.restarts) == (device.pid("agent a"), before + 1)
    assert missed.missed.message

    async def is_counted() -> bool:
        return await restarts(device) == await counted(device) == before + 1

    await wait_until(is_counted)
    # The next launcher knows that, too.
    await device.kill("launcher")
    await wait_until(is_counted)
    # Whatever comes next finds the tree complete.
    await wait_until(lambda: len(device.pids("spare")) == KEPT)


async def counted(device: Device) -> int | None:
    """What metrics are made of; None while the launcher does not answer."""
    stub = route_table_pb2_grpc.RouteTablesStub(device.client.channel)
    tables = [each async for each in stub.ListStatistics(route_table_pb2.ListStatisticsRequest())]
    (found,) = (each for each in tables if each.name == "routeTables/a")
    return found.agent_restarts_total if found.HasField("agent_restarts_total") else None


async def restarts(device: Device) -> int:
    return (await status_of(device)).agent_restarts


async def status_of(device: Device) -> route_table_pb2.RouteTableStatus:
    table = await device.client.get("routeTables/a")
    assert isinstance(table, route_table_pb2.RouteTable)
    return table.status


def is_listening(device: Device, pid: int) -> bool:
    """Whether the process has at least the netlink sockets of an agent: three that listen, one that asks."""
    fds = Path(f"/proc/{pid}/fd")
    inodes = {os.readlink(each) for each in fds.iterdir()}
    lines = Path(f"/proc/{pid}/net/netlink").read_text(encoding="utf-8").splitlines()[1:]
    return sum(f"socket:[{line.split()[-1]}]" in inodes for line in lines) >= 4


async def test_what_happens_while_nsmanager_is_away_is_told_when_it_is_back(device: Device) -> None:
    await device.apply(doc("routeTables/a"))
    async with watching(device, kinds=[LINK]) as events:
        await batch("a", "link add begin type bridge", "link set begin up")
        await events.until(link_is_up("begin"))
        pid = device.pid("nsmanager")
        os.kill(pid, signal.SIGSTOP)
        await batch("a", "link add meanwhile type bridge", "link set meanwhile up")
        os.kill(pid, signal.SIGKILL)
        told = await events.until(link_is_up("meanwhile"))
        await batch("a", "link del begin", "link del meanwhile")
    assert MISSED in {event.type for event in told}


async def standings(device: Device, table: str) -> dict[str, str]:
    """What the table's agent holds; nothing while it does not answer."""
    try:
        session = await Agent.connect(device.layout.agent_socket(table), "observer", operation.Token(0, 0))
    except errors.AgentUnavailable:
        return {}
    try:
        read = await session.call(standing.ReadStandings())
    finally:
        await session.close()
    assert isinstance(read, standing.Standings)
    return {f"{each.vservice} {each.part}": each.state for each in read.items}


async def said(device: Device, part: str) -> str:
    """What the vService's own status says of its frontend or member."""
    web = await device.client.get("vServices/web")
    assert isinstance(web, v_service_pb2.VService)
    parts = {each.name: each.state for each in (*web.status.frontends, *web.status.members) if each.service == "proxy"}
    return status_pb2.State.Name(parts.get(part, status_pb2.STATE_UNSPECIFIED)).removeprefix("STATE_")


async def test_each_table_is_told_how_its_vservices_stand_and_of_no_other_and_again_after_any_restart(device: Device) -> None:
    await device.apply(*(doc(f"routeTables/{table}") for table in "abc"))
    front = {"name": "fe", "routeTable": "routeTables/a", "address": "203.0.113.10", "port": 80}
    member = {"name": "m", "routeTable": "routeTables/b", "address": "10.0.0.5", "port": 8080}
    await device.apply(
        doc("vServices/web", protocol="TCP", frontends=[front], pools=[{"name": "main", "members": [member]}]), wait=False
    )

    async def is_told() -> bool:
        wanted = {"vServices/web fe": await said(device, "fe")}, {"vServices/web main/m": await said(device, "main/m")}
        return (await standings(device, "a"), await standings(device, "b")) == wanted and "UNSPECIFIED" not in repr(wanted)

    # Nobody answers there.
    await wait_until(lambda: is_member(device, "ERROR"))
    await wait_until(is_told)
    assert await standings(device, "c") == {}
    for table in "ab":
        await device.kill(f"agent {table}")
    await wait_until(is_told)
    await device.kill("nsmanager")
    await device.delete("vServices/web")
    await wait_until(device.serves)

    async def is_gone() -> bool:
        return all([await standings(device, table) == {} for table in "ab"])

    await wait_until(is_gone)


async def is_member(device: Device, state: str) -> bool:
    return await said(device, "main/m") == state
