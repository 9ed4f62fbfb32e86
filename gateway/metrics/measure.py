"""What metrics there are: name, unit, help, and the field of the services' messages that each shows.

Pure tables, read by `family`. Names follow Prometheus: `crossns_<what>_<unit>`, base units, `_total` where the number only grows,
as the field's own name says. A thing's state now and its total are two names, for one cannot be both.
"""

from collections.abc import Iterable
from typing import NamedTuple


class Measure(NamedTuple):
    """`field` is a path in the message."""

    name: str
    unit: str
    help: str
    field: str

    @property
    def is_counter(self) -> bool:
        return self.field.endswith("_total")


def _both_ways(name: str, unit: str, text: str, field: str) -> Iterable[Measure]:
    """A number of a link's frames, for each direction."""
    yield Measure(f"link_receive{name}", unit, f"{text} that came in on the link.", f"received.{field}")
    yield Measure(f"link_transmit{name}", unit, f"{text} that went out on the link.", f"sent.{field}")


LINK = (
    *_both_ways("", "bytes", "Bytes", "bytes_total"),
    *_both_ways("", "packets", "Packets", "packets_total"),
    *_both_ways("", "errors", "Packets with an error", "errors_total"),
    *_both_ways("_dropped", "packets", "Packets for which there was no room, or that nobody wanted,", "drops_total"),
)
# By version of IP.
IP = (
    Measure("ip_received", "packets", "IP packets that came in, to be forwarded or dropped, too.", "received_packets_total"),
    Measure("ip_received", "bytes", "Bytes of all IP packets that came in, IP header included.", "received_bytes_total"),
    Measure("ip_delivered", "packets", "IP packets that were for the table itself.", "delivered_packets_total"),
    Measure("ip_forwarded", "packets", "IP packets that were passed on to another link.", "forwarded_packets_total"),
    Measure("ip_sent", "packets", "IP packets that the table itself sent.", "sent_packets_total"),
    Measure("ip_sent", "bytes", "Bytes of all IP packets that went out, IP header included.", "sent_bytes_total"),
    Measure("ip_header", "errors", "IP packets dropped for a wrong header.", "header_errors_total"),
    Measure("ip_address", "errors", "IP packets dropped for an address that is none of the table's.", "address_errors_total"),
    Measure("ip_received_discarded", "packets", "IP packets that came in and found no room.", "received_discards_total"),
    Measure("ip_sent_discarded", "packets", "IP packets that were to go out and found no room.", "sent_discards_total"),
    Measure("ip_unrouted", "packets", "IP packets for which there was no route.", "no_routes_total"),
    Measure("ip_reassembly", "failures", "Fragments that did not become a packet.", "reassembly_failures_total"),
    Measure("ip_fragmentation", "failures", "IP packets that could not be fragmented.", "fragmentation_failures_total"),
    Measure("udp_received", "datagrams", "UDP datagrams that a socket took.", "udp.received_datagrams_total"),
    Measure("udp_sent", "datagrams", "UDP datagrams that were sent.", "udp.sent_datagrams_total"),
    Measure("udp_unheard", "datagrams", "UDP datagrams to a port on which nobody listens.", "udp.no_ports_total"),
    Measure("udp_received", "errors", "UDP datagrams that no socket took for any other reason.", "udp.errors_total"),
    Measure("udp_receive_buffer", "errors", "UDP datagrams for which a socket had no room.", "udp.receive_buffer_errors_total"),
    Measure("udp_send_buffer", "errors", "UDP datagrams for which there was no room to send.", "udp.send_buffer_errors_total"),
    Measure("icmp_received", "messages", "ICMP messages that came in.", "icmp.received_messages_total"),
    Measure("icmp_received", "errors", "ICMP messages that came in with an error.", "icmp.received_errors_total"),
    Measure(
        "icmp_received_unreachable",
        "messages",
        "ICMP messages that told the table of a destination that is unreachable.",
        "icmp.received_unreachables_total",
    ),
    Measure("icmp_sent", "messages", "ICMP messages that were sent.", "icmp.sent_messages_total"),
    Measure("icmp_sent", "errors", "ICMP messages that could not be sent.", "icmp.sent_errors_total"),
    Measure(
        "icmp_sent_unreachable",
        "messages",
        "ICMP messages by which the table told of a destination that is unreachable.",
        "icmp.sent_unreachables_total",
    ),
    Measure("tcp", "sockets", "TCP sockets in use, listening ones too.", "sockets.tcp"),
    Measure("udp", "sockets", "UDP sockets in use.", "sockets.udp"),
    Measure("raw", "sockets", "Raw sockets in use.", "sockets.raw"),
    Measure("ip", "addresses", "Addresses on the table's links.", "addresses"),
    Measure("ip", "routes", "Routes of the table, without the kernel's own.", "routes"),
    Measure("ip_reachable", "neighbors", "Neighbours heard of lately.", "neighbors.reachable"),
    Measure("ip_stale", "neighbors", "Neighbours not heard of lately.", "neighbors.stale"),
    Measure("ip_failed", "neighbors", "Neighbours asked for without an answer.", "neighbors.failed"),
    Measure("ip_permanent", "neighbors", "Neighbours set for good.", "neighbors.permanent"),
)
TABLE = (
    Measure("tcp_opened", "connections", "TCP connections begun from the table.", "tcp.active_opens_total"),
    Measure("tcp_accepted", "connections", "TCP connections that the table accepted.", "tcp.passive_opens_total"),
    Measure("tcp_failed", "connections", "TCP connections that did not come about.", "tcp.attempt_failures_total"),
    Measure("tcp_reset", "connections", "TCP connections that a reset ended.", "tcp.established_resets_total"),
    Measure("tcp_established", "connections", "TCP connections that stand now.", "tcp.established"),
    Measure("tcp_time_wait", "connections", "TCP connections in TIME-WAIT now.", "tcp.time_wait"),
    Measure("tcp_received", "segments", "TCP segments that came in.", "tcp.received_segments_total"),
    Measure("tcp_sent", "segments", "TCP segments that were sent, retransmitted ones apart.", "tcp.sent_segments_total"),
    Measure("tcp_retransmitted", "segments", "TCP segments that were sent once more.", "tcp.retransmitted_segments_total"),
    Measure("tcp_received", "errors", "TCP segments that came in wrong.", "tcp.received_errors_total"),
    Measure("tcp_sent", "resets", "TCP resets that were sent.", "tcp.sent_resets_total"),
    Measure("tcp_listen", "overflows", "TCP connections that found their listener's queue full.", "tcp.listen_overflows_total"),
    Measure("tcp_listen", "drops", "TCP connections that a listener dropped for any reason.", "tcp.listen_drops_total"),
    Measure("table", "sockets", "Sockets of every kind that processes hold in the table.", "sockets"),
)
CONNTRACK = (
    Measure("conntrack", "entries", "Connections that are tracked in the table now.", "conntrack.entries"),
    Measure("conntrack_limit", "entries", "How many connections may be tracked.", "conntrack.limit"),
)
BUDGET = (
    Measure(
        "budget_too_fast", "sessions", "Tries to begin a session that came too fast for the budget.", "budget.too_fast_total"
    ),
    Measure("budget_too_many", "sessions", "Tries to begin a session that found the budget used.", "budget.too_many_total"),
)


