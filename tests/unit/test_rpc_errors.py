"""Errors cross the wire and come out as what they were; the policy names every method; what is secret stays here."""

import json
import logging
import subprocess
import sys
from collections.abc import Iterator

import grpc
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc import aio
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from hypothesis import given
from hypothesis import strategies as some

from crossns import errors, rpc, telemetry
from crossns.rpc import identity, policy, status
from crossns.v1 import (
    config_pb2,
    errors_pb2,
    events_pb2,
    impact_pb2,
    interface_pb2,
    neighbor_pb2,
    route_pb2,
    route_table_pb2,
    rule_pb2,
    v_service_pb2,
)

TEXT = some.text(max_size=40)
METADATA = some.dictionaries(some.text("abcdefgh_", min_size=1, max_size=8), TEXT, max_size=4)


def _tree(kind: type[errors.CrossnsError]) -> Iterator[type[errors.CrossnsError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _tree(child)


# One of each class that is raised, as it is raised.
EXAMPLES: tuple[errors.CrossnsError, ...] = (
    errors.RequestError("DUPLICATE_RESOURCE", "twice", resource="interfaces/a"),
    errors.InvalidSpec("spec.mtu", "must be 68..65535", value=1),
    errors.InvalidSpec("name", "is required", reason="REQUIRED_FIELD"),
    errors.NotFound("NOT_FOUND", "no routeTables/a", resource="routeTables/a"),
    errors.AlreadyExists("VIP_TAKEN", "taken by vServices/b", owner="vServices/b"),
    errors.StaleEtag("STALE_ETAG", "read again", resource="vServices/b"),
    errors.FailedPrecondition("ROUTE_TABLE_NOT_EMPTY", "move interfaces/a out", resource="routeTables/a"),
    errors.PermissionDenied("PERMISSION_DENIED", "no"),
    errors.Unauthenticated("UNAUTHENTICATED", "who?"),
    errors.OutOfRange("RESUME_TOKEN_EXPIRED", "start again"),
    errors.Unimplemented("UNIMPLEMENTED", "no such method"),
    errors.StoreUnavailable("etcd is silent"),
    errors.AgentUnavailable("AGENT_UNAVAILABLE", "agent of tenant-a is gone", table="tenant-a"),
    errors.AgentUnavailable("LAUNCHER_UNAVAILABLE", "launcher is gone"),
    errors.EngineUnavailable("ENGINE_UNAVAILABLE", "haproxy is gone"),
    errors.ServiceUnavailable("SERVICE_UNAVAILABLE", "proxy is gone", service="proxy"),
    errors.Aborted("BEING_DELETED", "wait", resource="routeTables/a"),
    errors.DeadlineExceeded("DEADLINE_EXCEEDED", "too slow"),
    errors.PermanentError("KERNEL_REFUSED", "EINVAL"),
)


def _sent(error: errors.CrossnsError) -> aio.AioRpcError:
    """What a client's call raises when a servicer raised `error`."""
    sent = status.of(error)
    return _failure(error.code, sent.message, status.trailers(sent))


def _failure(code: str, message: str, trailing: tuple[tuple[str, bytes], ...] = ()) -> aio.AioRpcError:
    return aio.AioRpcError(grpc.StatusCode[code], aio.Metadata(), aio.Metadata(*trailing), message, None)


def _details(error: errors.CrossnsError) -> dict[str, Message]:
    found: dict[str, Message] = {}
    for detail in status.of(error).details:
        kind = getattr(error_details_pb2, detail.type_url.rsplit(".", 1)[1])
        found[kind.DESCRIPTOR.name] = kind.FromString(detail.value)
    return found


def test_every_class_of_the_tree_has_an_example_here() -> None:
    groups = {errors.CrossnsError, errors.TemporaryError, errors.InvariantError}
    assert set(_tree(errors.CrossnsError)) - groups == {type(example) for example in EXAMPLES}


@pytest.mark.parametrize("kind", list(_tree(errors.CrossnsError)))
def test_every_class_maps_to_a_code_that_is_none_of_success(kind: type[errors.CrossnsError]) -> None:
    assert status.CODES[kind.code] not in (grpc.StatusCode.OK, grpc.StatusCode.UNKNOWN)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: f"{type(error).__name__}-{error.reason}")
def test_what_a_client_gets_is_what_the_servicer_raised(error: errors.CrossnsError) -> None:
    received = rpc.error_of(_sent(error))
    assert type(received) is type(error)
    assert (received.reason, received.message, str(received)) == (error.reason, error.message, str(error))
    assert received.metadata == error.metadata


@given(some.sampled_from([type(example) for example in EXAMPLES]), TEXT, METADATA)
def test_any_words_and_variables_survive_the_way(kind: type[errors.CrossnsError], message: str, metadata: dict[str, str]) -> None:
    error = kind.__new__(kind, message)
    own_reason = next(example.reason for example in EXAMPLES if type(example) is kind)
    errors.CrossnsError.__init__(error, own_reason, message, **{"field": "f"} | metadata)
    received = rpc.error_of(_sent(error))
    assert (type(received), received.message, received.metadata) == (kind, message, error.metadata)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: f"{type(error).__name__}-{error.reason}")
