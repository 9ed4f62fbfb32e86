"""The text of HAProxy's configuration: pure.

`part` has the names by which HAProxy knows frontends and members, `head` what holds for all, `config` the file.
"""

from services.proxy.render.config import Arrangement, Config, Limits, Piece, file, piece
from services.proxy.render.head import max_connections, max_listeners
from services.proxy.render.part import (
    NOWHERE,
    Part,
    Server,
    Slot,
    backend_section,
    frontend_part,
    frontend_section,
    listeners,
    member_part,
    owner,
)

__all__ = [
    "NOWHERE",
    "Arrangement",
    "Config",
    "Limits",
    "Part",
    "Piece",
    "Server",
    "Slot",
    "backend_section",
    "file",
    "frontend_part",
    "frontend_section",
    "listeners",
    "max_connections",
    "max_listeners",
    "member_part",
    "owner",
    "piece",
]
