"""What must be done to a route table so that it is as desired: pure, in the order in which it must be done.

`observed` is what the driver saw, `plan` the difference as operations, `report` what both say about each resource,
`statistics` what an agent counted in the API's words, `news` what it told, `standings`
what it is told of vServices. `relocation` is what a move writes, `impact` what that
touches (the difference of two `scene`s), `conflict` what it meets. The operations are the launcher's and agents' own messages,
each with the resource for whose sake it is sent.
"""

from services.nsmanager.plan.conflict import conflicts, obstacles
from services.nsmanager.plan.impact import awakened, evacuated, items, resources, riders, touched, unknown_again
from services.nsmanager.plan.links import foreign
from services.nsmanager.plan.news import Told, events
from services.nsmanager.plan.observed import At, Observed, Privileged
from services.nsmanager.plan.order import plan
from services.nsmanager.plan.relocation import Keep, Relocation, evacuation, move, pulled_back
from services.nsmanager.plan.report import macs, report
from services.nsmanager.plan.scene import LOOPBACK, after, before, is_link_local, left_over
from services.nsmanager.plan.standings import standings
from services.nsmanager.plan.statistics import statistics

__all__ = [
    "LOOPBACK",
    "At",
    "Keep",
    "Observed",
    "Privileged",
    "Relocation",
    "Told",
    "after",
    "awakened",
    "before",
    "conflicts",
    "evacuated",
    "evacuation",
    "events",
    "foreign",
    "is_link_local",
    "items",
    "left_over",
    "macs",
    "move",
    "obstacles",
    "plan",
    "pulled_back",
    "report",
    "resources",
    "riders",
    "standings",
    "statistics",
    "touched",
    "unknown_again",
]
