"""The report of the API: every finding, worst first within its layer, and what they mean together."""

from collections.abc import Iterable

from crossns.v1 import isolation_pb2
from services.nsmanager.plan.isolation import existing, trial
from services.nsmanager.plan.isolation.evidence import Evidence, Finding, Layer, Verdict, full
from services.nsmanager.plan.isolation.graph import joins

_ORDER = (Verdict.LEAK, Verdict.UNPROVEN, Verdict.ISOLATED, Verdict.ALLOWED)


def report(evidence: Evidence) -> isolation_pb2.IsolationReport:
    joined = joins(evidence.surveyed, evidence.tables, evidence.declared)
    found = [*trial.findings(evidence), *existing.findings(evidence, joined)]
    layers = list(Layer)
    found.sort(key=lambda each: (layers.index(each.layer), _ORDER.index(each.verdict)))
    return isolation_pb2.IsolationReport(
        route_tables=[full(table) for table in evidence.tables],
        verdict=_verdict(found).value,
        findings=[_told(each) for each in found],
    )


def _verdict(found: Iterable[Finding]) -> Verdict:
    verdicts = {each.verdict for each in found}
    return next(each for each in _ORDER if each in verdicts)


def _told(finding: Finding) -> isolation_pb2.IsolationFinding:
    return isolation_pb2.IsolationFinding(
        layer=finding.layer.value,
        route_tables=[full(table) for table in finding.tables],
        verdict=finding.verdict.value,
        tried=finding.tried,
        evidence=finding.evidence,
    )
