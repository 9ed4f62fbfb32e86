"""What must be done to a route table so that it is as desired: pure, in the order in which it must be done.

`observed` is what the driver saw, `plan` the difference as operations, `report` what both say about each resource,
`statistics` what an agent counted in the API's words, `news` what it told. The
operations are the launcher's and agents' own messages, each with the resource for whose sake it is sent.
"""

from services.nsmanager.plan.news import Told, events
from services.nsmanager.plan.observed import At, Observed, Privileged
from services.nsmanager.plan.order import plan
from services.nsmanager.plan.report import report
from services.nsmanager.plan.statistics import statistics

__all__ = ["At", "Observed", "Privileged", "Told", "events", "plan", "report", "statistics"]
