"""A route table's statistics as text: links, what IP carries by version, TCP, sockets; each with rates where there are any.

Pure. A rate that there is not is `-`.
"""

from collections.abc import Sequence

import click
from google.protobuf.message import Message

from crossns.cli import columns
from crossns.cli.statistics import size
from crossns.cli.stats.rate import Looks
from crossns.v1 import statistics_pb2

_UNKNOWN = "-"
_LINK_HEADS = ["LINK", "IN/s", "PACKETS/s", "OUT/s", "PACKETS/s", "IN", "OUT", "ERRORS", "DROPS"]
_IP_HEADS = ["", "IPv4/s", "IPv4", "IPv6/s", "IPv6"]
_TCP_HEADS = ["", "PER SECOND", "TOTAL"]
# What is shown of each version of IP: the part of its message ("" for itself), and the fields that add up.
_IP_ROWS = (
    ("packets in", "", ("received_packets_total",)),
    ("packets out", "", ("sent_packets_total",)),
    ("forwarded", "", ("forwarded_packets_total",)),
    ("dropped in", "", ("header_errors_total", "address_errors_total", "received_discards_total")),
    ("dropped out", "", ("sent_discards_total",)),
    ("no route", "", ("no_routes_total",)),
    ("UDP in", "udp", ("received_datagrams_total",)),
    ("UDP out", "udp", ("sent_datagrams_total",)),
    ("UDP no port", "udp", ("no_ports_total",)),
    ("UDP errors", "udp", ("errors_total", "send_buffer_errors_total")),
    ("ICMP in", "icmp", ("received_messages_total",)),
    ("ICMP out", "icmp", ("sent_messages_total",)),
)
_TCP_ROWS = (
    ("opened", "active_opens_total"),
    ("accepted", "passive_opens_total"),
    ("failed", "attempt_failures_total"),
    ("reset", "established_resets_total"),
    ("segments in", "received_segments_total"),
    ("segments out", "sent_segments_total"),
    ("sent again", "retransmitted_segments_total"),
    ("errors in", "received_errors_total"),
    ("listener drops", "listen_drops_total"),
)
# Of sessions that were not let in.
_BUDGET_HEADS = _TCP_HEADS
_BUDGET_ROWS = (("came too fast", "too_fast_total"), ("too many at a time", "too_many_total"))


def text(looks: Looks, note: str = "") -> str:
    """The whole screen. `note`: what stands beside the table's name."""
    head = [click.style(looks.now.name, bold=True), f"{columns.time(looks.now.read_time)} UTC", note]
    sections = [
        "  ".join(filter(None, head)),
        _section("links", columns.aligned([_LINK_HEADS, *(_link(looks, each) for each in looks.now.links)], _LINK_HEADS[1:])),
        _section("IP", columns.aligned([_IP_HEADS, *_ip(looks)], _IP_HEADS[1:])),
        _section("TCP", columns.aligned([_TCP_HEADS, *_tcp(looks)], _TCP_HEADS[1:])),
        _section("sockets", _sockets(looks.now)),
    ]
    if looks.now.HasField("conntrack"):
        sections.append(_section("connection tracking", f"{looks.now.conntrack.entries:,} of {looks.now.conntrack.limit:,}"))
    if looks.now.HasField("budget"):
        sections.append(_section("over budget", columns.aligned([_BUDGET_HEADS, *_budget(looks)], _BUDGET_HEADS[1:])))
    return "\n".join(sections)


def _section(title: str, body: str) -> str:
    return click.style(f"{title}:", bold=True) + "".join(f"\n  {line}" for line in body.splitlines())


def _link(looks: Looks, link: statistics_pb2.LinkStatistics) -> list[str]:
    was = looks.link_before(link.link)
    ways = ((link.received, was and was.received), (link.sent, was and was.sent))
    rates = [cell for now, before in ways for cell in _link_rates(looks, now, before or None)]
    errors, drops = (sum(getattr(now, field) for now, _ in ways) for field in ("errors_total", "drops_total"))
    return [link.link, *rates, size(link.received.bytes_total), size(link.sent.bytes_total), f"{errors:,}", f"{drops:,}"]


def _link_rates(looks: Looks, now: statistics_pb2.LinkTraffic, before: statistics_pb2.LinkTraffic | None) -> tuple[str, str]:
    size_bytes = looks.rate("bytes_total", now, before)
    return _UNKNOWN if size_bytes is None else f"{size(round(size_bytes))}/s", _rate(looks.rate("packets_total", now, before))


def _ip(looks: Looks) -> list[list[str]]:
    versions = [_version(looks, version) for version in ("ipv4", "ipv6")]
    return [[name, *(cell for version in versions for cell in version[place])] for place, (name, _, _) in enumerate(_IP_ROWS)]


def _version(looks: Looks, version: str) -> list[list[str]]:
    """Rate and total of each of _IP_ROWS."""
    if not looks.now.HasField(version):  # type: ignore[arg-type] # is ipv4 or ipv6
        return [[_UNKNOWN, _UNKNOWN] for _ in _IP_ROWS]
    now: Message = getattr(looks.now, version)
    before: Message | None = getattr(looks.before, version) if looks.before is not None else None
    cells = []
    for _, part, fields in _IP_ROWS:
        of = getattr(now, part) if part else now
        was = getattr(before, part) if part and before is not None else before
        rates = [looks.rate(field, of, was) for field in fields]
        cells.append([_sum(rates), f"{sum(getattr(of, field) for field in fields):,}"])
    return cells


def _tcp(looks: Looks) -> list[list[str]]:
    now, before = looks.now.tcp, looks.before.tcp if looks.before is not None else None
    return [[name, _rate(looks.rate(field, now, before)), f"{getattr(now, field):,}"] for name, field in _TCP_ROWS]


def _budget(looks: Looks) -> list[list[str]]:
    now, before = looks.now.budget, looks.before.budget if looks.before is not None else None
    return [[name, _rate(looks.rate(field, now, before)), f"{getattr(now, field):,}"] for name, field in _BUDGET_ROWS]


def _sockets(now: statistics_pb2.RouteTableStatistics) -> str:
    kinds = [
        f"{name} {getattr(now.ipv4.sockets, field) + getattr(now.ipv6.sockets, field):,}"
        for name, field in (("TCP", "tcp"), ("UDP", "udp"), ("raw", "raw"))
    ]
    tcp = f"{now.tcp.established:,} connections established, {now.tcp.time_wait:,} in TIME-WAIT"
    return f"{now.sockets:,} held by processes; in use: {', '.join(kinds)}; {tcp}"


def _rate(rate: float | None) -> str:
    if rate is None:
        return _UNKNOWN
    return f"{rate:,.1f}" if 0 < rate < 10 else f"{rate:,.0f}"


def _sum(rates: Sequence[float | None]) -> str:
    known = [rate for rate in rates if rate is not None]
    return _rate(sum(known) if len(known) == len(rates) else None)
