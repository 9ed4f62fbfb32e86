"""`EtcdStore`: the store of every service, on etcd 3.4 or later. See `store.Store` for what each method promises.

Built by each process's wiring, once. Reads are linearizable and go to another member when one fails. A write is sent once: if its
answer is lost, what it would have left behind is looked for, and unless all of it is there the write counts as not done.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from aetcd import rpc

from crossns import errors, settings, store, telemetry
from crossns.etcd import failure, message, watch
from crossns.etcd.endpoint import CALL_TIMEOUT_S, END_OF_STREAM, METADATA, Endpoint, Endpoints
from crossns.retry import Backoff

CONNECT_TIMEOUT_S = 10.0
_ANSWER_BACKOFF = Backoff(0.02, 1.5, 0.5)
# How long a lost write is looked for where it may have been sent: a restart of etcd takes less.
READ_BACK_TIMEOUT_S = 2.0
# What etcd must be started with (--max-txn-ops); its default of 128 is too small for a table with many references.
OPERATIONS_MAX = 2048
# Entries in one answer: small enough to decode without holding up the event loop.
PAGE_SIZE = 1000
# A lease is renewed so many times within its time to live.
RENEWALS = 3

T = TypeVar("T")

log = logging.getLogger(__name__)


class EtcdStore:
    def __init__(self, endpoints: Endpoints, operations_max: int) -> None:
        self._endpoints = endpoints
        self._operations_max = operations_max

    @classmethod
    async def connect(
        cls, config: settings.Etcd, *, timeout_s: float = CONNECT_TIMEOUT_S, operations_max: int = OPERATIONS_MAX
    ) -> "EtcdStore":
        """A store that has answered once; StoreUnavailable when none of the endpoints did within `timeout_s`."""
        opened = cls(Endpoints(config), operations_max)
        try:
            await opened._until_answered(opened.cluster_id, timeout_s)
        except BaseException:
            await opened.close()
            raise
        return opened

    async def close(self) -> None:
        """End the connections; calls and watches that are under way fail."""
        await self._endpoints.close()

    async def _until_answered(self, read: Callable[[], Awaitable[T]], timeout_s: float) -> T:
        """Repeat a read until it is answered; the last error when that takes longer than `timeout_s`."""
        attempt, last = 0, errors.StoreUnavailable(f"etcd did not answer within {timeout_s:g} s: is it running?")
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    try:
                        return await read()
                    except errors.StoreUnavailable as error:
                        last = error
                    await asyncio.sleep(_ANSWER_BACKOFF.delay(attempt))
                    attempt += 1
        except TimeoutError:
            raise last from None

    async def check_limits(self) -> None:
        """FailedPrecondition when etcd does not take transactions as large as ours may be. Asked once, at a service's start."""
        probe = rpc.RequestOp(request_range=rpc.RangeRequest(key=b"\0", count_only=True))
        try:
            await self._read(_txn, rpc.TxnRequest(success=[probe] * self._operations_max))
        except errors.FailedPrecondition as error:
            message_ = f"etcd takes too small transactions: start every member with --max-txn-ops {self._operations_max}"
            raise errors.FailedPrecondition("TOO_MANY_REFERENCES", message_) from error

    async def cluster_id(self) -> int:
        response = await self._range(key=b"\0", count_only=True)
        return int(response.header.cluster_id)

    async def get(self, key: str) -> store.Entry | None:
        response = await self._range(key=key.encode())
        return message.entry(response.kvs[0]) if response.kvs else None

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, store.Entry]:
        entries: dict[str, store.Entry] = {}
        revision = 0
        for begin in range(0, len(keys), self._operations_max):
            request = message.read(keys[begin : begin + self._operations_max], revision)
            response = await self._read(_txn, request)
            revision = revision or response.header.revision
            entries.update((entry.key, entry) for entry in message.found(response))
        return entries

    async def list(self, prefix: str, *, after: str = "", limit: int = 0, revision: int = 0) -> store.Listing:
        begin = after.encode() + b"\0" if after else prefix.encode()
        entries: list[store.Entry] = []
        while True:
            size = min(PAGE_SIZE, limit - len(entries)) if limit else PAGE_SIZE
            page = await self._range(key=begin, range_end=message.range_end(prefix), limit=size, revision=revision)
            revision = revision or page.header.revision
            entries.extend(message.entry(kv) for kv in page.kvs)
            if not page.more or len(entries) == limit:
                return store.Listing(tuple(entries), revision, page.more, page.header.cluster_id)
            begin = page.kvs[-1].key + b"\0"

    def watch(
        self, prefix: str, revision: int, *, cluster_id: int = 0, with_previous: bool = False
    ) -> AsyncGenerator[store.Batch, None]:
        return watch.follow(self._endpoints, watch.Start(prefix, revision, cluster_id, with_previous))

    async def _range(self, **fields: Any) -> Any:
        return await self._read(lambda endpoint: endpoint.kv.Range, rpc.RangeRequest(**fields))

    async def _read(self, method: Callable[[Endpoint], Any], request: Any) -> Any:
        return await self._endpoints.call(method, request)

    async def commit(self, compares: Sequence[store.Compare], effects: Sequence[store.Effect]) -> int:
        transaction = message.Transaction(tuple(dict.fromkeys(compares)), tuple(effects))
        transaction.check(self._operations_max)
        with telemetry.span("etcd Txn", kind="client", compares=len(compares), effects=len(effects)):
            return await self._commit(transaction)

    async def _commit(self, transaction: message.Transaction) -> int:
        was_connected = self._endpoints.current.is_connected
        try:
            response = await self._endpoints.call_once(_txn, transaction.request())
        except errors.StoreUnavailable as error:
            # Looking tells what was done for certain; what was not found may have been overwritten since.
            lost = failure.in_doubt(error) if was_connected else error
            return await self._look_for(transaction, lost, timeout_s=READ_BACK_TIMEOUT_S if was_connected else 0)
        if not response.succeeded:
            raise store.Conflict(transaction.failed(response))
        return int(response.header.revision)

    async def _look_for(self, transaction: message.Transaction, lost: errors.StoreUnavailable, *, timeout_s: float) -> int:
        """The revision of a write whose answer was lost, if it was done; else `lost`."""
        look = partial(self._read, _txn, transaction.read_back())
        try:
            response = await (self._until_answered(look, timeout_s) if timeout_s else look())
        except errors.StoreUnavailable:
            raise lost from None
        revision = transaction.revision_if_written(response) if transaction.effects else None
        if revision is None:
            raise lost
        return revision

    async def grant(self, ttl_s: int) -> int:
        response = await self._read(lambda endpoint: endpoint.lease.LeaseGrant, rpc.LeaseGrantRequest(TTL=ttl_s))
        return int(response.ID)

    async def keep_alive(self, lease: int, ttl_s: int) -> None:
        pause_s = ttl_s / RENEWALS
        backoff, attempt = Backoff(0.1, 2.0, pause_s), 0
        while True:
            try:
                left_s = await self._renew(lease, min(pause_s, CALL_TIMEOUT_S))
            except errors.StoreUnavailable as error:
                if attempt == 0:
                    log.warning("lease %x could not be renewed: %s", lease, error.message)
                await asyncio.sleep(backoff.delay(attempt))
                attempt += 1
                continue
            if left_s <= 0:
                raise store.LeaseLost(f"lease {lease:x} has expired or was revoked")
            attempt = 0
            await asyncio.sleep(pause_s)

    async def _renew(self, lease: int, timeout_s: float) -> int:
        """One renewal on a stream of its own, so that a break costs one and needs no watchdog; the time that is left."""
        with self._endpoints.use() as endpoint:
            call = endpoint.lease.LeaseKeepAlive(timeout=timeout_s, metadata=METADATA)
            try:
                await call.write(rpc.LeaseKeepAliveRequest(ID=lease))
                response = await call.read()
            finally:
                call.cancel()
        if response is END_OF_STREAM:
            raise errors.StoreUnavailable("etcd closed the stream of a lease")
        return int(response.TTL)

    async def revoke(self, lease: int) -> None:
        try:
            await self._read(lambda endpoint: endpoint.lease.LeaseRevoke, rpc.LeaseRevokeRequest(ID=lease))
        except store.LeaseLost:
            return


def _txn(endpoint: Endpoint) -> Any:
    return endpoint.kv.Txn
