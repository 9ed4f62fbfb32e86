"""Errors across the line into the privileged tree: `of` on that side, `raised` on this; exact inverses.

The metadata travels with them. A refusal by the fence has a kind of its own, for whoever only wants to know that.
"""

from typing import Literal

from crossns import errors, operation


def of(error: errors.CrossnsError) -> operation.Fault:
    """The error as it is sent; our bugs without their detail."""
    return operation.Fault(kind=_kind(error), reason=error.reason, message=error.message, metadata=dict(error.metadata))


def _kind(error: errors.CrossnsError) -> Literal["request", "temporary", "permanent", "fenced", "invariant"]:
    match error:
        case errors.RequestError():
            return "fenced" if error.reason == "FENCED" else "request"
        case errors.TemporaryError():
            return "temporary"
        case errors.PermanentError():
            return "permanent"
        case _:
            return "invariant"


def raised(fault: operation.Fault) -> errors.CrossnsError:
    """The error that a fault stands for, to be raised by the client."""
    metadata = dict(fault.metadata)
    match fault.kind:
        case "request" | "fenced":
            return errors.FailedPrecondition(fault.reason, fault.message, **metadata)
        case "temporary":
            return errors.AgentUnavailable(fault.reason, fault.message, **metadata)
        case "permanent":
            return errors.PermanentError(fault.reason, fault.message, **metadata)
        case _:
            return errors.InvariantError(fault.message, **metadata)
