"""What a line of HAProxy's means, whatever a client put into it, and how lines arrive."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from crossns.layout import Layout
from services.nsmanager.launcher import directive
from services.proxy import access
from services.proxy.driver import AccessLog, access_log

# As HAProxy 2.6 sends them.
TCP = b"tcp|vs.web.fe.dmz|dmz.11|203.0.113.9|40001|203.0.113.10|80|vs.web.po.main|a1.tenant-a.21|10.0.0.5|8080|1|2|37|41|--|3\n"
HTTP = (
    b"http|vs.web.fe.six|dmz.11|2001:db8::9|40001|2001:db8::10|443|vs.web.po.main|a1.tenant-a.21|fd00::5|8080"
    b"|0|2|78|114|--|12|9|200|GET,/a/b\n"
)
NEVER_CONNECTED = TCP.replace(b"|1|2|37|41|--|3", b"|1|-1|37|0|SC|3")
NO_SERVER = b"http|vs.web.fe.dmz|dmz.11|203.0.113.9|1|203.0.113.10|80|vs.web.po.main|<NOSRV>|-|-|0|-1|9|217|SC|0|-1|503|GET,/\n"
NO_REQUEST = (
    b"http|vs.web.fe.dmz|dmz.11|203.0.113.9|1|203.0.113.10|80|vs.web.fe.dmz|<NOSRV>|-|-|-1|-1|0|0|CR|5|-1|400|<BADREQ>,<BADREQ>\n"
)
# Of a token (RFC 9110, 5.6.2).
METHOD_CHARACTERS = "!#$%&'*+-.^_`|~0123456789abcXYZ"
ROUND = 0.01


def parsed(line: bytes) -> access.Record:
    record = access.parse(line)
    assert record is not None
    return record


def test_a_tcp_line_has_every_field() -> None:
    assert parsed(TCP).shown() == {
        "v_service": "vServices/web",
        "frontend": "dmz",
        "route_table": "routeTables/dmz",
        "client_address": "203.0.113.9",
        "client_port": 40001,
        "vip": "203.0.113.10",
        "vip_port": 80,
        "pool": "main",
        "member": "a1",
        "member_route_table": "routeTables/tenant-a",
        "member_address": "10.0.0.5",
        "member_port": 8080,
        "queue_ms": 1,
        "connect_ms": 2,
        "total_ms": 3,
        "received_bytes": 37,
        "sent_bytes": 41,
        "ended": "--",
    }


def test_an_http_line_tells_of_the_request_too() -> None:
    shown = parsed(HTTP).shown()
    assert (shown["client_address"], shown["vip"], shown["member_address"]) == ("2001:db8::9", "2001:db8::10", "fd00::5")
    told = {name: shown[name] for name in ("connect_ms", "answer_ms", "total_ms", "status", "method", "path")}
    assert told == {"connect_ms": 2, "answer_ms": 9, "total_ms": 12, "status": 200, "method": "GET", "path": "/a/b"}


def test_a_spare_line_tells_the_members_table_and_address_only() -> None:
    shown = parsed(TCP.replace(b"|a1.tenant-a.21|", b"|_12.tenant-a.21|")).shown()
    assert "member" not in shown
    assert (shown["member_route_table"], shown["member_address"], shown["member_port"]) == (
        "routeTables/tenant-a",
        "10.0.0.5",
        8080,
    )


@pytest.mark.parametrize("line", [NEVER_CONNECTED, NO_SERVER, NO_REQUEST])
def test_where_no_member_was_connected_to_none_is_told(line: bytes) -> None:
    assert not {"member", "member_route_table", "member_address", "member_port", "connect_ms"} & parsed(line).shown().keys()


def test_what_was_no_request_has_neither_method_nor_path_nor_pool() -> None:
    shown = parsed(NO_REQUEST).shown()
    assert not {"method", "path", "pool", "answer_ms", "queue_ms"} & shown.keys()
    assert (shown["status"], shown["ended"]) == (400, "CR")


def test_a_client_without_an_address_is_not_told() -> None:
    shown = parsed(TCP.replace(b"|203.0.113.9|40001|", b"|unix|1|", 1)).shown()
    assert "client_address" not in shown
    assert shown["vip"] == "203.0.113.10"


@given(method=st.text(METHOD_CHARACTERS, min_size=1, max_size=40), path=st.binary(max_size=200))
def test_what_a_client_says_is_in_no_other_field(method: str, path: bytes) -> None:
    expected = parsed(HTTP).shown()
    line = HTTP.removesuffix(b"GET,/a/b\n") + method.encode() + b",/" + path + b"\n"
    shown = parsed(line).shown()
    assert shown.pop("method") == method
    assert shown.pop("path") == "/" + path.decode(errors="replace")
    assert shown == {name: value for name, value in expected.items() if name not in ("method", "path")}


@given(path=st.text("|,/\nabc0123456789.-<>", max_size=100))
def test_a_line_in_a_path_stays_a_path(path: str) -> None:
    forged = TCP.decode() + path
    assert parsed(HTTP.removesuffix(b"/a/b\n") + forged.encode() + b"\n").path == forged
    assert parsed(HTTP.removesuffix(b"/a/b\n") + forged.encode() + b"\n").frontend == "six"


def test_half_a_line_is_none() -> None:
    whole = len(HTTP) - len(b"/a/b\n")
    assert [cut for cut in range(whole) if access.parse(HTTP[:cut])] == []
    assert access.parse(HTTP[:whole])


@given(line=st.binary(max_size=300), at=st.integers(0, len(TCP)))
def test_no_line_is_too_strange(line: bytes, at: int) -> None:
    assert access.parse(line) is None
    record = access.parse(TCP[:at] + line + TCP[at:])
    assert record is None or record.v_service.startswith("vServices/")


@pytest.mark.parametrize(
    "line",
    [
        b"Proxy vs.web.fe.dmz stopped (cumulated conns: FE: 0, BE: 0).\n",
        b"203.0.113.9:48964 [24/Nov/2026:03:26:04.838] vs.web.fe.px/dmz.11: Received something which does not look like a\n",
        b"",
        b"\n",
        b"|" * 17,
        TCP + TCP,
    ],
)
def test_what_else_haproxy_says_is_no_record(line: bytes) -> None:
    assert access.parse(line) is None


def test_the_longest_names_fit_into_a_line() -> None:
    longest, number = "a" * 63, "9" * 19
    address = "2001:db8:1111:2222:3333:4444:5555:6666"
    namespace = f"{longest}.{'9' * 20}"
    sockets = f"{namespace}|{address}|65535|{address}|65535|vs.{longest}.po.{longest}|{longest}.{namespace}|{address}|65535"
    line = f"http|vs.{longest}.fe.{longest}|{sockets}|" + "|".join([*[number] * 4, "--", *[number] * 2, "200", "PROPPATCH,/"])
    assert parsed(line.encode()).pool == longest
    # The longest path that HAProxy keeps.
    assert len(line) + 1024 <= access.LINE_MAX_BYTES


@pytest.mark.parametrize("text", [access.TCP_FORMAT, access.HTTP_FORMAT])
def test_the_launcher_lets_the_formats_in(text: str) -> None:
    directory = Path("/run/crossns/engines/haproxy")
    log = f"log {directory}/log.sock len {access.LINE_MAX_BYTES} format raw local0 info"
    directive.check(f"global\n    {log}\nfrontend vs.web.fe.dmz\n    log global\n    log-format {text}\n", directory)


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not is_so():
            await asyncio.sleep(0.001)


class Arrivals(logging.Handler):
    """The fields of each record, and a None for each turn that others had in between."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str | None] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(f"{record.getMessage()} {vars(record).get('path')}")

    @property
    def lines(self) -> list[str]:
        return [each for each in self.seen if each and each.startswith("access ")]


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(access_log, "_LOOK_S", ROUND)
    monkeypatch.setattr(access_log, "_RETRY_S", ROUND)
    directory = Layout(run=tmp_path).engine_dir("haproxy")
    directory.mkdir(parents=True)
    return directory / "log.sock"


