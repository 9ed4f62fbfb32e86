"""Whether route tables are kept apart, judged by evidence: pure, from what was seen to what the API reports.

`graph` follows links from namespace to namespace, `declared` says which of them may be there, `existing` judges what is there
already, `trial` what became of a trial, `report` puts both together. The driver collects, the servicer answers.
"""

from services.nsmanager.plan.isolation.declared import Declared, declared
from services.nsmanager.plan.isolation.evidence import Evidence, Played, Progress
from services.nsmanager.plan.isolation.graph import Joins, joins
from services.nsmanager.plan.isolation.report import report

__all__ = ["Declared", "Evidence", "Joins", "Played", "Progress", "declared", "joins", "report"]
