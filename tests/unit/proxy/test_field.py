"""What is refused in single fields of a vService: addresses, numbers, ranges, words, durations; and what to give instead."""

from collections.abc import Callable
from typing import Any

import pytest

from crossns import errors
from crossns.v1 import v_service_pb2
from services.proxy import model
from tests.unit.proxy import sample

Change = Callable[[v_service_pb2.VServiceSpec], object]
HOUR_S = 3600


def refused(change: Change) -> errors.InvalidSpec:
    message = sample.message()
    change(message.spec)
    with pytest.raises(errors.InvalidSpec) as caught:
        model.v_service(message)
    return caught.value


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("10.0.0", "not an IPv4 or IPv6 address"),
        ("10.0.0.5/24", "not an IPv4 or IPv6 address"),
        ("10.0.0.5\n", "not an IPv4 or IPv6 address"),
        ("010.0.0.5", "not an IPv4 or IPv6 address"),
        ("www.example.org", "not an IPv4 or IPv6 address"),
        ("[fd00::5]", "not an IPv4 or IPv6 address"),
        ("0.0.0.0", "unspecified"),
        ("::", "unspecified"),
        ("224.0.0.1", "no unicast"),
        ("ff02::1", "no unicast"),
        ("255.255.255.255", "no unicast"),
        ("127.0.0.1", "loopback"),
        ("127.255.0.9", "loopback"),
        ("::1", "loopback"),
        ("::ffff:10.0.0.5", "give 10.0.0.5"),
        ("::a00:5", "IPv4-compatible"),
        ("::10.0.0.5", "IPv4-compatible"),
        ("::2", "IPv4-compatible"),
        ("fe80::1", "one link only"),
        ("fe80::1%eth0", "one link only"),
        ("fd00::1%eth0", "one link only"),
    ],
)
def test_an_address_that_cannot_be_served_is_refused(address: str, words: str) -> None:
    for field in ("spec.frontends[0].address", "spec.pools[0].members[1].address"):

        def change(spec: v_service_pb2.VServiceSpec, field: str = field) -> None:
            part = spec.frontends[0] if "frontends" in field else spec.pools[0].members[1]
            part.address = address

        error = refused(change)
        assert (error.reason, error.metadata["field"]) == ("INVALID_FIELD", field)
        assert words in error.message


@pytest.mark.parametrize("port", [-1, 65536, 2**31 - 1])
def test_a_port_beyond_the_range_is_refused(port: int) -> None:
    def of_frontend(spec: v_service_pb2.VServiceSpec) -> None:
        spec.frontends[0].port = port

    def of_member(spec: v_service_pb2.VServiceSpec) -> None:
        spec.pools[0].members[0].port = port

    assert refused(of_frontend).metadata["field"] == "spec.frontends[0].port"
    assert refused(of_member).metadata["field"] == "spec.pools[0].members[0].port"


@pytest.mark.parametrize("port", [1, 65535])
def test_the_ends_of_the_range_of_ports_are_ports(port: int) -> None:
    message = sample.message()
    message.spec.frontends[0].port = port
    assert model.v_service(message).frontends[0].port == port


@pytest.mark.parametrize(
    ("change", "field", "known"),
    [
        (lambda spec: spec.MergeFromString(bytes([8, 99])), "spec.protocol", "PROTOCOL_TCP, PROTOCOL_HTTP"),
        (lambda spec: spec.MergeFromString(bytes([16, 99])), "spec.datapath", "DATAPATH_PROXY"),
        (lambda spec: spec.pools[0].MergeFromString(bytes([16, 99])), "spec.pools[0].algorithm", "ALGORITHM_FIRST"),
        (lambda spec: spec.pools[0].MergeFromString(bytes([16, 6])), "spec.pools[0].algorithm", "ALGORITHM_FIRST"),
        (lambda spec: spec.pools[0].MergeFromString(bytes([32, 99])), "spec.pools[0].proxy_protocol", "PROXY_PROTOCOL_V2"),
        (
            lambda spec: spec.pools[0].members[1].MergeFromString(bytes([48, 4])),
            "spec.pools[0].members[1].state",
            "MEMBER_STATE_DRAIN",
        ),
    ],
)
def test_a_word_of_a_newer_client_is_refused_with_those_that_are_known(change: Change, field: str, known: str) -> None:
    error = refused(change)
    assert (error.reason, error.metadata["field"]) == ("INVALID_FIELD", field)
    assert "is not known here: give " in error.message
    assert known in error.message


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (v_service_pb2.ALGORITHM_UNSPECIFIED, "round robin"),
        (v_service_pb2.ALGORITHM_ROUND_ROBIN, "round robin"),
        (v_service_pb2.ALGORITHM_LEAST_CONNECTIONS, "least connections"),
        (v_service_pb2.ALGORITHM_SOURCE_HASH, "source hash"),
        (v_service_pb2.ALGORITHM_RANDOM, "random"),
        (v_service_pb2.ALGORITHM_FIRST, "first"),
    ],
)
def test_every_algorithm_is_known(value: v_service_pb2.Algorithm.ValueType, word: str) -> None:
    message = sample.message()
    message.spec.pools[0].algorithm = value
    assert model.v_service(message).pools[0].algorithm == word


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (v_service_pb2.MEMBER_STATE_UNSPECIFIED, "enabled"),
        (v_service_pb2.MEMBER_STATE_ENABLED, "enabled"),
        (v_service_pb2.MEMBER_STATE_DRAIN, "drain"),
        (v_service_pb2.MEMBER_STATE_DISABLED, "disabled"),
    ],
)
def test_every_state_is_known(value: v_service_pb2.MemberState.ValueType, word: str) -> None:
    message = sample.message()
    message.spec.pools[0].members[0].state = value
    assert model.v_service(message).pools[0].members[0].state == word