def test_every_error_carries_one_error_info_of_our_domain_and_of_the_registry(error: errors.CrossnsError) -> None:
    packed = [detail for detail in status.of(error).details if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR)]
    (info,) = (error_details_pb2.ErrorInfo.FromString(detail.value) for detail in packed)
    assert info.domain == "crossns"
    assert f"REASON_{info.reason}" in errors_pb2.Reason.keys()  # noqa: SIM118 - an enum's wrapper
    assert dict(info.metadata) == error.metadata


def test_invalid_field_is_named_in_a_bad_request() -> None:
    details = _details(errors.InvalidSpec("spec.mtu", "must be 68..65535"))
    violation = error_details_pb2.BadRequest.FieldViolation(
        field="spec.mtu", description="must be 68..65535", reason="INVALID_FIELD"
    )
    assert details["BadRequest"] == error_details_pb2.BadRequest(field_violations=[violation])


def test_resource_that_an_error_is_about_is_named_with_its_collection() -> None:
    about = _details(errors.NotFound("NOT_FOUND", "no", resource="routeTables/a/routes/r"))["ResourceInfo"]
    assert isinstance(about, error_details_pb2.ResourceInfo)
    assert (about.resource_type, about.resource_name) == ("routes", "routeTables/a/routes/r")


def test_refused_precondition_says_of_what() -> None:
    failure = _details(errors.FailedPrecondition("STILL_REFERENCED", "used", resource="routeTables/a"))["PreconditionFailure"]
    assert isinstance(failure, error_details_pb2.PreconditionFailure)
    assert [(each.type, each.subject) for each in failure.violations] == [("STILL_REFERENCED", "routeTables/a")]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: f"{type(error).__name__}-{error.reason}")
def test_exactly_temporary_errors_say_when_to_try_again(error: errors.CrossnsError) -> None:
    details = _details(error)
    assert ("RetryInfo" in details) == isinstance(error, errors.TemporaryError)
    if "RetryInfo" in details:
        retry = details["RetryInfo"]
        assert isinstance(retry, error_details_pb2.RetryInfo)
        assert 0 < retry.retry_delay.ToMilliseconds() <= 1000


def test_our_bug_is_told_without_its_details() -> None:
    sent = status.of(errors.InvariantError("the key is hunter2", value="hunter2"))
    assert sent.code == grpc.StatusCode.INTERNAL.value[0]
    assert b"hunter2" not in sent.SerializeToString()
    assert isinstance(rpc.error_of(_sent(errors.InvariantError("x"))), errors.InvariantError)


def test_long_words_are_cut_to_what_headers_carry() -> None:
    error = errors.FailedPrecondition("STILL_REFERENCED", "é" * 5000, resource="r" * 5000, referrers="x" * 5000)
    sent = status.of(error)
    # Percent-encoded once as the message, in base64 once more in the details.
    assert len(sent.message.encode()) * 3 + sent.ByteSize() * 4 / 3 < 16 * 1024
    assert sent.message.endswith("…")


@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        ("UNAVAILABLE", errors.ServiceUnavailable, "SERVICE_UNAVAILABLE"),
        ("CANCELLED", errors.ServiceUnavailable, "SERVICE_UNAVAILABLE"),
        ("DEADLINE_EXCEEDED", errors.DeadlineExceeded, "DEADLINE_EXCEEDED"),
        ("UNIMPLEMENTED", errors.Unimplemented, "UNIMPLEMENTED"),
        ("RESOURCE_EXHAUSTED", errors.RequestError, "INVALID_FIELD"),
        ("INTERNAL", errors.InvariantError, "INTERNAL"),
        ("UNKNOWN", errors.InvariantError, "INTERNAL"),
    ],
)
def test_what_grpc_itself_refused_becomes_the_nearest_error(code: str, kind: type[errors.CrossnsError], reason: str) -> None:
    for trailing in ((), ((status.DETAILS_KEY, b"\xff\xff"),)):
        received = rpc.error_of(_failure(code, "words of gRPC", trailing))
        assert (type(received), received.reason) == (kind, reason)
        assert "words of gRPC" in received.message


