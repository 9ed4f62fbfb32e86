"""What must be done to a route table so that it is as desired: pure, in the order in which it must be done.

`observed` is what the driver saw, `plan` the difference as operations, `report` what both say about each resource. The
operations are the launcher's and agents' own messages, each with the resource for whose sake it is sent.
"""

from services.nsmanager.plan.observed import At, Observed, Privileged
from services.nsmanager.plan.order import plan
from services.nsmanager.plan.report import report

__all__ = ["At", "Observed", "Privileged", "plan", "report"]
