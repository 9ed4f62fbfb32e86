"""Somebody between nsmanager and an agent, who lets one operation fail, whichever that is.

Called by the tests of moves. It is refused however often it is asked for, as the kernel would refuse it.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

from crossns import operation, wire
from crossns.testing.device import Device, wait_until

_CHUNK = 256 * 1024


class Fate:
    """Of which table's agent which operation fails, given by how it begins, such as `SetLink(`; "" for none. `is_met`: it has."""

    def __init__(self) -> None:
        self.begin("", "")

    def begin(self, table: str, beginning: str) -> None:
        self._table, self._beginning, self.is_met = table, beginning, False

    def refuses(self, table: str, wanted: operation.Request) -> bool:
        is_it = bool(self._beginning) and table == self._table and repr(wanted).startswith(self._beginning)
        self.is_met = self.is_met or is_it
        return is_it


class _Relay:
    def __init__(self, table: str, real: Path, fate: Fate) -> None:
        self._table, self._real, self._fate = table, real, fate

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, on = await asyncio.open_unix_connection(self._real)
        except OSError:
            writer.close()
            return
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._ask(reader, on, writer))
                tasks.create_task(_pass_on(there, writer))
        except* (ConnectionError, _Over):
            pass
        finally:
            on.close()
            writer.close()

    async def _ask(self, reader: asyncio.StreamReader, on: asyncio.StreamWriter, back: asyncio.StreamWriter) -> None:
        decoder: wire.Decoder[operation.Call] = wire.Decoder(operation.Call)
        while piece := await reader.read(_CHUNK):
            for call in decoder.feed(piece):
                if self._fate.refuses(self._table, call.operation):
                    back.write(wire.encode(_refusal(call.id)))
                else:
                    on.write(wire.encode(call))
        raise _Over


async def _pass_on(there: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Frame by frame: a refusal may stand between them."""
    decoder: wire.Decoder[operation.Reply | operation.Notice] = wire.Decoder(operation.Reply | operation.Notice)
    while piece := await there.read(_CHUNK):
        for message in decoder.feed(piece):
            writer.write(wire.encode(message))
    raise _Over


class _Over(Exception):
    """One of both has hung up."""


def _refusal(number: int) -> operation.Reply:
    return operation.Reply(number, fault=operation.Fault("permanent", "KERNEL_REFUSED", "the kernel refused it: for a test"))


@contextlib.asynccontextmanager
async def between(device: Device, *tables: str) -> AsyncIterator[Fate]:
    """In the place of these tables' agents, for a nsmanager that begins anew."""
    fate = Fate()
    async with contextlib.AsyncExitStack() as stack:
        for table in tables:
            path = device.layout.agent_socket(table)
            real = path.with_suffix(".real")
            owner = path.stat()
            path.rename(real)
            stack.callback(_give_back, real, path)
            server = await asyncio.start_unix_server(_Relay(table, real, fate).serve, path)
            stack.push_async_callback(_close, server)
            os.chown(path, owner.st_uid, owner.st_gid)
            path.chmod(owner.st_mode & 0o7777)
        await device.kill("nsmanager")
        await wait_until(device.serves)
        yield fate
    await device.kill("nsmanager")
    await wait_until(device.serves)


def _give_back(real: Path, path: Path) -> None:
    """Where the table is there still: else its socket was taken away with it."""
    if path.exists():
        real.rename(path)
    else:
        real.unlink()


async def _close(server: asyncio.Server) -> None:
    server.close()
