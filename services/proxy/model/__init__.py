"""Validated values of the proxy: what a stored vService means for HAProxy.

`values` are the values, `parse` makes them from messages (and says what is wrong with one, `field` by field), `target` is what of
them is checked, `world` keeps them all. Pure. The servicer parses to refuse, the loop parses what was stored.
"""

from services.proxy.model.parse import v_service
from services.proxy.model.target import Target, target_of, targets
from services.proxy.model.values import (
    COLLECTION,
    PORT_MAX,
    UNIT,
    WEIGHT_MAX,
    Address,
    Algorithm,
    Desired,
    Frontend,
    Invalid,
    Limits,
    Member,
    Pool,
    Protocol,
    Timeouts,
    VService,
    socket,
)
from services.proxy.model.world import World

__all__ = [
    "COLLECTION",
    "PORT_MAX",
    "UNIT",
    "WEIGHT_MAX",
    "Address",
    "Algorithm",
    "Desired",
    "Frontend",
    "Invalid",
    "Limits",
    "Member",
    "Pool",
    "Protocol",
    "Target",
    "Timeouts",
    "VService",
    "World",
    "socket",
    "target_of",
    "targets",
    "v_service",
]
