"""What the measurements of route tables share: the device, its gateway, and the tables that stand by now."""

from dataclasses import dataclass, field

from bench import client
from crossns.testing.device import Device

LABEL = {"bench": "tables"}
# Where the gateway tells metrics; in the sandbox nobody else listens.
METRICS = "127.0.0.1:9464"
# At so many tables the growing pauses, and at so many it ends.
STANDING, ALL = 200, 500


@dataclass(slots=True)
class Place:
    device: Device
    gateway: client.Channel
    # Ids, in the order of their creation, and how long each took until READY.
    tables: list[str] = field(default_factory=list)
    created_ms: list[float] = field(default_factory=list)
