"""Waits until a process is ready: `python -m crossns.supervisor.ready KIND WHERE` ends when it is.

A program of its own, because a gRPC health check needs gRPC, and the supervisor starts processes. Kinds: `socket` takes
connections, `etcd` says that it is healthy (over HTTP on its client socket), `grpc` serves by grpc.health.v1.
"""

import asyncio
import sys

POLL_S = 0.02


async def _accepts(where: str) -> bool:
    _, writer = await asyncio.open_unix_connection(where)
    writer.close()
    return True


async def _etcd_is_healthy(where: str) -> bool:
    reader, writer = await asyncio.open_unix_connection(where)
    try:
        writer.write(b"GET /health HTTP/1.0\r\nHost: etcd\r\n\r\n")
        return b'"health":"true"' in await reader.read()
    finally:
        writer.close()


async def _grpc_is_serving(where: str) -> bool:
    from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: PLC0415 - takes longer than the other kinds' whole check

    from crossns import rpc  # noqa: PLC0415

    if not await _accepts(where):
        return False
    async with rpc.channel(f"unix:{where}") as channel:
        with rpc.translated():
            answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


KINDS = {"socket": _accepts, "etcd": _etcd_is_healthy, "grpc": _grpc_is_serving}


async def wait(kind: str, where: str) -> None:
    """Until it is ready."""
    from crossns import errors  # noqa: PLC0415

    while True:
        try:
            if await KINDS[kind](where):
                return
        except (OSError, errors.CrossnsError):
            # Not yet.
            pass
        await asyncio.sleep(POLL_S)


if __name__ == "__main__":
    asyncio.run(wait(sys.argv[1], sys.argv[2]))
