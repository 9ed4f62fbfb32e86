"""What must be done to HAProxy so that it serves what is desired: pure.

`engine` has what the driver saw and the operations, `difference` the plan, `wish` what it compares with, `slots` who has which
server line, `place` what HAProxy calls each part, `report` what is said about each vService, `blame` what HAProxy does not start
with; `ledger` adds up what HAProxy counts, `statistics` is what is said of that; `impact` is what a change of others would touch.
"""

from services.proxy.plan.blame import blamed
from services.proxy.plan.difference import plan
from services.proxy.plan.engine import (
    Observed,
    Operation,
    Refusal,
    SaveEngine,
    Seen,
    SetServer,
    StartEngine,
    StopEngine,
    digest,
)
from services.proxy.plan.impact import members_in, part
from services.proxy.plan.ledger import Counts, Ledger, Row, Subject, listed, subject
from services.proxy.plan.ledger import parse as rows
from services.proxy.plan.report import SERVICE, report
from services.proxy.plan.statistics import Totals, sections, statistics

__all__ = [
    "SERVICE",
    "Counts",
    "Ledger",
    "Observed",
    "Operation",
    "Refusal",
    "Row",
    "SaveEngine",
    "Seen",
    "SetServer",
    "StartEngine",
    "StopEngine",
    "Subject",
    "Totals",
    "blamed",
    "digest",
    "listed",
    "members_in",
    "part",
    "plan",
    "report",
    "rows",
    "sections",
    "statistics",
    "subject",
]
