"""What an agent makes of /proc/net: the texts are a kernel's own."""

from pathlib import Path

import pytest

from crossns import counter
from services.nsmanager.agent import count

TEXTS = Path(__file__).parents[2] / "testdata/nsmanager"
DEV = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
   lan: 18446744073709551615 2 3 4 50 60 70 80 9 10 11 12 130 140 150 160
eth0.100:      1       2    3    4    5     6          7         8        9      10   11   12   13    14      15         16
"""


def text(name: str) -> str:
    return (TEXTS / f"{name}.txt").read_text(encoding="ascii")


def test_link_has_the_first_four_columns_of_each_direction() -> None:
    lan, dotted = count.links(DEV)
    assert lan == counter.Link("lan", 2**64 - 1, 2, 3, 4, 9, 10, 11, 12)
    assert dotted == counter.Link("eth0.100", 1, 2, 3, 4, 9, 10, 11, 12)


def test_links_that_are_thrown_away_are_not_counted() -> None:
    assert [each.name for each in count.links(DEV.replace("eth0.100", "~trial-a"))] == ["lan"]


def test_links_of_a_kernel_are_all_there() -> None:
    found = {link.name: link for link in count.links(text("dev"))}
    assert set(found) == {"lo", "ifb0", "ifb1", "eth0"}
    assert (found["lo"].received_bytes, found["lo"].received_packets) == (found["lo"].sent_bytes, found["lo"].sent_packets)
    assert found["eth0"].received_bytes > 10**6 > found["ifb0"].received_bytes == 0


def test_every_number_stands_under_the_name_above_it() -> None:
    pairs = dict(count.columns("Ip: Forwarding InReceives\nIp: 2 17\nTcp: MaxConn InSegs\nTcp: -1 5\n"))
    assert pairs == {"IpForwarding": 2, "IpInReceives": 17, "TcpMaxConn": -1, "TcpInSegs": 5}


def test_columns_that_do_not_match_their_names_are_not_guessed_at() -> None:
    with pytest.raises(ValueError, match="zip"):
        dict(count.columns("Ip: Forwarding InReceives\nIp: 2\n"))


def test_sockets_are_told_by_line_and_column() -> None:
    told = dict(count.sockets("sockets: used 13\nTCP: inuse 1 orphan 8 tw 2 alloc 119 mem 69\nTCP6: inuse 4\n"))
    assert told["sockets.used"] == 13
    assert (told["TCP.inuse"], told["TCP.tw"], told["TCP6.inuse"]) == (1, 2, 4)


def test_a_kernel_has_everything_that_is_wanted_and_nothing_stands_twice() -> None:
    everything = [
        *count.columns(text("snmp") + text("netstat")),
        *count.lines(text("snmp6")),
        *count.sockets(text("sockstat") + text("sockstat6")),
    ]
    names = [name for name, _ in everything]
    assert set(names) >= counter.NAMES
    assert len(names) == len(set(names))


def test_a_namespace_without_conntrack_has_no_conntrack(tmp_path: Path) -> None:
    assert count.conntrack(tmp_path) is None
    (tmp_path / "nf_conntrack_count").write_text("12\n", encoding="ascii")
    (tmp_path / "nf_conntrack_max").write_text("65536\n", encoding="ascii")
    assert count.conntrack(tmp_path) == counter.Conntrack(entries=12, limit=65536)


def test_only_what_is_wanted_is_told_of_this_very_namespace() -> None:
    told = count.counters({})
    assert "IpInReceives" in told.values
    assert set(told.values) <= counter.NAMES
    assert "lo" in {link.name for link in told.links}
