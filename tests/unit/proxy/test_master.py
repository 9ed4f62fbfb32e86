"""What HAProxy 2.6 answers, as it came out of its master socket, and in which order it is told to change a server."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from crossns import errors
from services.proxy import plan, render
from services.proxy.driver import master
from tests.unit.proxy import engine, sample

LOOK = (Path(__file__).parents[2] / "testdata" / "proxy" / "show-stat.txt").read_text(encoding="utf-8")
SECTION = "vs.web.po.main"
LINE = (SECTION, "a1.tenant-a.21")

servers = st.builds(
    render.Server,
    socket=st.sampled_from(["10.0.0.5:80", "10.0.0.5:81", "10.0.0.6:80", "[fd00::5]:80"]),
    weight=st.sampled_from([0, 1, 2, 256]),
    enabled=st.booleans(),
    max_connections=st.sampled_from([0, 1, 9]),
)


def change(before: render.Server, wanted: render.Server) -> plan.SetServer:
    return plan.SetServer(*LINE, before, wanted, "vServices/web")


def where(server: render.Server) -> set[str]:
    """To where it lets new connections through."""
    return {server.socket} if server.enabled and server.weight else set()


def test_the_structure_is_what_the_running_text_says() -> None:
    assert master.parse(LOOK).structure == "d85047ad1313e893f620b8498cc0357b"


def test_a_listener_is_known_by_each_of_its_ports() -> None:
    assert master.parse(LOOK).listeners == {
        sample.listener(),
        render.Part("vs.web.fe.full", "dmz.11", "203.0.113.10:81"),
        render.Part("vs.web.fe.range", "dmz.11", "203.0.113.10:8000"),
        render.Part("vs.web.fe.range", "dmz.11", "203.0.113.10:8001"),
        render.Part("vs.web.fe.six", "dmz.11", "[fd00::9]:80"),
    }


def test_what_holds_a_comma_is_one_column() -> None:
    table = 'pxname,svname,last_chk,status\nvs.a.po.p,x,"L4, then ""L7""",UP\nvs.b.po.p,y,,DOWN'
    assert list(master.columns(table, ("pxname", "status"))) == [("vs.a.po.p", "UP"), ("vs.b.po.p", "DOWN")]


def test_servers_are_as_they_were_made() -> None:
    expected = {
        "a1.tenant-a.21": plan.Seen(render.Server("10.0.0.5:8080", 1, enabled=True), 1, was_used=True),
        "b1.tenant-b.22": plan.Seen(render.Server("10.0.0.5:0", 0, enabled=True), 2),
        "c1.tenant-a.21": plan.Seen(render.Server("[fd00::5]:8080", 3, enabled=False, max_connections=10), 3),
        # Two were sent there and found nobody.
        "d1.tenant-a.21": plan.Seen(render.Server("10.0.0.6:8080", 256, enabled=True, max_connections=20), 4, was_used=True),
        "_1.tenant-a.21": plan.Seen(render.Server(), 5),
        "_2.tenant-a.21": plan.Seen(render.Server(), 6),
    }
    found = master.parse(LOOK).servers
    assert found == {SECTION: expected}
    assert {name for name, seen in found[SECTION].items() if seen.is_busy} == {"a1.tenant-a.21"}


@pytest.mark.parametrize("status", ["OPEN", "WAITING", "FULL"])
def test_a_listener_that_is_at_its_limit_is_open(status: str) -> None:
    """`full` shows WAITING: its frontend has as many connections as it may."""
    assert ",WAITING," in LOOK
    assert sample.listener() in master.parse(LOOK.replace(",OPEN,", f",{status},", 1)).listeners


def test_a_listener_that_is_not_open_is_not_there() -> None:
    assert sample.listener() not in master.parse(LOOK.replace(",OPEN,", ",STOP,", 1)).listeners


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        LOOK[:-1],
        LOOK[: LOOK.index("vs.web.po")],
        "Can't find the target PID matching the prefix '@1'\n\n",
        LOOK.partition("# ")[0],
    ],
)
def test_half_an_answer_is_none(text: str) -> None:
    with pytest.raises(errors.EngineUnavailable):
        master.parse(text)


def test_a_worker_that_serves_nothing_says_so() -> None:
    header = next(line for line in LOOK.splitlines() if line.startswith("# pxname,"))
    assert master.parse(f"{header}\n\n") == master.Look()


def test_a_server_is_changed_in_the_words_of_the_runtime_cli() -> None:
    before = render.Server("10.0.0.5:80", 1, enabled=True)
    wanted = render.Server("[fd00::5]:81", 256, enabled=False, max_connections=9)
    assert master.commands(change(before, wanted)) == [
        "set server vs.web.po.main/a1.tenant-a.21 state maint",
        "set server vs.web.po.main/a1.tenant-a.21 addr fd00::5 port 81",
        "set server vs.web.po.main/a1.tenant-a.21 weight 256",
        "set maxconn server vs.web.po.main/a1.tenant-a.21 9",
    ]
    assert master.commands(change(wanted, before)) == [
        "set server vs.web.po.main/a1.tenant-a.21 addr 10.0.0.5 port 80",
        "set server vs.web.po.main/a1.tenant-a.21 weight 1",
        "set maxconn server vs.web.po.main/a1.tenant-a.21 0",
        "set server vs.web.po.main/a1.tenant-a.21 state ready",
    ]


def test_what_nobody_has_is_only_taken_out() -> None:
    before = render.Server("10.0.0.5:80", 7, enabled=True, max_connections=3)
    assert master.commands(change(before, render.Server())) == ["set server vs.web.po.main/a1.tenant-a.21 state maint"]