@pytest.mark.parametrize(
    ("value", "version"),
    [
        (v_service_pb2.PROXY_PROTOCOL_UNSPECIFIED, 0),
        (v_service_pb2.PROXY_PROTOCOL_V1, 1),
        (v_service_pb2.PROXY_PROTOCOL_V2, 2),
    ],
)
def test_every_version_of_the_proxy_protocol_is_known(value: v_service_pb2.ProxyProtocol.ValueType, version: int) -> None:
    message = sample.message()
    message.spec.pools[0].proxy_protocol = value
    assert model.v_service(message).pools[0].send_proxy == version


@pytest.mark.parametrize(
    ("field", "at_most"),
    [
        ("pools[0].members[1].weight", 256),
        ("pools[0].members[1].port", 65_535),
        ("pools[0].members[1].max_connections", 1_000_000),
        ("frontends[0].limits.max_connections", 1_000_000),
        ("frontends[0].limits.max_connections_per_client", 1_000_000),
        ("frontends[0].limits.max_connection_rate", 1_000_000),
    ],
)
def test_a_number_has_its_bounds(field: str, at_most: int) -> None:
    def setter(value: int) -> Change:
        def change(spec: v_service_pb2.VServiceSpec) -> None:
            part: Any = spec.pools[0].members[1] if field.startswith("pools") else spec.frontends[0]
            part = part.limits if "limits" in field else part
            setattr(part, field.rpartition(".")[2], value)

        return change

    for value in (0, 1, at_most):
        message = sample.message()
        setter(value)(message.spec)
        model.v_service(message)
    for value in (-1, at_most + 1, 2**31 - 1, -(2**31)):
        error = refused(setter(value))
        assert (error.reason, error.metadata["field"]) == ("INVALID_FIELD", f"spec.{field}")
        assert error.message == f"spec.{field}: {value} is out of range: give 0..{at_most}"


@pytest.mark.parametrize(("port", "last"), [(80, 80), (80, 81), (80, 1103), (65_535, 65_535), (64_512, 65_535)])
def test_a_range_has_at_most_1024_ports(port: int, last: int) -> None:
    message = sample.message()
    message.spec.frontends[0].port, message.spec.frontends[0].end_port = port, last
    assert len(model.v_service(message).frontends[0].sockets) == last - port + 1


@pytest.mark.parametrize(
    ("port", "last", "choice"),
    [
        (80, 79, "80..1103"),
        (80, 1104, "80..1103"),
        (80, -1, "80..1103"),
        (65_000, 65_536, "65000..65535"),
        (1, 2**31 - 1, "1..1024"),
    ],
)
def test_a_range_that_ends_elsewhere_is_refused(port: int, last: int, choice: str) -> None:
    def change(spec: v_service_pb2.VServiceSpec) -> None:
        spec.frontends[0].port, spec.frontends[0].end_port = port, last

    error = refused(change)
    assert error.message == f"spec.frontends[0].end_port: {last} does not end a range from {port}: give {choice}"


@pytest.mark.parametrize(
    ("seconds", "nanos", "expected"), [(0, 1_000_000, 1), (24 * HOUR_S, 0, 86_400_000), (1, 5_000_000, 1_005)]
)
def test_a_timeout_is_in_whole_milliseconds(seconds: int, nanos: int, expected: int) -> None:
    message = sample.message()
    message.spec.timeouts.connect.seconds, message.spec.timeouts.connect.nanos = seconds, nanos
    assert model.v_service(message).timeouts.connect_ms == expected


@pytest.mark.parametrize(
    ("seconds", "nanos", "words"),
    [
        (0, 0, "0s is out of range: give 0.001s..86400s"),
        (-1, 0, "-1s is out of range"),
        (0, -5_000_000, "-0.005s is out of range"),
        (24 * HOUR_S, 1_000_000, "86400.001s is out of range"),
        (0, 1_500_000, "0.001500s is too fine: give whole milliseconds"),
        (0, 1, "0.000000001s is too fine"),
        (2**62, 0, "is no duration: give 0.001s..86400s"),
        (1, -1, "is no duration"),
        (1, 2**31 - 1, "is no duration"),
    ],
)
def test_a_timeout_that_is_none_is_refused(seconds: int, nanos: int, words: str) -> None:
    for field in ("connect", "client_idle", "member_idle", "queue"):

        def change(spec: v_service_pb2.VServiceSpec, field: str = field) -> None:
            duration = getattr(spec.timeouts, field)
            duration.SetInParent()
            duration.seconds, duration.nanos = seconds, nanos

        error = refused(change)
        assert (error.reason, error.metadata["field"]) == ("INVALID_FIELD", f"spec.timeouts.{field}")
        assert words in error.message


@pytest.mark.parametrize("field", ["http_request", "http_keep_alive"])
def test_a_timeout_of_http_is_refused_with_tcp(field: str) -> None:
    def change(spec: v_service_pb2.VServiceSpec) -> None:
        getattr(spec.timeouts, field).FromSeconds(5)

    error = refused(change)
    assert error.message == f"spec.timeouts.{field}: is of no use but with PROTOCOL_HTTP: leave it out"
    message = sample.message()
    message.spec.protocol = v_service_pb2.PROTOCOL_HTTP
    change(message.spec)
    assert model.v_service(message).timeouts != model.Timeouts()
