"""From what the services told to metric families, as a collector of prometheus_client: pure.

Labels are names of what there is (table, link, vService and its parts) and closed sets (family, class), nothing else: so there
are as many series as things. What was not told has no series; `crossns_table_up` and `crossns_service_up` say so.
"""

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from crossns import VERSION, names
from crossns.v1 import statistics_pb2, v_service_pb2
from gateway.metrics import measure
from gateway.metrics.measure import Measure


@dataclass(frozen=True, slots=True)
class Scrape:
    """What the services told. `up`: whether each told all."""

    tables: Sequence[statistics_pb2.TableStatistics] = ()
    v_services: Sequence[v_service_pb2.VServiceStatistics] = ()
    up: Mapping[str, bool] = field(default_factory=dict)
    took_s: float = 0.0


class _Group:
    """The families of things of one sort, which have the same labels."""

    def __init__(self, measures: Iterable[Measure], *labels: str) -> None:
        self.families = [_family(each, labels) for each in measures]
        self._picks = [operator.attrgetter(each.field) for each in measures]

    def add(self, message: Message, *labels: str) -> None:
        for family, pick in zip(self.families, self._picks, strict=True):
            family.add_metric(labels, pick(message))


def _family(of: Measure, labels: Sequence[str]) -> CounterMetricFamily | GaugeMetricFamily:
    kind = CounterMetricFamily if of.is_counter else GaugeMetricFamily
    return kind(f"crossns_{of.name}", of.help, labels=labels, unit=of.unit)


class Collected(Collector):
    """One scrape, to be registered and encoded once."""

    def __init__(self, scrape: Scrape) -> None:
        self._scrape = scrape

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily("crossns_build", "The gateway's version.", value={"version": VERSION})
        yield GaugeMetricFamily(
            "crossns_scrape_duration", "How long the services took to answer.", self._scrape.took_s, unit="seconds"
        )
        up = GaugeMetricFamily("crossns_service_up", "Whether the service told all that it counts.", labels=["service"])
        for service, is_up in self._scrape.up.items():
            up.add_metric([service], is_up)
        yield up
        yield from _tables(self._scrape.tables)
        yield from _v_services(self._scrape.v_services)


def _tables(tables: Sequence[statistics_pb2.TableStatistics]) -> Iterator[Metric]:
    up = GaugeMetricFamily("crossns_table_up", "Whether the table's agent answered in time.", labels=["table"])
    restarts = CounterMetricFamily(
        "crossns_table_agent",
        "How often the agent was started again since its namespace is there.",
        labels=["table"],
        unit="restarts",
    )
    link, ip = _Group(measure.LINK, "table", "link"), _Group(measure.IP, "table", "family")
    table, conntrack = _Group(measure.TABLE, "table"), _Group(measure.CONNTRACK, "table")
    budget = _Group(measure.BUDGET, "table")
    for each in tables:
        name = names.resource_id(each.name)
        up.add_metric([name], each.HasField("statistics"))
        if each.HasField("agent_restarts_total"):
            restarts.add_metric([name], each.agent_restarts_total)
        if not each.HasField("statistics"):
            continue
        table.add(each.statistics, name)
        for interface in each.statistics.links:
            link.add(interface, name, interface.link)
        for version in ("ipv4", "ipv6"):
            if each.statistics.HasField(version):
                ip.add(getattr(each.statistics, version), name, version)
        if each.statistics.HasField("conntrack"):
            conntrack.add(each.statistics, name)
        if each.statistics.HasField("budget"):
            budget.add(each.statistics, name)
    yield up
    yield restarts
    for group in (link, ip, table, conntrack, budget):
        yield from group.families


def _v_services(v_services: Sequence[v_service_pb2.VServiceStatistics]) -> Iterator[Metric]:
    frontend = _Group(measure.FRONTEND, "vservice", "frontend", "table")
    requests = _Group(measure.FRONTEND_HTTP, "vservice", "frontend", "table")
    pool = _Group(measure.POOL, "vservice", "pool")
    member = _Group(measure.MEMBER, "vservice", "pool", "member", "table")
    responses = {
        part: _responses(part, labels)
        for part, labels in (
            ("frontend", ("vservice", "frontend", "table")),
            ("pool", ("vservice", "pool")),
            ("member", ("vservice", "pool", "member", "table")),
        )
    }

    def add(part: str, group: _Group, message: Any, *labels: str) -> None:
        group.add(message, *labels)
        if message.HasField("responses"):
            for code, counter in measure.RESPONSES.items():
                responses[part].add_metric((*labels, code), getattr(message.responses, counter))

    for each in v_services:
        name = names.resource_id(each.name)
        for front in each.frontends:
            labels = (name, front.name, names.resource_id(front.route_table))
            add("frontend", frontend, front, *labels)
            if front.HasField("responses"):
                requests.add(front, *labels)
        for one in each.pools:
            add("pool", pool, one, name, one.name)
        for behind in each.members:
            add("member", member, behind, name, *behind.name.split("/", 1), names.resource_id(behind.route_table))
    for group in (frontend, requests, pool, member):
        yield from group.families
    yield from responses.values()


def _responses(part: str, labels: Sequence[str]) -> CounterMetricFamily:
    text = f"HTTP answers of the {part} by the class of their status code."
    return CounterMetricFamily(f"crossns_vservice_{part}", text, labels=(*labels, "class"), unit="responses")
