"""A traced client as a process of its own: `python -m tests.e2e.caller TARGET DEED`; prints how many milliseconds the deed took.

Its root span is called `caller`, as the command line's is called by its command.
"""

import asyncio
import sys
import time
from contextlib import suppress

from grpc import aio

from crossns import errors, rpc, telemetry
from crossns.v1 import config_pb2, config_pb2_grpc, v_service_pb2, v_service_pb2_grpc

WITHIN_S = 20.0
# For a service that is called without the gateway, which would find out for itself.
WHO = rpc.Identity("caller", "admin").metadata


async def _get(channel: aio.Channel, name: str) -> None:
    request = v_service_pb2.GetVServiceRequest(name=f"vServices/{name}")
    timeout_s = 0.3 if name == "slow" else WITHIN_S
    await v_service_pb2_grpc.VServicesStub(channel).GetVService(request, timeout=timeout_s, metadata=WHO)


async def _wait(channel: aio.Channel, name: str) -> None:
    request = config_pb2.WaitRequest(targets=[config_pb2.WaitTarget(name=f"waits/{name}")])
    call = config_pb2_grpc.ConfigStub(channel).Wait(request, timeout=WITHIN_S, metadata=WHO)
    await call.read()
    if name == "ever":
        call.cancel()
    else:
        await call.read()


async def _main(target: str, deed: str, name: str) -> None:
    telemetry.setup("caller")
    async with rpc.channel(target) as channel:
        await channel.channel_ready()
        began = time.monotonic()
        with telemetry.span("caller", parent=""), suppress(errors.CrossnsError, asyncio.CancelledError), rpc.translated():
            await (_get if deed == "get" else _wait)(channel, name)
        print(round((time.monotonic() - began) * 1000))
    telemetry.shutdown()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
