"""`crossns watch` says each event in one line."""

import click
import pytest

from crossns.cli import watch
from crossns.v1 import events_pb2, status_pb2

UPDATED, DELETED = events_pb2.EVENT_TYPE_UPDATED, events_pb2.EVENT_TYPE_DELETED
CONDITION = status_pb2.Condition(status=status_pb2.CONDITION_STATUS_FALSE, message="plug it in")


def _event(what: events_pb2.EventType.ValueType, **change: object) -> events_pb2.Event:
    event = events_pb2.Event(type=what, route_tables=["routeTables/a"], **change)  # type: ignore[arg-type] # by name
    event.time.FromSeconds(86400 + 3661)
    return event


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            _event(
                UPDATED, link=events_pb2.LinkChange(link="lan", interface="interfaces/a-lan", mtu=1500, up=True, carrier=True)
            ),
            "01:01:01  UPDATED   routeTables/a  link lan up carrier mtu 1500 (interfaces/a-lan)",
        ),
        (
            _event(DELETED, link=events_pb2.LinkChange(link="br0", mtu=1400, mac_address="02:00:00:00:00:01")),
            "01:01:01  DELETED   routeTables/a  link br0 down mtu 1400 02:00:00:00:00:01",
        ),
        (
            _event(UPDATED, address=events_pb2.AddressChange(link="lan", prefix="10.0.0.1/24")),
            "01:01:01  UPDATED   routeTables/a  address 10.0.0.1/24 dev lan",
        ),
        (
            _event(
                UPDATED,
                route=events_pb2.RouteChange(
                    destination="0.0.0.0/0", route_type="unicast", gateways=["10.0.0.254"], links=["lan"]
                ),
            ),
            "01:01:01  UPDATED   routeTables/a  route 0.0.0.0/0 via 10.0.0.254 dev lan",
        ),
        (
            _event(DELETED, route=events_pb2.RouteChange(destination="192.0.2.0/24", route_type="blackhole")),
            "01:01:01  DELETED   routeTables/a  route 192.0.2.0/24 blackhole",
        ),
        (
            _event(UPDATED, neighbor=events_pb2.NeighborChange(link="lan", address="10.0.0.9", state="failed")),
            "01:01:01  UPDATED   routeTables/a  neighbor 10.0.0.9 dev lan failed",
        ),
        (
            _event(events_pb2.EVENT_TYPE_STARTED, name="routeTables/a", agent=events_pb2.AgentChange(pid=7, restarts=2)),
            "01:01:01  STARTED   routeTables/a  agent (pid 7), 2 restarts",
        ),
        (
            _event(
                events_pb2.EVENT_TYPE_MISSED,
                kind=events_pb2.EVENT_KIND_ROUTE,
                missed=events_pb2.Missed(count=40, message="look at what there is"),
            ),
            "01:01:01  MISSED    routeTables/a  40 events: look at what there is (route)",
        ),
        (
            _event(events_pb2.EVENT_TYPE_MISSED, missed=events_pb2.Missed(message="look")),
            "01:01:01  MISSED    routeTables/a  some events: look",
        ),
        (
            _event(
                events_pb2.EVENT_TYPE_STATUS,
                name="interfaces/i",
                service="nsmanager",
                state=status_pb2.STATE_ERROR,
                conditions=[CONDITION],
            ),
            "01:01:01  STATUS    interfaces/i  ERROR  nsmanager  plug it in",
        ),
        (events_pb2.Event(type=DELETED, name="interfaces/i"), "          DELETED   interfaces/i"),
    ],
)
def test_event_is_one_line(event: events_pb2.Event, line: str) -> None:
    assert click.unstyle(watch.line(event)) == line
