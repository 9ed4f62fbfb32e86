"""Whose connections end when a member is disabled, by what HAProxy 2.6 really says of its sessions."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from services.proxy import render
from services.proxy.driver import ending

SESSIONS = (Path(__file__).parents[2] / "testdata" / "proxy" / "show-sess.txt").read_text(encoding="utf-8")
WEB, SIX, ANY = "0x55567803c350", "0x5556782a9200", "0x7ff21c076380"
# What `show proc` says with a worker from before a reload.
PROCESSES = """\
#<PID>          <type>          <reloads>       <uptime>        <version>
21777           master          1 [failed: 0]   0d00h00m03s     2.6.12-1+deb12u3
# workers
21830           worker          0               0d00h00m01s     2.6.12-1+deb12u3
# old workers
21799           worker          1               0d00h00m03s     2.6.12-1+deb12u3
# programs

"""


def part(service: str, namespace: str, socket: str) -> render.Part:
    return render.Part(f"vs.{service}.po.main", namespace, socket)


@pytest.mark.parametrize(
    ("member", "expected"),
    [
        (part("web", "tenant-a.21", "10.0.0.5:8080"), [WEB]),
        (part("six", "tenant-a.21", "[fd00::5]:8080"), [SIX]),
        # At whichever port a client arrived.
        (part("any", "tenant-b.22", "10.0.0.5:0"), [ANY]),
        (part("any", "tenant-b.22", "10.0.0.5:8081"), [ANY]),
    ],
)
def test_connections_are_known_by_where_they_go(member: render.Part, expected: list[str]) -> None:
    assert ending.of([member], SESSIONS) == expected


@pytest.mark.parametrize(
    "member",
    [
        part("web", "tenant-a.21", "10.0.0.5:8081"),
        part("web", "tenant-a.21", "10.0.0.6:8080"),
        part("web", "tenant-a.22", "10.0.0.5:8080"),
        part("web", "tenant-b.22", "10.0.0.5:8080"),
        part("other", "tenant-a.21", "10.0.0.5:8080"),
        part("six", "tenant-a.21", "[fd00::5]:8081"),
        part("six", "tenant-a.21", "[fd00::]:8080"),
    ],
)
def test_nobody_elses_connections_are_among_them(member: render.Part) -> None:
    assert ending.of([member], SESSIONS) == []


def test_several_members_are_looked_for_at_once() -> None:
    members = [part("any", "tenant-b.22", "10.0.0.5:0"), part("web", "tenant-a.21", "10.0.0.5:8080")]
    assert ending.of(members, SESSIONS) == [WEB, ANY]
    assert ending.of([], SESSIONS) == []
    assert ending.of(members, "") == []


def test_the_line_of_a_connection_does_not_matter() -> None:
    """The same spare line was another member's in the worker from before."""
    on_spare = SESSIONS.replace("server=a1.tenant-a.21", "server=_1.tenant-a.21")
    assert ending.of([part("web", "tenant-a.21", "10.0.0.5:8080")], on_spare) == [WEB]


def test_a_session_that_goes_nowhere_yet_is_nobodys() -> None:
    paragraph = SESSIONS[: SESSIONS.index(SIX)].strip()
    waiting = re.sub(r"server=.*", "server=<NONE> (id=-1)", paragraph)
    assert ending.of([part("web", "tenant-a.21", "10.0.0.5:8080")], f"{waiting}\n\n") == []
    # One behind it is not taken for it.
    other = paragraph.replace(WEB, "0x7fffffffffff")
    assert ending.of([part("web", "tenant-a.21", "10.0.0.5:8080")], f"{waiting}\n\n{other}\n\n") == ["0x7fffffffffff"]


class Haproxy:
    """The master's socket, with two workers that have the same sessions."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.processes = PROCESSES
        self.ended: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for question in (await reader.read()).decode().rstrip("\n").split(";"):
            writer.write(self.answer(question).encode())
        await writer.drain()
        writer.close()

    def answer(self, question: str) -> str:
        if question == "show proc":
            return self.processes
        worker, _, command = question.partition(" ")
        assert worker in {"@!21830", "@!21799"}
        if command == "show sess":
            listed = re.findall(r"^(0x[0-9a-f]+): .*?  backend=(\S+) .*?  server=(\S+) ", SESSIONS, re.MULTILINE | re.DOTALL)
            return "".join(f"{id_}: proto=tcpv4 src=x fe=y be={be} srv={srv} ts=00\n" for id_, be, srv in listed) + "\n"
        if command.startswith("show sess "):
            (found,) = re.findall(rf"^{command.split()[2]}: .*?(?=^0x|\Z)", SESSIONS, re.MULTILINE | re.DOTALL)
            return f"{found.strip()}\n\n"
        self.ended.append(f"{worker} {command}")
        return "\n"


@pytest_asyncio.fixture
async def haproxy(tmp_path: Path) -> AsyncIterator[Haproxy]:
    made = Haproxy(tmp_path / "master.sock")
    server = await asyncio.start_unix_server(made.serve, made.path)
    yield made
    server.close()
    await server.wait_closed()


async def test_connections_end_in_every_worker(haproxy: Haproxy) -> None:
    await ending.end(haproxy.path, {part("six", "tenant-a.21", "[fd00::5]:8080"), part("web", "tenant-a.21", "10.0.0.5:8080")})
    assert haproxy.ended == [f"@!{worker} shutdown session {id_}" for worker in (21830, 21799) for id_ in (WEB, SIX)]


async def test_connections_end_where_no_worker_is_the_current_one(haproxy: Haproxy) -> None:
    """After a reload that was refused."""
    haproxy.processes = re.sub(r"^21830 .*\n", "", PROCESSES, flags=re.MULTILINE)
    await ending.end(haproxy.path, {part("web", "tenant-a.21", "10.0.0.5:8080")})
    assert haproxy.ended == [f"@!21799 shutdown session {WEB}"]


async def test_more_connections_than_a_line_of_commands_has_room_for_end_too(
    haproxy: Haproxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "_BATCH", 1)
    await ending.end(haproxy.path, {part("six", "tenant-a.21", "[fd00::5]:8080"), part("web", "tenant-a.21", "10.0.0.5:8080")})
    assert len(haproxy.ended) == 4


async def test_where_nobody_is_disabled_nobody_is_asked(tmp_path: Path) -> None:
    await ending.end(tmp_path / "none", ())
