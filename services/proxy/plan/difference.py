"""The one question: does HAProxy run the text that the vServices make, with every listener of it open?"""

from collections.abc import Mapping

from services.proxy import model, render
from services.proxy.plan.engine import Observed, Operation, StartEngine, StopEngine, digest


def plan(desired: model.Desired, observed: Observed) -> tuple[Operation, ...]:
    """At most one operation: HAProxy takes a configuration whole."""
    if is_current(desired, observed):
        return ()
    if not desired.services:
        return (StopEngine(),)
    return (StartEngine(_configuration(desired, observed), _listeners(desired, observed) - observed.serving),)


def is_current(desired: model.Desired, observed: Observed) -> bool:
    """Whether nothing is to be done."""
    if not desired.services:
        return not observed.running
    is_taken = observed.digest == digest(_configuration(desired, observed))
    return is_taken and _listeners(desired, observed) <= observed.serving


def entered(desired: model.Desired, observed: Observed) -> Mapping[str, str]:
    """The tables whose namespace engines can enter: one that has just gone would make HAProxy refuse the whole file."""
    return {table: namespace for table, namespace in desired.tables.items() if namespace in observed.namespaces}


def _configuration(desired: model.Desired, observed: Observed) -> str:
    """What can be served now: without the tables that are not there, and without what HAProxy refuses."""
    return render.render(desired.services, entered(desired, observed), observed.trial.left_out, observed.limits)


def _listeners(desired: model.Desired, observed: Observed) -> frozenset[render.Part]:
    """Those that the configuration has."""
    tables = entered(desired, observed)
    return frozenset(
        part
        for vservice in desired.services
        for frontend in vservice.frontends
        if (part := render.frontend_part(vservice.name, frontend, tables)) is not None and part not in observed.trial.left_out
    )