@pytest_asyncio.fixture
async def arrivals(tmp_path: Path, path: Path) -> AsyncIterator[Arrivals]:
    arrivals = Arrivals()
    access_log.log.addHandler(arrivals)
    access_log.log.setLevel(logging.INFO)
    running = asyncio.create_task(AccessLog(Layout(run=tmp_path)).run())
    yield arrivals
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    access_log.log.removeHandler(arrivals)
    access_log.log.setLevel(logging.NOTSET)


def send(path: Path, *lines: bytes) -> None:
    """As HAProxy does: by name, waiting for nobody."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        for line in lines:
            sender.sendto(line, socket.MSG_DONTWAIT, str(path))


def line(number: int) -> bytes:
    return HTTP.replace(b"/a/b", b"/%d" % number)


async def test_every_line_is_logged_once_in_order(arrivals: Arrivals, path: Path) -> None:
    await until(path.exists)
    send(path, line(1), b"Proxy vs.web.fe.dmz stopped", line(2), line(3))
    await until(lambda: len(arrivals.lines) == 3)
    assert arrivals.lines == ["access /1", "access /2", "access /3"]


async def test_others_have_a_turn_between_many_lines(arrivals: Arrivals, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_log, "_LINES_MAX", 3)
    await until(path.exists)
    send(path, *(line(number) for number in range(9)))
    loop = asyncio.get_running_loop()

    def turn() -> None:
        arrivals.seen.append(None)
        if len(arrivals.lines) < 9:
            loop.call_soon(turn)

    turn()
    await until(lambda: len(arrivals.lines) == 9)
    runs = "".join("-" if each is None else "x" for each in arrivals.seen).split("-")
    assert [len(run) for run in runs if run] == [3, 3, 3]


async def test_the_socket_of_a_dead_process_is_replaced(path: Path, arrivals: Arrivals) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stale:
        stale.bind(str(path.with_name("stale")))
    path.with_name("stale").rename(path)
    inode = path.stat().st_ino
    await until(lambda: path.stat().st_ino != inode)
    send(path, line(1))
    await until(lambda: arrivals.lines == ["access /1"])


async def test_haproxy_may_send_under_its_own_uid(arrivals: Arrivals, path: Path) -> None:
    await until(path.exists)
    assert path.stat().st_mode & 0o777 == 0o666
    assert arrivals.lines == []


async def test_a_socket_that_was_taken_away_is_made_again(arrivals: Arrivals, path: Path) -> None:
    await until(path.exists)
    path.unlink()
    await until(path.exists)
    send(path, line(1))
    await until(lambda: arrivals.lines == ["access /1"])


async def test_a_directory_that_is_not_there_yet_is_waited_for(path: Path, arrivals: Arrivals) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))
    await until(lambda: any(each and "no access log" in each for each in arrivals.seen))
    path.parent.mkdir()
    await until(path.exists)
