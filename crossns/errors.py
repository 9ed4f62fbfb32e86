"""The error tree: grouped by who must act, mapped to gRPC in `rpc` alone, retried in `reconcile` alone.

    CrossnsError                code, reason, metadata
     |- RequestError            the caller must change the request
     |   |- InvalidSpec         a field is wrong; `field` says which
     |   |- NotFound            no such resource
     |   |- AlreadyExists       the name, index, link name or VIP is taken
     |   |- StaleEtag           somebody else wrote in between
     |   |- FailedPrecondition  the device's state does not allow it now
     |   |- PermissionDenied    the caller may not
     |   |- Unauthenticated     the caller is nobody we know
     |   |- OutOfRange          the token is from too long ago
     |   `- Unimplemented       no such method
     |- TemporaryError          time will help
     |   |- StoreUnavailable    etcd
     |   |- AgentUnavailable    an agent or the launcher
     |   |- EngineUnavailable   a data plane engine
     |   |- ServiceUnavailable  a service behind the gateway
     |   |- Aborted             being deleted, or another writer each time
     |   `- DeadlineExceeded    the time is up
     |- PermanentError          this spec will not apply: refused by the kernel or an engine
     `- InvariantError          our bug: logged with traceback, sent as INTERNAL without detail

Every adapter maps its library's errors here once; above it nobody knows pyroute2's, grpc's or etcd's exceptions.
"""

from collections.abc import Mapping
from typing import ClassVar

DOMAIN = "crossns"
# Foreign words (an engine's stderr, a kernel message) are cut to this many characters before they enter a message.
FOREIGN_TEXT_MAX = 256


class CrossnsError(Exception):
    """An error with a canonical gRPC code name, a reason of protos/crossns/v1/errors.proto and every variable of its message."""

    code: ClassVar[str] = "INTERNAL"

    def __init__(self, reason: str, message: str, **metadata: object) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata: Mapping[str, str] = {key: str(value) for key, value in metadata.items()}


class RequestError(CrossnsError):
    """The caller must change the request."""

    code = "INVALID_ARGUMENT"


class InvalidSpec(RequestError):
    """A field is wrong: `metadata["field"]` is its path in the request."""

    def __init__(self, field: str, message: str, *, reason: str = "INVALID_FIELD", **metadata: object) -> None:
        super().__init__(reason, f"{field}: {message}", field=field, **metadata)


class NotFound(RequestError):
    code = "NOT_FOUND"


class AlreadyExists(RequestError):
    code = "ALREADY_EXISTS"


class StaleEtag(RequestError):
    code = "ABORTED"


class FailedPrecondition(RequestError):
    code = "FAILED_PRECONDITION"


class PermissionDenied(RequestError):
    code = "PERMISSION_DENIED"


class Unauthenticated(RequestError):
    code = "UNAUTHENTICATED"


class OutOfRange(RequestError):
    code = "OUT_OF_RANGE"


class Unimplemented(RequestError):
    code = "UNIMPLEMENTED"


class TemporaryError(CrossnsError):
    """Time will help: clients may repeat the call, the loop does so with backoff."""

    code = "UNAVAILABLE"


class StoreUnavailable(TemporaryError):
    def __init__(self, message: str, **metadata: object) -> None:
        super().__init__("STORE_UNAVAILABLE", message, **metadata)


class AgentUnavailable(TemporaryError):
    """An agent (`AGENT_UNAVAILABLE`) or the launcher (`LAUNCHER_UNAVAILABLE`) does not answer."""


class EngineUnavailable(TemporaryError):
    pass


class ServiceUnavailable(TemporaryError):
    pass


class Aborted(TemporaryError):
    code = "ABORTED"


class DeadlineExceeded(TemporaryError):
    code = "DEADLINE_EXCEEDED"


class PermanentError(CrossnsError):
    """This spec will not apply until it, or the world, changes: the kernel's or engine's own words, bounded."""

    code = "FAILED_PRECONDITION"


class InvariantError(CrossnsError):
    """Our bug."""

    def __init__(self, message: str, **metadata: object) -> None:
        super().__init__("INTERNAL", message, **metadata)


def bounded(text: str) -> str:
    """Foreign text on one line, cut to FOREIGN_TEXT_MAX characters."""
    line = " ".join(text.split())
    return line if len(line) <= FOREIGN_TEXT_MAX else line[: FOREIGN_TEXT_MAX - 1] + "…"
