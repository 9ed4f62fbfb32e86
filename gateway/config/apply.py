"""Makes a plan real by the owners' standard methods: level by level, several of a level at a time, no further than a failure.

Called by `Config.Apply`. What was done stays done; the same bundle again goes on where this one stopped.
"""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from crossns import errors, names, telemetry
from crossns.rpc import status
from crossns.v1 import config_pb2
from gateway.bundle import Plan, Step
from gateway.config.wait import Waiting
from gateway.owner import Owners

# Most of a write's time is etcd's disk, which takes several at once.
CONCURRENCY = 8


class Application:
    """One bundle being applied, as the first piece of the request says. Its `request_id` "" makes each call one of its own."""

    def __init__(self, owners: Owners, waiting: Waiting, request: config_pb2.ApplyRequest) -> None:
        self._owners = owners
        self._waiting = waiting
        self._request = request
        self._failed = False
        # A stream's own span ends with its first answer; what comes later belongs to the same trace.
        self._trace = telemetry.traceparent()

    async def run(self, plan: Plan) -> AsyncGenerator[config_pb2.ApplyResponse, None]:
        """An answer per resource, as each is done. After a failure what has begun is ended, and the rest not tried."""
        for level in plan.changes:
            async for response in self._run_level(level):
                yield response
        deleted: list[str] = []
        for level in plan.deletions:
            await self._wait_until_gone(deleted, level)
            async for response in self._run_level(level):
                deleted.append(response.name)
                yield response

    async def _run_level(self, steps: Sequence[Step]) -> AsyncGenerator[config_pb2.ApplyResponse, None]:
        slots = asyncio.Semaphore(CONCURRENCY)
        tasks = [asyncio.create_task(self._run_step(step, slots)) for step in steps]
        try:
            for done in asyncio.as_completed(tasks):
                response = await done
                if response is not None:
                    yield response
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _run_step(self, step: Step, slots: asyncio.Semaphore) -> config_pb2.ApplyResponse | None:
        async with slots:
            if self._failed:
                return None
            response = planned(step)
            try:
                with telemetry.span(f"apply {step.name}", parent=self._trace, resource=step.name):
                    response.generation = await self._do(step)
            except errors.CrossnsError as error:
                self._failed = True
                response.error.CopyFrom(status.of(error))
            return response

    async def _do(self, step: Step) -> int:
        """The generation that is stored afterwards; 0 for none."""
        if step.wanted is None:
            await self._owners.delete(step.name, step.etag, **self._options(step))
            return 0
        if step.action == config_pb2.ACTION_CREATE:
            return (await self._owners.create(step.wanted, **self._options(step))).generation
        if step.action == config_pb2.ACTION_UPDATE:
            return (await self._owners.update(step.wanted, step.etag, **self._options(step))).generation
        return step.generation

    def _options(self, step: Step) -> dict[str, Any]:
        """The request id is the same for the same resource of the same bundle (AIP-155)."""
        bundle = self._request.request_id
        options: dict[str, Any] = {"request_id": str(uuid.uuid5(uuid.UUID(bundle), step.name)) if bundle else ""}
        if self._request.HasField("own_session"):
            options |= {"own_session": self._request.own_session, "cut_own_session": self._request.cut_own_session}
        return options

    async def _wait_until_gone(self, deleted: Sequence[str], level: Sequence[Step]) -> None:
        """Until what was deleted of other services no longer refers to `level`, whose own service needs no waiting: there
        references end as soon as a deletion is asked for."""
        if self._failed:
            return
        owners = {names.owner(step.name) for step in level}
        targets = [config_pb2.WaitTarget(name=name, deleted=True) for name in deleted if names.owner(name) not in owners]
        async with aclosing(self._waiting.follow(targets)) as answers:
            async for _ in answers:
                pass


def planned(step: Step) -> config_pb2.ApplyResponse:
    """What would be done."""
    return config_pb2.ApplyResponse(name=step.name, action=step.action, changed_fields=step.changed_fields)
