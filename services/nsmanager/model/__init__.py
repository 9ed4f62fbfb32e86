"""Validated values of nsmanager: what a stored resource means for the device.

`values` are the values, `parse` makes them from messages (and says what is wrong with one), `world` keeps them by table.
Pure. The servicers parse to refuse, the loop parses what was stored.
"""

from services.nsmanager.model.parse import interface, route, route_table, vips
from services.nsmanager.model.values import BUILT_IN, Desired, Hop, Link, Route, Table, Vip, mark_of, resource_of
from services.nsmanager.model.world import World

__all__ = [
    "BUILT_IN",
    "Desired",
    "Hop",
    "Link",
    "Route",
    "Table",
    "Vip",
    "World",
    "interface",
    "mark_of",
    "resource_of",
    "route",
    "route_table",
    "vips",
]
