"""Asks HAProxy what it serves, on the socket of its master process, which passes the question on to the current worker.

Called by `device`. One connection per command (management guide, 9.3 and 9.4). While the master replaces itself in a reload
nobody answers for a moment; who must know tries again.
"""

import asyncio
import csv
from pathlib import Path

from crossns import errors
from services.proxy.render import Part

# Servers (4) and listeners (8) of all sections of the current worker.
_STATISTICS = "@1 show stat -1 12 -1\n"
_LISTENER, _OPEN = "3", "OPEN"
# 5,000 vServices with 4 members each are 6 MB, told within a second.
_ANSWER_MAX_S = 5.0
_ANSWER_MAX_BYTES = 64 * 1024 * 1024
_PIECE_BYTES = 64 * 1024


async def parts(path: Path) -> frozenset[Part]:
    """What the current worker listens on and forwards to; EngineUnavailable where it does not tell."""
    try:
        async with asyncio.timeout(_ANSWER_MAX_S):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                writer.write(_STATISTICS.encode())
                # The master answers once it has seen the end of the questions.
                writer.write_eof()
                answer = await _read(reader)
            finally:
                writer.close()
    except OSError as error:
        raise _unavailable(f"HAProxy does not answer on {path}: {error}") from error
    return parse(answer)


def parse(text: str) -> frozenset[Part]:
    """`show stat`: servers as they are, listeners where they are open. A blank line ends it."""
    if not text.startswith("# pxname,") or not text.endswith("\n\n"):
        raise _unavailable("HAProxy's worker does not tell what it serves")
    header, *rows = csv.reader(text.removeprefix("# ").splitlines()[:-1])
    section, name, socket, kind, status = (header.index(field) for field in ("pxname", "svname", "addr", "type", "status"))
    return frozenset(Part(row[section], row[name], row[socket]) for row in rows if row[kind] != _LISTENER or row[status] == _OPEN)


async def _read(reader: asyncio.StreamReader) -> str:
    answer = bytearray()
    while piece := await reader.read(_PIECE_BYTES):
        answer += piece
        if len(answer) > _ANSWER_MAX_BYTES:
            raise _unavailable(f"HAProxy answers with more than {_ANSWER_MAX_BYTES} bytes")
    return answer.decode(errors="replace")


def _unavailable(message: str) -> errors.EngineUnavailable:
    return errors.EngineUnavailable("ENGINE_UNAVAILABLE", message)