def test_details_of_a_stranger_are_not_taken_for_ours() -> None:
    foreign = status_pb2.Status(code=5, message="not here")
    foreign.details.add().Pack(error_details_pb2.ErrorInfo(domain="example.com", reason="BEING_DELETED"))
    received = rpc.error_of(_failure("NOT_FOUND", "not here", status.trailers(foreign)))
    assert (type(received), received.reason) == (errors.NotFound, "INTERNAL")


def test_foreign_exceptions_do_not_leave_a_translated_block() -> None:
    with pytest.raises(errors.NotFound) as caught, rpc.translated():
        raise _sent(errors.NotFound("NOT_FOUND", "no", resource="vServices/a"))
    assert caught.value.metadata == {"resource": "vServices/a"}


FILES = (
    config_pb2,
    events_pb2,
    impact_pb2,
    interface_pb2,
    neighbor_pb2,
    route_pb2,
    route_table_pb2,
    rule_pb2,
    v_service_pb2,
    health_pb2,
    reflection_pb2,
)
METHODS = [
    f"/{service.full_name}/{method.name}"
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]


def test_every_proto_with_services_is_enumerated_here() -> None:
    pool = descriptor_pool.Default()
    assert all(pool.FindMethodByName(method[1:].replace("/", ".")) for method in METHODS)
    assert len(METHODS) > 25


@pytest.mark.parametrize("method", METHODS)
def test_every_method_of_every_service_has_a_role_that_it_needs(method: str) -> None:
    assert policy.NEEDED.get(method) in identity.ROLES


def test_no_entry_stands_for_a_method_that_does_not_exist() -> None:
    assert set(policy.NEEDED) == set(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_what_changes_something_is_for_admins_only(method: str) -> None:
    name = method.rsplit("/", 1)[1]
    is_read = name.startswith(("Get", "List", "Watch", "Check", "Diff", "Export", "Wait", "Analyze", "ServerReflection"))
    viewer = rpc.Identity("v", "viewer")
    if is_read:
        rpc.by_role(viewer, method)
    else:
        with pytest.raises(errors.PermissionDenied):
            rpc.by_role(viewer, method)
    rpc.by_role(rpc.Identity("a", "admin"), method)


@pytest.mark.parametrize("method", [method for method in METHODS if "Health" not in method])
def test_nobody_may_only_ask_for_health_and_is_told_what_to_do(method: str) -> None:
    with pytest.raises(errors.PermissionDenied) as caught:
        rpc.by_role(rpc.ANONYMOUS, method)
    assert "--admin-uid" in caught.value.message


def test_method_without_an_entry_is_refused_even_to_admins() -> None:
    with pytest.raises(errors.PermissionDenied):
        rpc.by_role(rpc.Identity("a", "admin"), "/crossns.v1.RouteTables/Forgotten")


def test_identity_survives_its_way_through_metadata() -> None:
    sent = rpc.Identity("uid:0", "admin")
    assert identity.of_metadata(dict(sent.metadata)) == sent
    assert dict(rpc.Identity("Zoë\n", "viewer").metadata)[identity.IDENTITY_KEY] == "Zo??"


@pytest.mark.parametrize(
    "metadata",
    [{}, {"crossns-identity": "x"}, {"crossns-role": "admin"}, {"crossns-identity": "x", "crossns-role": "root"}],
)
def test_incomplete_or_unknown_identity_is_nobody(metadata: dict[str, str | bytes]) -> None:
    assert identity.of_metadata(metadata) == rpc.ANONYMOUS


def test_untraced_process_does_not_even_import_opentelemetry() -> None:
    script = (
        "import sys; from crossns import rpc, telemetry; telemetry.setup('x')\n"
        "with telemetry.span('a', links=['x'], key=1) as span: span.set(b=2); span.fail('no')\n"
        "assert telemetry.traceparent() == '' and not telemetry.is_enabled(); telemetry.shutdown()\n"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False, env={"PYTHONPATH": ":".join(sys.path)}).returncode == 0


def test_log_lines_are_json_with_what_the_caller_added() -> None:
    record = logging.makeLogRecord(
        {"name": "crossns.x", "levelname": "INFO", "msg": "did %s", "args": ("it",), "resource": "a/b"}
    )
    line = json.loads(telemetry.JsonFormatter("proxy").format(record))
    assert (line["service"], line["message"], line["resource"], line["level"]) == ("proxy", "did it", "a/b", "INFO")
    assert "trace_id" not in line
    assert "\n" not in telemetry.JsonFormatter("proxy").format(record)
