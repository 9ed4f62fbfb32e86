"""Validated values of the proxy: what a stored vService means for HAProxy.

`values` are the values, `parse` makes them from messages (and says what is wrong with one), `world` keeps them all. Pure. The
servicer parses to refuse, the loop parses what was stored.
"""

from services.proxy.model.parse import v_service
from services.proxy.model.values import (
    COLLECTION,
    PORT_MAX,
    UNIT,
    Address,
    Desired,
    Frontend,
    Member,
    Pool,
    VService,
    socket_of,
)
from services.proxy.model.world import World

__all__ = [
    "COLLECTION",
    "PORT_MAX",
    "UNIT",
    "Address",
    "Desired",
    "Frontend",
    "Member",
    "Pool",
    "VService",
    "World",
    "socket_of",
    "v_service",
]
