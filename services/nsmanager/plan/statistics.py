"""From what an agent read of its namespace to what the API says of the route table: pure.

The servicer calls it. What a kernel does not count is 0, and IPv6 is left out where there is none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import timestamp_pb2

from crossns import counter
from crossns.v1 import statistics_pb2

# The API's numbers are signed (AIP-141), the kernel's are not: a driver may count from -1 on.
_MAX = 2**63 - 1
# Field -> the kernel's counters that add up to it, in the spelling of a version of IP.
_IP = {
    "received_packets_total": ("{ip}InReceives",),
    "received_bytes_total": ("{ext}InOctets",),
    "delivered_packets_total": ("{ip}InDelivers",),
    "forwarded_packets_total": ("{forwarded}",),
    "sent_packets_total": ("{ip}OutRequests",),
    "sent_bytes_total": ("{ext}OutOctets",),
    "header_errors_total": ("{ip}InHdrErrors",),
    "address_errors_total": ("{ip}InAddrErrors",),
    "received_discards_total": ("{ip}InDiscards",),
    "sent_discards_total": ("{ip}OutDiscards",),
    "no_routes_total": ("{ext}InNoRoutes", "{ip}OutNoRoutes"),
    "reassembly_failures_total": ("{ip}ReasmFails",),
    "fragmentation_failures_total": ("{ip}FragFails",),
    "addresses": ("{inet}.addresses",),
    "routes": ("{inet}.routes",),
}
_NEIGHBORS = {state: (f"{{inet}}.neighbors.{state}",) for state in ("reachable", "stale", "failed", "permanent")}
_UDP = {
    "received_datagrams_total": ("Udp{six}InDatagrams",),
    "sent_datagrams_total": ("Udp{six}OutDatagrams",),
    "no_ports_total": ("Udp{six}NoPorts",),
    "errors_total": ("Udp{six}InErrors",),
    "receive_buffer_errors_total": ("Udp{six}RcvbufErrors",),
    "send_buffer_errors_total": ("Udp{six}SndbufErrors",),
}
_ICMP = {
    "received_messages_total": ("Icmp{six}InMsgs",),
    "received_errors_total": ("Icmp{six}InErrors",),
    "received_unreachables_total": ("Icmp{six}InDestUnreachs",),
    "sent_messages_total": ("Icmp{six}OutMsgs",),
    "sent_errors_total": ("Icmp{six}OutErrors",),
    "sent_unreachables_total": ("Icmp{six}OutDestUnreachs",),
}
_SOCKETS = {kind.lower(): (f"{kind}{{six}}.inuse",) for kind in ("TCP", "UDP", "RAW")}
_TCP = {
    "active_opens_total": ("TcpActiveOpens",),
    "passive_opens_total": ("TcpPassiveOpens",),
    "attempt_failures_total": ("TcpAttemptFails",),
    "established_resets_total": ("TcpEstabResets",),
    "established": ("TcpCurrEstab",),
    "time_wait": ("TCP.tw",),
    "received_segments_total": ("TcpInSegs",),
    "sent_segments_total": ("TcpOutSegs",),
    "retransmitted_segments_total": ("TcpRetransSegs",),
    "received_errors_total": ("TcpInErrs",),
    "sent_resets_total": ("TcpOutRsts",),
    "listen_overflows_total": ("TcpExtListenOverflows",),
    "listen_drops_total": ("TcpExtListenDrops",),
}
_Sums = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class _Version:
    """The fields of one version of IP, with the names that the kernel gives the counters of that version."""

    ip: _Sums
    udp: _Sums
    icmp: _Sums
    sockets: _Sums
    neighbors: _Sums

    @staticmethod
    def spelt(**spelling: str) -> "_Version":
        def named(fields: _Sums) -> _Sums:
            return {field: tuple(name.format(**spelling) for name in counters) for field, counters in fields.items()}

        return _Version(named(_IP), named(_UDP), named(_ICMP), named(_SOCKETS), named(_NEIGHBORS))


_IPV4 = _Version.spelt(ip="Ip", ext="IpExt", forwarded="IpForwDatagrams", six="", inet="inet")
_IPV6 = _Version.spelt(ip="Ip6", ext="Ip6", forwarded="Ip6OutForwDatagrams", six="6", inet="inet6")


def statistics(name: str, read: counter.KernelCounters) -> statistics_pb2.RouteTableStatistics:
    result = statistics_pb2.RouteTableStatistics(
        name=name,
        read_time=timestamp_pb2.Timestamp(seconds=read.time_ns // 10**9, nanos=read.time_ns % 10**9),
        links=map(_link, read.links),
        ipv4=_ip(read.values, _IPV4),
        ipv6=_ip(read.values, _IPV6) if "Ip6InReceives" in read.values else None,
        tcp=statistics_pb2.TcpStatistics(**_sums(_TCP, read.values)),
        sockets=read.values.get("sockets.used", 0),
    )
    if read.conntrack is not None:
        result.conntrack.entries, result.conntrack.limit = read.conntrack.entries, read.conntrack.limit
    if read.budget is not None:
        result.budget.too_fast_total, result.budget.too_many_total = read.budget.too_fast, read.budget.too_many
    return result


def _link(link: counter.Link) -> statistics_pb2.LinkStatistics:
    def traffic(*numbers: int) -> statistics_pb2.LinkTraffic:
        size_bytes, packets, errors, drops = (number & _MAX for number in numbers)
        return statistics_pb2.LinkTraffic(bytes_total=size_bytes, packets_total=packets, errors_total=errors, drops_total=drops)

    return statistics_pb2.LinkStatistics(
        link=link.name,
        received=traffic(link.received_bytes, link.received_packets, link.received_errors, link.received_drops),
        sent=traffic(link.sent_bytes, link.sent_packets, link.sent_errors, link.sent_drops),
    )


def _ip(values: Mapping[str, int], version: _Version) -> statistics_pb2.IpStatistics:
    return statistics_pb2.IpStatistics(
        **_sums(version.ip, values),
        udp=statistics_pb2.UdpStatistics(**_sums(version.udp, values)),
        icmp=statistics_pb2.IcmpStatistics(**_sums(version.icmp, values)),
        sockets=statistics_pb2.SocketStatistics(**_sums(version.sockets, values)),
        neighbors=statistics_pb2.NeighborStatistics(**_sums(version.neighbors, values)),
    )


def _sums(fields: _Sums, values: Mapping[str, int]) -> dict[str, Any]:
    """Any, because the fields of a message are known by name here."""
    return {field: sum(values.get(name, 0) for name in counters) & _MAX for field, counters in fields.items()}
