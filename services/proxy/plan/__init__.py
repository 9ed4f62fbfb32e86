"""What must be done to HAProxy so that it serves what is desired: pure.

`engine` has what the driver saw and the operations, `difference` the plan, `wish` what it compares with, `slots` who has which
server line, `report` what is said about each vService, `trial` what is left out because HAProxy does not start with it.
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
from services.proxy.plan.report import report
from services.proxy.plan.trial import failed, succeeded

__all__ = [
    "Observed",
    "Operation",
    "SaveEngine",
    "Seen",
    "SetServer",
    "StartEngine",
    "StopEngine",
    "Trial",
    "digest",
    "failed",
    "plan",
    "report",
    "succeeded",
]
