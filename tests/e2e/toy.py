"""A service for the tests of rpc and gateway: real servicers of real methods whose resource names say what shall happen.

In the process of a test, or in one of its own: `python -m tests.e2e.toy ADDRESS`, traced where the environment says so.
"""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from typing import Self

import grpc

from crossns import errors, rpc, telemetry
from crossns.rpc import guard
from crossns.v1 import config_pb2, config_pb2_grpc, status_pb2, v_service_pb2, v_service_pb2_grpc

INITIAL = ("toy-initial", "é?".encode("ascii", "replace").decode())
TRAILING = ("toy-trailing-bin", b"\x00\xff")
ABORT_DETAIL = ("toy-detail-bin", b"\x01")
# How many answers `waits/flood` makes: more than any buffer on the way holds.
FLOOD = 5000
FLOOD_SIZE_BYTES = 16 * 1024


class VServices(v_service_pb2_grpc.VServicesServicer):
    """`GetVService` does what the name says; `cancelled` is set when `slow` was cancelled."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def GetVService(self, request: v_service_pb2.GetVServiceRequest, context: rpc.Context) -> v_service_pb2.VService:
        behave = getattr(self, f"_{request.name.removeprefix('vServices/')}")
        answer: v_service_pb2.VService = await behave(context)
        return answer

    async def ListVServices(
        self, request: v_service_pb2.ListVServicesRequest, _context: rpc.Context
    ) -> v_service_pb2.ListVServicesResponse:
        return v_service_pb2.ListVServicesResponse(next_page_token="x" * request.page_size)

    async def _echo(self, context: rpc.Context) -> v_service_pb2.VService:
        """What arrived: metadata, the deadline, who calls, and the trace."""
        await context.send_initial_metadata((INITIAL,))
        context.set_trailing_metadata((TRAILING,))
        metadata = {key: value if isinstance(value, str) else value.hex() for key, value in guard.metadata_of(context).items()}
        caller = rpc.caller()
        left_s = guard.remaining_s(context)
        more = {"caller": f"{caller.name} {caller.role}", "left_s": "" if left_s is None else str(left_s)}
        return v_service_pb2.VService(name="vServices/echo", labels=metadata | more | {"trace": telemetry.traceparent()})

    async def _slow(self, _context: rpc.Context) -> v_service_pb2.VService:
        self.started.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()
        raise AssertionError

    async def _missing(self, _context: rpc.Context) -> v_service_pb2.VService:
        raise errors.NotFound("NOT_FOUND", "no vServices/missing: create it first", resource="vServices/missing")

    async def _bug(self, _context: rpc.Context) -> v_service_pb2.VService:
        raise ZeroDivisionError("a secret")

    async def _abort(self, context: rpc.Context) -> v_service_pb2.VService:
        await context.abort(grpc.StatusCode.DATA_LOSS, "the toy's own words", (ABORT_DETAIL,))
        raise AssertionError


class Config(config_pb2_grpc.ConfigServicer):
    """`Wait` streams as its first target says; `Apply` answers each request."""

    def __init__(self) -> None:
        self.sent = 0
        self.ended = asyncio.Event()

    async def Wait(self, request: config_pb2.WaitRequest, _context: rpc.Context) -> AsyncIterator[config_pb2.WaitResponse]:
        name = request.targets[0].name
        try:
            yield config_pb2.WaitResponse(name=name)
            if name == "waits/fail":
                raise errors.Aborted("BEING_DELETED", "wait until it is gone", resource="routeTables/a")
            if name == "waits/flood":
                for _ in range(FLOOD):
                    self.sent += 1
                    padding = status_pb2.Condition(message="x" * FLOOD_SIZE_BYTES)
                    yield config_pb2.WaitResponse(name=name, conditions=[padding])
            if name == "waits/ever":
                await asyncio.Event().wait()
        finally:
            self.ended.set()

    async def Apply(
        self, request_iterator: AsyncIterator[config_pb2.ApplyRequest], _context: rpc.Context
    ) -> AsyncIterator[config_pb2.ApplyResponse]:
        async for request in request_iterator:
            yield config_pb2.ApplyResponse(name=request.request_id)
        yield config_pb2.ApplyResponse(name="end")

    async def Diff(self, request: config_pb2.DiffRequest, _context: rpc.Context) -> config_pb2.DiffResponse:
        del request
        raise errors.FailedPrecondition("STILL_REFERENCED", "é" * 2000, resource="routeTables/a")


class Toy:
    """`async with Toy(address) as toy:` serves; `toy.server` can be stopped and another one started."""

    def __init__(self, address: str, policy: rpc.Policy = rpc.by_role) -> None:
        self.v_services = VServices()  # type: ignore[abstract] # the rest is unimplemented, which is tried too
        self.config = Config()  # type: ignore[abstract]
        self.ready = True
        self.server = rpc.Server(
            address,
            {
                "crossns.v1.VServices": (v_service_pb2_grpc.add_VServicesServicer_to_server, self.v_services),
                "crossns.v1.Config": (config_pb2_grpc.add_ConfigServicer_to_server, self.config),
            },
            policy,
            lambda: self.ready,
        )

    async def __aenter__(self) -> Self:
        await self.server.start()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.server.stop(0)


async def _main(address: str) -> None:
    telemetry.setup("toy")
    telemetry.setup_logging("toy")
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with Toy(address):
        print("ready", flush=True)
        await ended.wait()
    telemetry.shutdown()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1]))
