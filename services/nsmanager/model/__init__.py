"""Validated values of nsmanager: what a stored resource means for the device.

`values` are the values, `identity` what follows from a table's index, `parse` and `entry` make them from messages (and say what
is wrong with one), `world` keeps them by table. Pure. The servicers parse to refuse, the loop parses what was stored.
"""

from services.nsmanager.model import identity
from services.nsmanager.model.entry import neighbor, rule
from services.nsmanager.model.parse import interface, route, route_table, vips
from services.nsmanager.model.standings import Standings, TableStandings
from services.nsmanager.model.values import (
    BUILT_IN,
    Desired,
    Hop,
    Link,
    Neighbor,
    Route,
    Rule,
    Table,
    Vip,
    mark_of,
    resource_of,
)
from services.nsmanager.model.world import World

__all__ = [
    "BUILT_IN",
    "Desired",
    "Hop",
    "Link",
    "Neighbor",
    "Route",
    "Rule",
    "Standings",
    "Table",
    "TableStandings",
    "Vip",
    "World",
    "identity",
    "interface",
    "mark_of",
    "neighbor",
    "resource_of",
    "route",
    "route_table",
    "rule",
    "vips",
]
