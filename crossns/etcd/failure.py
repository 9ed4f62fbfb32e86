"""etcd's errors, mapped once: each gRPC status that a member or the channel can answer becomes an error of ours.

Called by `endpoint` for every call. etcd tells some of its errors apart by their text only; that text is part of its API
(etcd: api/v3rpc/rpctypes/error.go).
"""

from grpc import StatusCode
from grpc.aio import AioRpcError

from crossns import errors, store

_FULL = (
    "etcd is full (NOSPACE) and takes no writes: compact it, `etcdctl defrag`, then `etcdctl alarm disarm`; "
    "or start it with a larger --quota-backend-bytes"
)
_TOO_LARGE = "the write is larger than etcd takes (--max-request-bytes, 1.5 MiB): split what refers to so much"
_REFUSED = "etcd refuses this service: check its client certificate and the role of its user in etcd"
_FOREIGN = "what answers there does not speak etcd's v3 API: check the endpoint"

# What a failed call has done. It is unknown of a write that went out on a connection.
_UNCHANGED = "nothing was changed"
_IN_DOUBT = "what was asked for may have been done"
_AWAY = "try again when it is back (`crossns status`)"
_BUSY = "try again a little later"

# Time, another member or an operator helps.
_UNAVAILABLE = {
    StatusCode.UNAVAILABLE: "etcd cannot be reached",
    StatusCode.DEADLINE_EXCEEDED: "etcd does not answer in time",
    StatusCode.CANCELLED: "etcd ended the call",
    StatusCode.INTERNAL: "the connection to etcd broke",
    StatusCode.UNKNOWN: "etcd failed",
    StatusCode.ABORTED: "etcd gave the call up",
    StatusCode.DATA_LOSS: "etcd reports corrupt data",
    StatusCode.RESOURCE_EXHAUSTED: "etcd has too much to do",
    StatusCode.PERMISSION_DENIED: _REFUSED,
    StatusCode.UNAUTHENTICATED: _REFUSED,
    # etcd answers so where its users and roles are set up wrongly; our transactions carry no other precondition.
    StatusCode.FAILED_PRECONDITION: _REFUSED,
    StatusCode.UNIMPLEMENTED: _FOREIGN,
}
# After these another member may do better.
LEAVING = frozenset(
    {StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED, StatusCode.CANCELLED, StatusCode.INTERNAL, StatusCode.UNKNOWN}
)

# The other texts say themselves what to do.
_ADVICE = dict.fromkeys(LEAVING, _AWAY) | {
    StatusCode.ABORTED: _BUSY,
    StatusCode.RESOURCE_EXHAUSTED: _BUSY,
    StatusCode.DATA_LOSS: "restore the member that is corrupt",
}


def of(error: AioRpcError, target: str) -> Exception:
    """What a failed call to the member at `target` means to the caller."""
    code, words = error.code(), errors.bounded(error.details() or "")
    known = _known(code, words)
    if known is not None:
        return known
    if code in _UNAVAILABLE:
        advice = f"; {_ADVICE[code]}" if code in _ADVICE else ""
        message = f"{_UNAVAILABLE[code]} ({target}: {words}): {_UNCHANGED}{advice}"
        return errors.StoreUnavailable(message, target=target, code=code.name)
    return errors.InvariantError(f"etcd refused the call: {code.name}: {words}", target=target)


def in_doubt(lost: errors.StoreUnavailable) -> errors.StoreUnavailable:
    """The same of a write that may have been done."""
    return errors.StoreUnavailable(lost.message.replace(_UNCHANGED, _IN_DOUBT), **lost.metadata)


def _known(code: StatusCode, words: str) -> Exception | None:
    """Errors that the text tells apart."""
    match code:
        case StatusCode.OUT_OF_RANGE if "compacted" in words or "future revision" in words:
            return store.Compacted(words)
        case StatusCode.NOT_FOUND if "lease" in words:
            return store.LeaseLost(words)
        case StatusCode.INVALID_ARGUMENT if "too many operations" in words:
            return too_many_operations(words)
        case StatusCode.INVALID_ARGUMENT if "too large" in words:
            return errors.FailedPrecondition("TOO_MANY_REFERENCES", _TOO_LARGE)
        case StatusCode.RESOURCE_EXHAUSTED if "larger than max" in words:
            return errors.FailedPrecondition("TOO_MANY_REFERENCES", _TOO_LARGE)
        case StatusCode.RESOURCE_EXHAUSTED if "space exceeded" in words:
            return errors.StoreUnavailable(_FULL)
    return None


def too_many_operations(words: str) -> errors.FailedPrecondition:
    message = f"the write does not fit into one transaction ({words}): let fewer resources refer to each other"
    return errors.FailedPrecondition("TOO_MANY_REFERENCES", message)
