"""The one mapping between the error tree and gRPC: `of` and `trailers` for servers, and back again `error_of` for clients.

Pure. An error travels as google.rpc.Status with one ErrorInfo; what else is in the details (BadRequest, PreconditionFailure,
ResourceInfo, RetryInfo) follows from its class, so that the class can be told again on the other side.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import cast

import grpc
from google.protobuf import duration_pb2
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from crossns import errors, names

# What grpc.aio hands out under that name.
Metadata = Iterable[tuple[str, str | bytes]]

DETAILS_KEY = "grpc-status-details-bin"
CODES = {code.name: code for code in grpc.StatusCode}
# All of a status travels in HTTP/2 headers, of which common clients take 8 KiB.
MESSAGE_MAX = 1000
VALUE_MAX = 250
# When to try again: a service comes back within a second; a conflict or a deletion passes sooner.
RETRY_MS = {"UNAVAILABLE": 1000, "ABORTED": 100, "DEADLINE_EXCEEDED": 1000}

# Which class an error had, from what is unmistakable: reasons of their own first, then code and details.
_BY_REASON: dict[str, type[errors.CrossnsError]] = {
    "STORE_UNAVAILABLE": errors.StoreUnavailable,
    "AGENT_UNAVAILABLE": errors.AgentUnavailable,
    "LAUNCHER_UNAVAILABLE": errors.AgentUnavailable,
    "ENGINE_UNAVAILABLE": errors.EngineUnavailable,
    "SERVICE_UNAVAILABLE": errors.ServiceUnavailable,
}
_DETAILS: tuple[type[Message], ...] = (
    error_details_pb2.ErrorInfo,
    error_details_pb2.BadRequest,
    error_details_pb2.PreconditionFailure,
    error_details_pb2.RetryInfo,
)
_BY_DETAIL: dict[tuple[str, type[Message]], type[errors.CrossnsError]] = {
    ("INVALID_ARGUMENT", error_details_pb2.BadRequest): errors.InvalidSpec,
    ("FAILED_PRECONDITION", error_details_pb2.PreconditionFailure): errors.FailedPrecondition,
    ("ABORTED", error_details_pb2.RetryInfo): errors.Aborted,
}
_BY_CODE: dict[str, type[errors.CrossnsError]] = {
    "INVALID_ARGUMENT": errors.RequestError,
    "RESOURCE_EXHAUSTED": errors.RequestError,
    "NOT_FOUND": errors.NotFound,
    "ALREADY_EXISTS": errors.AlreadyExists,
    "ABORTED": errors.StaleEtag,
    "FAILED_PRECONDITION": errors.PermanentError,
    "PERMISSION_DENIED": errors.PermissionDenied,
    "UNAUTHENTICATED": errors.Unauthenticated,
    "OUT_OF_RANGE": errors.OutOfRange,
    "UNIMPLEMENTED": errors.Unimplemented,
    "UNAVAILABLE": errors.TemporaryError,
    "CANCELLED": errors.ServiceUnavailable,
    "DEADLINE_EXCEEDED": errors.DeadlineExceeded,
}
# What gRPC itself says, without details of ours: the reason, and what to do. The other codes stand for a bug.
_FOREIGN = {
    "UNAVAILABLE": ("SERVICE_UNAVAILABLE", "the service does not answer: see that it runs, then try again"),
    "CANCELLED": ("SERVICE_UNAVAILABLE", "the service ended the call: try again"),
    "DEADLINE_EXCEEDED": ("DEADLINE_EXCEEDED", "not done in time: try again, or set a longer deadline"),
    "UNIMPLEMENTED": ("UNIMPLEMENTED", "no such method: is the client newer than the device?"),
    "UNAUTHENTICATED": ("UNAUTHENTICATED", "the caller is not known: give a client certificate"),
    "PERMISSION_DENIED": ("PERMISSION_DENIED", "the caller may not do this"),
    "RESOURCE_EXHAUSTED": ("INVALID_FIELD", "too much for one message: ask for, or send, less at a time"),
}


def of(error: errors.CrossnsError) -> status_pb2.Status:
    """What a client is told. Of our own bugs it learns only that there is one."""
    if isinstance(error, errors.InvariantError):
        error = errors.InvariantError("internal error: the service's log has the details")
    message = _cut(error.message, MESSAGE_MAX)
    status = status_pb2.Status(code=CODES[error.code].value[0], message=message)
    for detail in _details(error, message):
        status.details.add().Pack(detail)
    return status


def trailers(status: status_pb2.Status) -> tuple[tuple[str, bytes], ...]:
    """The metadata that carries the details."""
    return ((DETAILS_KEY, status.SerializeToString()),)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _details(error: errors.CrossnsError, message: str) -> Iterator[Message]:
    metadata = {key: _cut(value, VALUE_MAX) for key, value in error.metadata.items()}
    yield error_details_pb2.ErrorInfo(reason=error.reason, domain=errors.DOMAIN, metadata=metadata)
    resource = metadata.get("resource", "")
    if isinstance(error, errors.InvalidSpec):
        field = error.metadata["field"]
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=field, description=message.removeprefix(f"{field}: "), reason=error.reason
        )
        yield error_details_pb2.BadRequest(field_violations=[violation])
    if isinstance(error, errors.FailedPrecondition):
        failure = error_details_pb2.PreconditionFailure.Violation(type=error.reason, subject=resource, description=message)
        yield error_details_pb2.PreconditionFailure(violations=[failure])
    if resource:
        yield error_details_pb2.ResourceInfo(
            resource_type=names.collection(resource), resource_name=resource, description=error.reason
        )
    if isinstance(error, errors.TemporaryError):
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(RETRY_MS[error.code])
        yield error_details_pb2.RetryInfo(retry_delay=delay)


def error_of(failure: grpc.aio.AioRpcError) -> errors.CrossnsError:
    """The error that the server raised; for what gRPC itself refused, the nearest one."""
    status = status_of(failure)
    if status is not None:
        return read(status)
    return _foreign(failure.code().name, failure.details() or "no details")


def read(status: status_pb2.Status) -> errors.CrossnsError:
    """The error that a google.rpc.Status tells of (`ApplyResponse.error` is one, too)."""
    code = next((code.name for code in grpc.StatusCode if code.value[0] == status.code), "UNKNOWN")
    details = tuple(_unpacked(status))
    info = next((detail for detail in details if isinstance(detail, error_details_pb2.ErrorInfo)), None)
    if info is None or info.domain != errors.DOMAIN:
        return _foreign(code, status.message)
    by_detail = (_BY_DETAIL.get((code, type(detail))) for detail in details)
    kind = _BY_REASON.get(info.reason) or next(filter(None, by_detail), None) or _BY_CODE.get(code, errors.InvariantError)
    return _rebuilt(kind, info.reason, status.message, info.metadata)


def status_of(failure: grpc.aio.AioRpcError) -> status_pb2.Status | None:
    """The details that came with a failed call; None where gRPC itself, or a stranger, refused it."""
    for key, value in cast("Metadata", failure.trailing_metadata() or ()):
        if key == DETAILS_KEY and isinstance(value, bytes):
            with suppress(DecodeError):
                return status_pb2.Status.FromString(value)
    return None


@contextmanager
def translated() -> Iterator[None]:
    """Calls inside the block raise errors of the tree instead of grpc's."""
    try:
        yield
    except grpc.aio.AioRpcError as failure:
        raise error_of(failure) from failure


def _unpacked(status: status_pb2.Status) -> Iterator[Message]:
    for detail in status.details:
        for kind in _DETAILS:
            if detail.Is(kind.DESCRIPTOR):
                yield kind.FromString(detail.value)


def _foreign(code: str, message: str) -> errors.CrossnsError:
    reason, advice = _FOREIGN.get(code, ("INTERNAL", "unexpected failure"))
    kind = _BY_REASON.get(reason) or _BY_CODE.get(code, errors.InvariantError)
    return _rebuilt(kind, reason, f"{advice} ({errors.bounded(message)})", {})


def _rebuilt(kind: type[errors.CrossnsError], reason: str, message: str, metadata: Mapping[str, str]) -> errors.CrossnsError:
    # Past the constructors of the subclasses: they would build the message, which is there already.
    error = kind.__new__(kind, message)
    errors.CrossnsError.__init__(error, reason, message)
    error.metadata = dict(metadata)
    return error