def _traffic(part: str, text: str) -> Iterable[Measure]:
    yield Measure(f"{part}_open", "connections", f"Connections of the {text} now.", "traffic.connections")
    yield Measure(part, "connections", f"All connections of the {text}.", "traffic.connections_total")
    yield Measure(f"{part}_received", "bytes", f"Bytes from clients of the {text}.", "traffic.received_bytes_total")
    yield Measure(f"{part}_sent", "bytes", f"Bytes to clients of the {text}.", "traffic.sent_bytes_total")


FRONTEND = (
    *_traffic("vservice_frontend", "frontend"),
    Measure("vservice_frontend_denied", "connections", "Connections that a limit closed.", "denied_total"),
    Measure("vservice_frontend_request", "errors", "Requests that were none or were given up.", "request_errors_total"),
)
FRONTEND_HTTP = (Measure("vservice_frontend", "requests", "All HTTP requests of the frontend.", "requests_total"),)
POOL = (
    *_traffic("vservice_pool", "pool"),
    Measure("vservice_pool_queued", "connections", "Connections that wait for a place on a member.", "queued"),
    Measure("vservice_pool_connect", "errors", "Connections that no member accepted.", "connect_errors_total"),
)
MEMBER = (
    *_traffic("vservice_member", "member"),
    Measure("vservice_member_queued", "connections", "Connections that wait for a place on the member.", "queued"),
    Measure("vservice_member_connect", "errors", "Attempts to connect to the member that failed.", "connect_errors_total"),
    Measure("vservice_member_connect", "retries", "Attempts that were made once more.", "retries_total"),
)
# The label `class` -> the field.
RESPONSES = {
    "1xx": "informational_total",
    "2xx": "successful_total",
    "3xx": "redirection_total",
    "4xx": "client_error_total",
    "5xx": "server_error_total",
}
