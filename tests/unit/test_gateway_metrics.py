"""What Prometheus is told, as its own parsers read it, and the page that tells it."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest, parser
from prometheus_client.core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

import crossns
from crossns.v1 import statistics_pb2, v_service_pb2
from gateway.metrics import measure, page
from gateway.metrics.family import Collected, Scrape

ROOT = Path(__file__).parents[2]
# Gauges of yes and no, and the version, have no unit.
WITHOUT_UNIT = {"crossns_build", "crossns_service_up", "crossns_table_up"}
GROUPS = (
    (measure.LINK, statistics_pb2.LinkStatistics),
    (measure.IP, statistics_pb2.IpStatistics),
    (measure.TABLE, statistics_pb2.RouteTableStatistics),
    (measure.CONNTRACK, statistics_pb2.RouteTableStatistics),
    (measure.BUDGET, statistics_pb2.RouteTableStatistics),
    (measure.FRONTEND, v_service_pb2.FrontendStatistics),
    (measure.FRONTEND_HTTP, v_service_pb2.FrontendStatistics),
    (measure.POOL, v_service_pb2.PoolStatistics),
    (measure.MEMBER, v_service_pb2.MemberStatistics),
)


def filled(message: Any, begin: int = 1) -> Any:
    """Every number of the message another one."""
    number = begin
    for field in message.DESCRIPTOR.fields:
        if field.message_type is not None and not field.is_repeated:
            number = begin + 100 * field.number
            filled(getattr(message, field.name), number)
        elif field.cpp_type == field.CPPTYPE_INT64:
            setattr(message, field.name, begin + field.number)
    return message


def table(name: str, *links: str, **other: Any) -> statistics_pb2.TableStatistics:
    told = filled(statistics_pb2.RouteTableStatistics())
    told.name = f"routeTables/{name}"
    for link in links:
        filled(told.links.add()).link = link
    return statistics_pb2.TableStatistics(name=told.name, statistics=told, **{"agent_restarts_total": 3} | other)


def v_service(name: str, *, is_http: bool = True) -> v_service_pb2.VServiceStatistics:
    told = v_service_pb2.VServiceStatistics(name=f"vServices/{name}")
    front, pool, member = told.frontends.add(), told.pools.add(), told.members.add()
    for part in (front, pool, member):
        filled(part)
        if not is_http:
            part.ClearField("responses")
    front.name, front.route_table, pool.name = "dmz", "routeTables/dmz", "main"
    member.name, member.route_table = "main/a1", "routeTables/a"
    return told


EVERYTHING = Scrape(
    tables=(table("a", "lo", "lan"), table("b", "lo"), statistics_pb2.TableStatistics(name="routeTables/gone")),
    v_services=(v_service("web"), v_service("raw", is_http=False)),
    up={"nsmanager": True, "proxy": False},
    took_s=0.25,
)


def registry(scrape: Scrape) -> CollectorRegistry:
    made = CollectorRegistry(auto_describe=False)
    made.register(Collected(scrape))
    return made


def text(scrape: Scrape = EVERYTHING) -> str:
    return generate_latest(registry(scrape)).decode()


def families(scrape: Scrape = EVERYTHING) -> dict[str, Metric]:
    return {family.name: family for family in parser.text_string_to_metric_families(text(scrape))}


def openmetrics() -> list[Metric]:
    """Everything, by the way of the other format, which alone tells units."""
    text = generate_openmetrics(registry(EVERYTHING)).decode()  # type: ignore[no-untyped-call]
    return list(parse_openmetrics(text))  # type: ignore[no-untyped-call]


def series(name: str, scrape: Scrape = EVERYTHING) -> dict[tuple[str, ...], float]:
    """Label values (in the order of the label's names) -> number."""
    found = [sample for family in families(scrape).values() for sample in family.samples if sample.name == name]
    return {tuple(value for _, value in sorted(sample.labels.items())): sample.value for sample in found}


def test_every_metric_has_a_help_that_is_a_sentence_and_a_type() -> None:
    for family in families().values():
        assert re.fullmatch(r"[A-Z].*\.", family.documentation), family.name
        assert family.type in {"counter", "gauge"}, family.name


def test_every_metric_has_its_unit_at_the_end_of_its_name() -> None:
    found = openmetrics()
    assert {family.name for family in found if not family.unit} == WITHOUT_UNIT
    for family in found:
        assert family.name.startswith("crossns_")
        assert family.name.endswith(family.unit), family.name
        assert family.unit not in {"milliseconds", "kilobytes", "bits", "percent"}


def test_what_only_grows_ends_in_total_and_nothing_else_does() -> None:
    for family in families().values():
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter"), sample.name
    assert families()["crossns_tcp_established_connections"].type == "gauge"


def test_no_series_stands_twice() -> None:
    lines = [line.rpartition(" ")[0] for line in text().splitlines() if not line.startswith("#")]
    assert len(lines) == len(set(lines))


def test_both_formats_of_prometheus_have_the_same_numbers() -> None:
    plain = {
        (sample.name, *sorted(sample.labels.items())): sample.value for each in families().values() for sample in each.samples
    }
    assert {(s.name, *sorted(s.labels.items())): s.value for each in openmetrics() for s in each.samples} == plain


def test_every_number_of_the_messages_is_told() -> None:
    for measures, message in GROUPS:
        told = {each.field for each in measures}
        assert told <= set(_numbers(message.DESCRIPTOR)), message
    ip = {each.field for each in measure.IP}
    assert ip == set(_numbers(statistics_pb2.IpStatistics.DESCRIPTOR))
    assert {each.field for each in measure.LINK} == set(_numbers(statistics_pb2.LinkStatistics.DESCRIPTOR))
    table_wide = {each.field for each in (*measure.TABLE, *measure.CONNTRACK, *measure.BUDGET)}
    everything = set(_numbers(statistics_pb2.RouteTableStatistics.DESCRIPTOR))
    assert table_wide == {field for field in everything if not field.startswith(("ipv4.", "ipv6."))}
    assert set(measure.RESPONSES.values()) == set(_numbers(v_service_pb2.HttpResponses.DESCRIPTOR))
    for part in (measure.FRONTEND + measure.FRONTEND_HTTP, measure.POOL, measure.MEMBER):
        message = next(message for measures, message in GROUPS if measures[0] in part)
        wanted = {field for field in _numbers(message.DESCRIPTOR) if not field.startswith("responses.")}
        assert {each.field for each in part} == wanted


def _numbers(descriptor: Any) -> Iterator[str]:
    """The paths of all numbers but those in lists and times."""
    for field in descriptor.fields:
        if field.is_repeated or (field.message_type is not None and field.message_type.name == "Timestamp"):
            continue
        if field.message_type is not None:
            yield from (f"{field.name}.{path}" for path in _numbers(field.message_type))
        elif field.cpp_type == field.CPPTYPE_INT64:
            yield field.name


def test_link_is_told_by_table_and_direction() -> None:
    link = filled(statistics_pb2.LinkStatistics())
    assert series("crossns_link_receive_bytes_total") == {
        ("lo", "a"): link.received.bytes_total,
        ("lan", "a"): link.received.bytes_total,
        ("lo", "b"): link.received.bytes_total,
    }
    assert series("crossns_link_transmit_dropped_packets_total")["lan", "a"] == link.sent.drops_total


def test_versions_of_ip_are_apart() -> None:
    told = table("a").statistics
    assert series("crossns_udp_unheard_datagrams_total") == {
        (family, name): getattr(told, family).udp.no_ports_total for family in ("ipv4", "ipv6") for name in "ab"
    }


def test_table_without_ipv6_or_conntrack_has_no_series_of_them() -> None:
    bare = table("a")
    for field in ("ipv6", "conntrack", "budget"):
        bare.statistics.ClearField(field)
    scrape = Scrape(tables=(bare,))
    assert [labels[0] for labels in series("crossns_ip_sent_bytes_total", scrape)] == ["ipv4"]
    assert series("crossns_conntrack_entries", scrape) == {}
    assert series("crossns_conntrack_limit_entries") != {}
    assert series("crossns_budget_too_fast_sessions_total", scrape) == {}
    assert series("crossns_budget_too_many_sessions_total") != {}


def test_table_whose_agent_does_not_answer_is_down_and_has_no_numbers() -> None:
    assert series("crossns_table_up") == {("a",): 1, ("b",): 1, ("gone",): 0}
    assert 'table="gone"' not in text().replace('crossns_table_up{table="gone"} 0.0', "")


def test_restarts_of_an_agent_are_told_also_while_it_is_away() -> None:
    away = statistics_pb2.TableStatistics(name="routeTables/a", agent_restarts_total=5)
    assert series("crossns_table_agent_restarts_total", Scrape(tables=(away,))) == {("a",): 5}
    assert series("crossns_table_agent_restarts_total") == {("a",): 3, ("b",): 3}


def test_service_that_does_not_answer_is_down() -> None:
    assert series("crossns_service_up") == {("nsmanager",): 1, ("proxy",): 0}
    assert series("crossns_scrape_duration_seconds") == {(): 0.25}


def test_version_is_that_of_the_project() -> None:
    assert series("crossns_build_info") == {(crossns.VERSION,): 1}
    assert f'version = "{crossns.VERSION}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_parts_of_vservices_are_told_with_their_tables() -> None:
    front = v_service("web").frontends[0]
    assert series("crossns_vservice_frontend_connections_total") == {
        ("dmz", "dmz", name): front.traffic.connections_total for name in ("web", "raw")
    }
    assert set(series("crossns_vservice_pool_queued_connections")) == {("main", "web"), ("main", "raw")}
    assert set(series("crossns_vservice_member_connect_retries_total")) == {
        ("a1", "main", "a", "web"),
        ("a1", "main", "a", "raw"),
    }


def test_answers_and_requests_are_told_of_http_only() -> None:
    assert list(series("crossns_vservice_frontend_requests_total")) == [("dmz", "dmz", "web")]
    for part in ("frontend", "pool", "member"):
        found = series(f"crossns_vservice_{part}_responses_total")
        assert [labels[0] for labels in found] == ["1xx", "2xx", "3xx", "4xx", "5xx"]
        assert {labels[-1] for labels in found} == {"web"}


def test_there_are_as_many_series_as_things() -> None:
    """Twice the tables are twice the series: no label has a value that is not the name of something there is."""

    def count(tables: int) -> int:
        told = text(Scrape(tables=[table(f"t{number}", "lo", "lan") for number in range(tables)]))
        return sum(not line.startswith("#") for line in told.splitlines())

    one, two, ten = (count(number) for number in (1, 2, 10))
    assert ten - one == 9 * (two - one)
    of_table = (measure.TABLE, measure.CONNTRACK, measure.BUDGET)
    assert two - one == 2 + 2 * len(measure.LINK) + 2 * len(measure.IP) + sum(map(len, of_table))
    names = {name for family in families().values() for sample in family.samples for name in sample.labels}
    assert names == {"version", "service", "table", "link", "family", "vservice", "frontend", "pool", "member", "class"}


Ask = Callable[[bytes], Coroutine[None, None, tuple[str, dict[str, str], bytes]]]


@contextlib.asynccontextmanager
async def served(directory: Path, scrape: Callable[[], Awaitable[Scrape]]) -> AsyncIterator[tuple[page.Page, Ask]]:
    """The page on a unix socket, and how to ask it: status line, fields, body."""
    told = page.Page(scrape)
    where = directory / "page"
    server = await asyncio.start_unix_server(told.serve, where, limit=page._HEAD_MAX_BYTES)

    async def ask(request: bytes) -> tuple[str, dict[str, str], bytes]:
        reader, writer = await asyncio.open_unix_connection(where)
        writer.write(request)
        answer = b""
        # Whoever is cut off before he was read.
        with contextlib.suppress(ConnectionError):
            answer = await reader.read()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        head, _, body = answer.partition(b"\r\n\r\n")
        status, *fields = head.decode().split("\r\n")
        return status, dict(field.split(": ", 1) for field in fields), body

    try:
        yield told, ask
    finally:
        server.close()
        await told.close()


async def everything() -> Scrape:
    return EVERYTHING


def get(target: str = "/metrics", *fields: str, method: str = "GET") -> bytes:
    return "\r\n".join((f"{method} {target} HTTP/1.1", "Host: x", *fields, "", "")).encode()


async def test_page_tells_the_metrics(tmp_path: Path) -> None:
    async with served(tmp_path, everything) as (_, ask):
        status, fields, body = await ask(get("/metrics?x=1"))
    assert status == "HTTP/1.1 200 OK"
    assert fields["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert (int(fields["Content-Length"]), body.decode()) == (len(body), text())


async def test_page_speaks_openmetrics_with_whoever_wants_it(tmp_path: Path) -> None:
    async with served(tmp_path, everything) as (_, ask):
        _, fields, body = await ask(
            get("/metrics", "ACCEPT: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4")
        )
    assert fields["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith(b"# EOF\n")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (get("/"), "404 Not Found"),
        (get("/metrics/x"), "404 Not Found"),
        (get(method="POST"), "405 Method Not Allowed"),
        (b"\r\n\r\n", "400 Bad Request"),
        (b"GET /metrics\r\n\r\n", "400 Bad Request"),
        (b"\xff\xfe GET HTTP/9\r\n\r\n", "400 Bad Request"),
        (get("/metrics", f"Cookie: {'x' * 20_000}"), "431 Request Header Fields Too Large"),
        (get("/metrics", "Accept: application/openmetrics-text;version=x.y"), "200 OK"),
    ],
)
async def test_page_answers_whatever_it_is_asked(tmp_path: Path, request_: bytes, status: str) -> None:
    async with served(tmp_path, everything) as (_, ask):
        assert (await ask(request_))[0] == f"HTTP/1.1 {status}"


async def test_nobody_writes_fields_into_an_answer(tmp_path: Path) -> None:
    async with served(tmp_path, everything) as (_, ask):
        status, fields, _ = await ask(get("/metrics", "Accept: application/openmetrics-text;version=2.x\nInjected: 1"))
    assert status == "HTTP/1.1 200 OK"
    assert "Injected" not in "".join(fields.values())


async def test_head_has_no_body(tmp_path: Path) -> None:
    async with served(tmp_path, everything) as (_, ask):
        status, fields, body = await ask(get(method="HEAD"))
    assert (status, body) == ("HTTP/1.1 200 OK", b"")
    assert int(fields["Content-Length"]) == len(text())


async def test_services_are_asked_once_at_a_time(tmp_path: Path) -> None:
    running = most = 0

    async def scrape() -> Scrape:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return Scrape()

    async with served(tmp_path, scrape) as (_, ask):
        answers = await asyncio.gather(*(ask(get()) for _ in range(5)))
    assert ({status for status, _, _ in answers}, most) == ({"HTTP/1.1 200 OK"}, 1)


async def test_whoever_says_nothing_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "_PATIENCE_S", 0.05)
    async with served(tmp_path, everything) as (told, ask):
        assert await ask(b"GET /metrics HTTP/1.1\r\n") == ("", {}, b"")
        assert told._open == set()


async def test_who_comes_too_often_is_cut_off_and_others_have_their_turn_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "_CONNECTIONS_MAX", 1)
    async with served(tmp_path, everything) as (told, ask):
        _, idle = await asyncio.open_unix_connection(tmp_path / "page")
        while not told._open:
            await asyncio.sleep(0)
        assert (await ask(get()))[0] == ""
        idle.close()
        await idle.wait_closed()
        while told._open:
            await asyncio.sleep(0)
        assert (await ask(get()))[0] == "HTTP/1.1 200 OK"


async def test_page_that_closes_leaves_no_connection(tmp_path: Path) -> None:
    scrapes = asyncio.Event()

    async def hanging() -> Scrape:
        scrapes.set()
        await asyncio.Event().wait()
        return Scrape()

    async with served(tmp_path, hanging) as (told, ask):
        asking = asyncio.create_task(ask(get()))
        await scrapes.wait()
        async with asyncio.timeout(page._PATIENCE_S / 2):
            await told.close()
        assert (await asking)[0] == ""
        assert told._open == set()
