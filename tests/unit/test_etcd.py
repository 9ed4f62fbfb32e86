"""What etcd says and what it means to us: every status has a meaning, a lost write is told from one that was not done."""

import re

import pytest
from aetcd import rpc
from grpc import StatusCode
from grpc.aio import AioRpcError, Metadata

from crossns import errors, settings, store
from crossns.etcd import embedded, endpoint, failure, message
from crossns.layout import Layout
from crossns.store import Delete, DeleteBelow, EmptyBelow, Put, Unchanged

# Whatever goes wrong, the callers of the store know these.
KNOWN = (errors.StoreUnavailable, errors.FailedPrecondition, errors.InvariantError, store.Compacted, store.LeaseLost)


def failed(code: StatusCode, details: str = "") -> Exception:
    return failure.of(AioRpcError(code, Metadata(), Metadata(), details, ""), "unix:/etcd")


@pytest.mark.parametrize("code", StatusCode)
@pytest.mark.parametrize("details", ["", "etcdserver: requested lease not found", "grpc: received message larger than max"])
def test_every_status_means_something_to_the_callers_of_the_store(code: StatusCode, details: str) -> None:
    assert isinstance(failed(code, details), KNOWN)


# The texts are those of etcd 3.4 (api/v3rpc/rpctypes/error.go).
@pytest.mark.parametrize(
    ("code", "details", "expected"),
    [
        (StatusCode.UNAVAILABLE, "etcdserver: no leader", errors.StoreUnavailable),
        (StatusCode.UNAVAILABLE, "etcdserver: request timed out", errors.StoreUnavailable),
        (StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", errors.StoreUnavailable),
        (StatusCode.CANCELLED, "", errors.StoreUnavailable),
        (StatusCode.INTERNAL, "stream terminated by RST_STREAM", errors.StoreUnavailable),
        (StatusCode.UNKNOWN, "etcdserver: stopped", errors.StoreUnavailable),
        (StatusCode.ABORTED, "", errors.StoreUnavailable),
        (StatusCode.DATA_LOSS, "etcdserver: corrupt cluster", errors.StoreUnavailable),
        (StatusCode.FAILED_PRECONDITION, "etcdserver: authentication is not enabled", errors.StoreUnavailable),
        (StatusCode.RESOURCE_EXHAUSTED, "etcdserver: too many requests", errors.StoreUnavailable),
        (StatusCode.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded", errors.StoreUnavailable),
        (StatusCode.RESOURCE_EXHAUSTED, "grpc: received message larger than max (9 vs. 8)", errors.FailedPrecondition),
        (StatusCode.INVALID_ARGUMENT, "etcdserver: request is too large", errors.FailedPrecondition),
        (StatusCode.INVALID_ARGUMENT, "etcdserver: too many operations in txn request", errors.FailedPrecondition),
        (StatusCode.INVALID_ARGUMENT, "etcdserver: duplicate key given in txn request", errors.InvariantError),
        (StatusCode.INVALID_ARGUMENT, "etcdserver: key is not provided", errors.InvariantError),
        (StatusCode.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted", store.Compacted),
        (StatusCode.OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision", store.Compacted),
        (StatusCode.OUT_OF_RANGE, "etcdserver: too large lease TTL", errors.InvariantError),
        (StatusCode.NOT_FOUND, "etcdserver: requested lease not found", store.LeaseLost),
        (StatusCode.PERMISSION_DENIED, "etcdserver: permission denied", errors.StoreUnavailable),
        (StatusCode.UNAUTHENTICATED, "etcdserver: invalid auth token", errors.StoreUnavailable),
        (StatusCode.UNIMPLEMENTED, "unknown service etcdserverpb.KV", errors.StoreUnavailable),
    ],
)
def test_words_of_etcd_are_understood(code: StatusCode, details: str, expected: type[Exception]) -> None:
    assert type(failed(code, details)) is expected


@pytest.mark.parametrize("code", sorted(failure.LEAVING, key=str))
def test_etcd_that_does_not_answer_is_told_with_what_was_done_and_what_to_do(code: StatusCode) -> None:
    error = failed(code, "connection refused " * 100)
    assert isinstance(error, errors.StoreUnavailable)
    assert error.message.endswith("): nothing was changed; try again when it is back (`crossns status`)")
    assert len(error.message) < 400


def test_write_that_may_have_been_done_is_not_told_as_undone() -> None:
    lost = failed(StatusCode.DEADLINE_EXCEEDED)
    assert isinstance(lost, errors.StoreUnavailable)
    doubt = failure.in_doubt(lost)
    assert "what was asked for may have been done; try again" in doubt.message
    assert "nothing was changed" not in doubt.message
    assert doubt.metadata == lost.metadata


def test_refusal_for_size_has_the_reason_that_clients_know() -> None:
    for details in ("etcdserver: request is too large", "etcdserver: too many operations in txn request"):
        error = failed(StatusCode.INVALID_ARGUMENT, details)
        assert isinstance(error, errors.FailedPrecondition)
        assert error.reason == "TOO_MANY_REFERENCES"


@pytest.mark.parametrize(
    "effects",
    [
        (Put("/a", b"1"), Put("/a", b"2")),
        (Put("/a", b"1"), Delete("/a")),
        (DeleteBelow("/a/"), Put("/a/b", b"1")),
    ],
)
def test_transaction_that_writes_a_key_twice_is_our_bug(effects: tuple[store.Effect, ...]) -> None:
    with pytest.raises(errors.InvariantError):
        message.Transaction((), effects).check(100)


def test_transaction_that_deletes_twice_or_besides_is_in_order() -> None:
    effects = (Delete("/a"), Delete("/a"), DeleteBelow("/p/"), Delete("/p/a"), Put("/p", b""), Put("/p0", b""))
    message.Transaction((), effects).check(6)


def test_compares_and_effects_count_each_for_themselves() -> None:
    compares = (Unchanged("/a", 0), Unchanged("/b", 0), Unchanged("/c", 0))
    message.Transaction(compares, (Delete("/a"),) * 3).check(3)
    for transaction in (message.Transaction(compares, ()), message.Transaction((), (Delete("/a"),) * 3)):
        with pytest.raises(errors.FailedPrecondition):
            transaction.check(2)


def answers(*kvs: tuple[bytes, int, int] | None) -> object:
    """The answer to a `read_back` at revision 9: for each effect nothing, or (value, mod_revision, lease)."""
    ranges = []
    for kv in kvs:
        value = [rpc.KeyValue(key=b"/k", value=kv[0], mod_revision=kv[1], lease=kv[2])] if kv else []
        ranges.append(rpc.ResponseOp(response_range=rpc.RangeResponse(kvs=value)))
    return rpc.TxnResponse(header=rpc.ResponseHeader(revision=9), responses=ranges)


PUTS = message.Transaction((Unchanged("/a", 5), EmptyBelow("/x/")), (Put("/a", b"1", 7), Put("/b", b"2"), Delete("/c")))


@pytest.mark.parametrize(
    ("seen", "revision"),
    [
        (answers((b"1", 8, 7), (b"2", 8, 0), None), 8),
        (answers(None, (b"2", 8, 0), None), None),
        (answers((b"0", 8, 7), (b"2", 8, 0), None), None),
        (answers((b"1", 8, 0), (b"2", 8, 0), None), None),
        (answers((b"1", 8, 7), (b"2", 9, 0), None), None),
        (answers((b"1", 5, 7), (b"2", 5, 0), None), None),
        (answers((b"1", 8, 7), (b"2", 8, 0), (b"", 3, 0)), None),
    ],
    ids=["all of it", "one is missing", "another value", "another lease", "at two revisions", "there before", "not deleted"],
)
def test_lost_write_counts_as_done_only_if_all_of_it_stands_there(seen: object, revision: int | None) -> None:
    assert PUTS.revision_if_written(seen) == revision


def test_lost_deletion_is_done_when_the_keys_are_gone() -> None:
    deletion = message.Transaction((), (Delete("/a"), DeleteBelow("/p/")))
    assert deletion.revision_if_written(answers(None, None)) == 9
    assert deletion.revision_if_written(answers(None, (b"", 3, 0))) is None


def test_certificate_without_its_key_and_file_that_is_missing_are_named() -> None:
    path = Layout().run / "nowhere.pem"
    for config, variable in (
        (settings.Etcd(("a:1",), cert=path), "CROSSNS_ETCD_CERT"),
        (settings.Etcd(("a:1",), ca=path), "CROSSNS_ETCD_CA"),
    ):
        with pytest.raises(errors.InvalidSpec) as refused:
            endpoint.Endpoints(config)
        assert refused.value.metadata["field"] == variable


def test_each_new_data_directory_gets_a_token_of_its_own() -> None:
    tokens = {re.findall("--initial-cluster-token=(.*)", "\n".join(embedded.argv(Layout())))[0] for _ in range(2)}
    assert len(tokens) == 2
