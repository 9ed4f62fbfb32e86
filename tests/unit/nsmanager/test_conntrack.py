"""What connection tracking says, counted: on bytes as the kernel sends them."""

import ipaddress
import struct

import pytest

from services.nsmanager.agent import conntrack


def attribute(number: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), number) + value + bytes(-len(value) % 4)


def entry(source: str, sender: str, *, state: int = 3) -> bytes:
    """A TCP session from `source`, which is answered by `sender`."""
    ends = [
        attribute(number, attribute(1, attribute(1, ipaddress.ip_address(end).packed)))
        for number, end in ((1, source), (2, sender))
    ]
    body = bytes(4) + b"".join(ends) + attribute(4, attribute(1, attribute(1, bytes((state,)))))
    return struct.pack("=IHHII", 16 + len(body), 1 << 8, 2, 1, 0) + body


def counted(*entries: bytes) -> tuple[int, bool]:
    """In a namespace that has 10.0.0.1, sends to 10.0.0.0/24 over link 2 and everything else over link 3."""
    count = conntrack.Count({2}, {"10.0.0.1"}, lambda address: 2 if address.startswith("10.0.0.") else 3, lambda _: None)
    count._take(b"".join(entries))
    return count._count, count._has_more


def test_what_comes_in_or_goes_out_by_the_link_is_counted_and_what_is_the_namespaces_own_is_not() -> None:
    assert counted(entry("10.0.0.6", "10.3.0.6"), entry("10.3.0.6", "10.0.0.6")) == (2, False)
    assert counted(entry("10.3.0.6", "10.4.0.6"), entry("10.0.0.6", "10.0.0.1"), entry("10.0.0.1", "10.0.0.6")) == (0, False)


def test_what_is_not_established_is_not_counted() -> None:
    assert counted(entry("10.0.0.6", "10.3.0.6", state=1), entry("10.0.0.6", "10.3.0.6", state=7)) == (0, False)


@pytest.mark.parametrize("limit", ["ENTRIES_MAX", "ADDRESSES_MAX"])
def test_beyond_a_limit_the_count_is_a_lower_bound_and_says_so(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    sessions = [entry(f"10.0.0.{number}", "10.3.0.6") for number in range(2, 22)]
    monkeypatch.setattr(conntrack, limit, 10)
    found, has_more = counted(*sessions)
    assert 0 < found <= 10
    assert has_more
