"""Speaks with HAProxy on the socket of its master process, which passes commands on to the workers.

Called by `device` and `counting`. One connection per batch of commands (management guide, 9.3 and 9.4). While the master replaces
itself in a reload nobody answers for a moment; who must know tries again.
"""

import asyncio
import csv
import operator
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from crossns import errors
from services.proxy import plan, render

# Structure, servers (4) and listeners (8) of all sections of the current worker.
_LOOK = ("@1 show info", "@1 show stat -1 12 -1")
# What the master says of a worker that it has not at the moment.
_GONE = "Can't find the target PID"
_LISTENER, _MAINT = "3", "MAINT"
# The others are open and at a limit for the moment.
_OPEN = frozenset({"OPEN", "WAITING", "FULL"})
# 5,000 vServices with 4 members each are 6 MB, told within a second.
_ANSWER_MAX_S = 5.0
_ANSWER_MAX_BYTES = 64 * 1024 * 1024
_PIECE_BYTES = 64 * 1024
_STRUCTURE = re.compile(r"^description: (\w+)$", re.MULTILINE)
# What HAProxy says to an address that it took, or had already; to other changes that it makes it says nothing.
_DONE = re.compile(
    r"(IP changed from '\S+' to '\S+'|no need to change the addr)"
    r"(, port changed from '\S+' to '\S+'|, no need to change the port)? by 'stats socket command'"
)


@dataclass(frozen=True, slots=True)
class Look:
    """What the current worker runs: its structure, what it listens on, its servers by section and name."""

    structure: str = ""
    listeners: frozenset[render.Part] = frozenset()
    servers: dict[str, dict[str, plan.Seen]] = field(default_factory=dict)


class _Row(NamedTuple):
    """What is read of a row of `show stat`, by the names of its columns."""

    pxname: str
    svname: str
    type: str
    status: str
    addr: str
    uweight: str
    slim: str
    sid: str
    stot: str
    scur: str


async def ask(path: Path, commands: Sequence[str]) -> str:
    """All answers, one after the other; EngineUnavailable where there are none."""
    try:
        async with asyncio.timeout(_ANSWER_MAX_S):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                writer.write((";".join(commands) + "\n").encode())
                # The master answers once it has seen the end of the questions.
                writer.write_eof()
                return await _read(reader)
            finally:
                writer.close()
    except OSError as error:
        raise _unavailable(f"HAProxy does not answer on {path}: {error}") from error


async def look(path: Path) -> Look:
    return parse(await ask(path, _LOOK))


async def change(path: Path, op: plan.SetServer) -> None:
    """Of the current worker; PermanentError with HAProxy's words where it does not."""
    answer = await ask(path, [f"@1 {command}" for command in commands(op)])
    words = " ".join(line for line in answer.splitlines() if line and not _DONE.fullmatch(line))
    if words.startswith(_GONE):
        raise _unavailable(f"HAProxy's worker does not answer: {errors.bounded(words)}")
    if words:
        message = f"HAProxy does not change {op.section}/{op.name}: {errors.bounded(words)}"
        raise errors.PermanentError("ENGINE_REFUSED", message)


def commands(op: plan.SetServer) -> list[str]:
    """In an order in which no connection goes where neither the server before nor the one after would have it go."""
    where, wanted, before = f"{op.section}/{op.name}", op.wanted, op.before
    result: list[str] = []
    if not wanted.enabled and before.enabled:
        result.append(f"set server {where} state maint")
    if not wanted.weight and before.weight:
        result.append(f"set server {where} weight 0")
    if wanted != render.Server():
        if wanted.socket != before.socket:
            host, _, port = wanted.socket.rpartition(":")
            result.append(f"set server {where} addr {host.strip('[]')} port {port}")
        if wanted.weight and wanted.weight != before.weight:
            result.append(f"set server {where} weight {wanted.weight}")
        if wanted.max_connections != before.max_connections:
            result.append(f"set maxconn server {where} {wanted.max_connections}")
    if wanted.enabled and not before.enabled:
        result.append(f"set server {where} state ready")
    return result


def parse(text: str) -> Look:
    """`show info` and `show stat`: servers as they are, listeners where they are open. A blank line ends each."""
    _, marker, table = text.partition("# pxname,")
    if not marker or not table.endswith("\n\n"):
        raise _unavailable("HAProxy's worker does not tell what it serves")
    structure = _STRUCTURE.search(text)
    listeners: set[render.Part] = set()
    servers: dict[str, dict[str, plan.Seen]] = {}
    for row in map(_Row._make, columns(f"pxname,{table}".removesuffix("\n"), _Row._fields)):
        if row.type == _LISTENER:
            if row.status in _OPEN:
                listeners.add(render.Part(row.pxname, row.svname, row.addr))
        else:
            servers.setdefault(row.pxname, {})[row.svname] = _seen(row)
    return Look(structure[1] if structure else "", frozenset(listeners), servers)


def columns(table: str, names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """These, more than one, of the 100 columns that `show stat` tells of each row. What holds a comma is quoted (RFC 4180), which
    hardly anything does, and to split the others takes half the time."""
    head, *lines = table.splitlines()
    pick = operator.itemgetter(*map(head.split(",").index, names))
    for line in lines:
        yield pick(next(csv.reader((line,))) if '"' in line else line.split(","))


def _seen(row: _Row) -> plan.Seen:
    server = render.Server(row.addr, int(row.uweight), not row.status.startswith(_MAINT), int(row.slim or 0))
    return plan.Seen(server, int(row.sid), was_used=(row.stot, row.scur) != ("0", "0"), is_busy=row.scur != "0")


async def _read(reader: asyncio.StreamReader) -> str:
    answer = bytearray()
    while piece := await reader.read(_PIECE_BYTES):
        answer += piece
        if len(answer) > _ANSWER_MAX_BYTES:
            raise _unavailable(f"HAProxy answers with more than {_ANSWER_MAX_BYTES} bytes")
    return answer.decode(errors="replace")


def _unavailable(message: str) -> errors.EngineUnavailable:
    return errors.EngineUnavailable("ENGINE_UNAVAILABLE", message)
