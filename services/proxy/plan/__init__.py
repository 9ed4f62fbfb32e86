"""What must be done to HAProxy so that it serves what is desired: pure.

`engine` has what the driver saw and the operations, `difference` the plan, `wish` what it compares with, `slots` who has which
server line, `report` what is said about each vService, `trial` what is left out because HAProxy does not start with it;
`ledger` adds up what HAProxy counts, `statistics` is what is said of that.
"""

from services.proxy.plan.difference import plan
from services.proxy.plan.engine import (
    Observed,
    Operation,
    SaveEngine,
    Seen,
    SetServer,
    StartEngine,
    StopEngine,
    Trial,
    digest,
)
from services.proxy.plan.ledger import Counts, Ledger, Row, Subject, subject
from services.proxy.plan.ledger import parse as rows
from services.proxy.plan.report import SERVICE, report
from services.proxy.plan.statistics import Totals, sections, statistics
from services.proxy.plan.trial import failed, succeeded

__all__ = [
    "SERVICE",
    "Counts",
    "Ledger",
    "Observed",
    "Operation",
    "Row",
    "SaveEngine",
    "Seen",
    "SetServer",
    "StartEngine",
    "StopEngine",
    "Subject",
    "Totals",
    "Trial",
    "digest",
    "failed",
    "plan",
    "report",
    "rows",
    "sections",
    "statistics",
    "subject",
    "succeeded",
]
