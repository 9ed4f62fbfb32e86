"""What `interface move` shows of an impact, and which session it takes for the operator's own."""

import click

from crossns.cli import client, impact, own_session
from crossns.v1 import impact_pb2


def test_ssh_tells_the_session_without_ports_and_scopes() -> None:
    found = own_session.of({"SSH_CONNECTION": "fe80::1%eth0 50000 fe80::2%eth0 22"})
    assert found == impact_pb2.OwnSession(local_address="fe80::2", remote_address="fe80::1")
    for text in ("", "10.0.0.1", "10.0.0.1 1 10.0.0.2"):
        assert own_session.of({"SSH_CONNECTION": text}) is None


def test_from_elsewhere_the_session_is_the_connection_to_the_gateway() -> None:
    """As the device sees it: its own address, and the one that this machine sends from."""
    found = own_session.find(client.Connection("127.0.0.1:8443", None, None))
    assert found == impact_pb2.OwnSession(local_address="127.0.0.1", remote_address="127.0.0.1")
    assert own_session.find(client.Connection("no port", None, None)) is None


def test_the_worst_comes_first_and_what_is_missing_is_told() -> None:
    told = impact_pb2.Impact(name="interfaces/lan", established_sessions=3, carries_own_session=True)
    told.items.add(kind=impact_pb2.IMPACT_KIND_CONNECTED_ROUTE, severity=impact_pb2.IMPACT_SEVERITY_INFO, object="10.0.0.0/24")
    told.items.add(
        kind=impact_pb2.IMPACT_KIND_LINK,
        change=impact_pb2.IMPACT_CHANGE_MOVED,
        severity=impact_pb2.IMPACT_SEVERITY_WARNING,
        route_table="routeTables/a",
        link="lan",
    )
    told.items.add(
        kind=impact_pb2.IMPACT_KIND_ADDRESS,
        change=impact_pb2.IMPACT_CHANGE_REMOVED,
        severity=impact_pb2.IMPACT_SEVERITY_CRITICAL,
        object="10.44.0.1/24",
    )
    told.conflicts.add(reason="LINK_NAME_TAKEN", message="there is a link lan already", blocking=True)
    told.conflicts.add(reason="SUBNET_OVERLAP", message="b0 has the same subnet")
    told.resources.add(name="interfaces/lan", change=impact_pb2.IMPACT_CHANGE_CHANGED)
    told.unanswered.add(service="proxy", message="it does not listen")
    told.forwarded_sessions, told.forwarded_sessions_at_least = 7, True
    lines = click.unstyle(impact.text(told)).splitlines()
    assert lines[:2] == ["refused: there is a link lan already", "note: b0 has the same subnet"]
    assert [line.split()[0] for line in lines[3:5]] == ["address", "link"]
    assert lines[5:] == [
        "and 1 more that the kernel keeps by itself: routes with addresses, learned neighbours (-o yaml)",
        "resources changed: interfaces/lan",
        "established TCP sessions of the table's own that break: 3",
        "established sessions that are forwarded over it and interrupted: at least 7",
        "the session that you are working in goes over this link",
        "proxy did not answer, what it would say is missing here: it does not listen",
    ]