@given(before=servers, wanted=servers)
def test_after_its_commands_a_server_is_as_wanted(before: render.Server, wanted: render.Server) -> None:
    worker = engine.Worker("", servers={LINE: (1, before)})
    for words in master.commands(change(before, wanted)):
        worker.command(words)
    assert worker.servers == {LINE: (1, wanted)}
    assert (master.commands(change(before, wanted)) == []) == (before == wanted)


@given(before=servers, wanted=servers)
def test_no_connection_goes_where_neither_before_nor_after_it_would(before: render.Server, wanted: render.Server) -> None:
    """Nor is there a moment without a way where there is one before and after."""
    worker = engine.Worker("", servers={LINE: (1, before)})
    for words in master.commands(change(before, wanted)):
        worker.command(words)
        meanwhile = where(worker.servers[LINE][1])
        assert meanwhile <= where(before) | where(wanted)
        assert meanwhile or not (where(before) and where(wanted))


class Haproxy:
    """The master's socket: takes all questions, and gives `answer`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answer = ""
        self.asked: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append((await reader.read()).decode())
        writer.write(self.answer.encode())
        await writer.drain()
        writer.close()


@pytest_asyncio.fixture
async def haproxy(tmp_path: Path) -> AsyncIterator[Haproxy]:
    made = Haproxy(tmp_path / "master.sock")
    server = await asyncio.start_unix_server(made.serve, made.path)
    yield made
    server.close()
    await server.wait_closed()


BEFORE, WANTED = render.Server("10.0.0.5:80", enabled=True), render.Server("10.0.0.6:81", 7, enabled=True)


async def test_the_current_worker_is_told_everything_at_once(haproxy: Haproxy) -> None:
    haproxy.answer = "IP changed from '10.0.0.5' to '10.0.0.6', port changed from '80' to '81' by 'stats socket command'\n\n\n"
    await master.change(haproxy.path, change(BEFORE, WANTED))
    name = "vs.web.po.main/a1.tenant-a.21"
    assert haproxy.asked == [f"@1 set server {name} addr 10.0.0.6 port 81;@1 set server {name} weight 7\n"]


@pytest.mark.parametrize(
    "words",
    [
        "",
        "IP changed from '255.255.255.255' to 'fd00::9', port changed from '1' to '8080' by 'stats socket command'",
        "no need to change the addr, no need to change the port by 'stats socket command'",
        "no need to change the addr, port changed from '8080' to '8081' by 'stats socket command'",
        "IP changed from 'fd00::9' to '10.0.0.9', no need to change the port by 'stats socket command'",
        "no need to change the addr, port changed from '+0' to '80' by 'stats socket command'",
    ],
)
async def test_what_haproxy_says_to_a_change_that_it_made_is_no_error(haproxy: Haproxy, words: str) -> None:
    haproxy.answer = f"{words}\n\n\n"
    await master.change(haproxy.path, change(BEFORE, WANTED))


@pytest.mark.parametrize(
    "words",
    [
        "No such server.",
        "No such backend.",
        "Absolute weight can only be between 0 and 256 inclusive.",
        "Invalid addr 'xyz' by 'stats socket command'",
        "Proxy is disabled.",
        "IP changed from '10.0.0.5' to '10.0.0.6', problem converting port 'x' to an int by 'stats socket command'",
        "Update for the current server address family is only supported through configuration file by 'stats socket command'",
    ],
)
async def test_what_haproxy_does_not_do_is_an_error_in_its_own_words(haproxy: Haproxy, words: str) -> None:
    haproxy.answer = f"\n{words}\n\n\n"
    with pytest.raises(errors.PermanentError) as caught:
        await master.change(haproxy.path, change(BEFORE, WANTED))
    assert caught.value.reason == "ENGINE_REFUSED"
    assert caught.value.message == f"HAProxy does not change vs.web.po.main/a1.tenant-a.21: {words}"


async def test_a_worker_that_has_just_died_is_unavailable(haproxy: Haproxy) -> None:
    haproxy.answer = "Can't find the target PID matching the prefix '@1'\n\n"
    with pytest.raises(errors.EngineUnavailable):
        await master.change(haproxy.path, change(BEFORE, WANTED))


async def test_an_error_among_good_words_is_found(haproxy: Haproxy) -> None:
    haproxy.answer = "no need to change the addr, no need to change the port by 'stats socket command'\n\nNo such server.\n\n\n"
    with pytest.raises(errors.PermanentError, match=r"a1\.tenant-a\.21: No such server\.$"):
        await master.change(haproxy.path, change(BEFORE, WANTED))


async def test_a_long_answer_is_shown_on_one_short_line(haproxy: Haproxy) -> None:
    haproxy.answer = "Unknown command, but maybe one of these:\n" + "  show info : a\n" * 1000
    with pytest.raises(errors.PermanentError) as caught:
        await master.change(haproxy.path, change(BEFORE, WANTED))
    assert len(caught.value.message) < 400
    assert "\n" not in caught.value.message


async def test_a_haproxy_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    for ask in (master.look(tmp_path / "none"), master.change(tmp_path / "none", change(BEFORE, WANTED))):
        with pytest.raises(errors.EngineUnavailable):
            await ask


async def test_an_answer_without_an_end_is_given_up(haproxy: Haproxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(master, "_ANSWER_MAX_BYTES", 1000)
    haproxy.answer = "x" * 2000
    with pytest.raises(errors.EngineUnavailable):
        await master.look(haproxy.path)


async def test_structure_and_servers_are_asked_for_together(haproxy: Haproxy) -> None:
    haproxy.answer = LOOK
    assert await master.look(haproxy.path) == master.parse(LOOK)
    assert haproxy.asked == ["@1 show info;@1 show stat -1 12 -1\n"]
