"""Asks HAProxy's master process: which worker runs, whether the last reload failed, what the worker has.

Called by `device`. One connection per command (management guide, 9.4 and 9.5). While the master replaces itself in a reload
nobody answers for a moment; who must know tries again.
"""

import asyncio
import csv
import re
from dataclasses import dataclass
from pathlib import Path

from crossns import errors
from services.proxy.render import Part

# A master that is there answers at once; statistics of 5,000 vServices take well below a second.
_ANSWER_MAX_S = 5.0
_ANSWER_MAX_BYTES = 64 * 1024 * 1024
_PIECE_BYTES = 64 * 1024
# Servers (4) and listeners (8) of all sections.
_STATISTICS = "@1 show stat -1 12 -1"
_LISTENER, _OPEN = "3", "OPEN"
_ROW = re.compile(r"(?P<pid>[0-9]+)\s+(?P<kind>master|worker)\s+(?P<reloads>[0-9]+)(?:\s+\[failed: (?P<failed>[0-9]+)\])?\s")


@dataclass(frozen=True, slots=True)
class Processes:
    """`reloads` counts the master's own, `failed` those in a row that left things as they were; `worker` is the current one."""

    master: int
    reloads: int
    failed: int
    worker: int


class Master:
    """Raises EngineUnavailable where nobody answers."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def processes(self) -> Processes:
        return parse_processes(await self._ask("show proc"))

    async def parts(self) -> frozenset[Part]:
        """What the current worker listens on and forwards to."""
        return parse_parts(await self._ask(_STATISTICS))

    async def _ask(self, command: str) -> str:
        try:
            async with asyncio.timeout(_ANSWER_MAX_S):
                reader, writer = await asyncio.open_unix_connection(self._path)
                try:
                    writer.write(f"{command}\n".encode())
                    # One command only: the master closes behind its answer.
                    writer.write_eof()
                    return await _read(reader)
                finally:
                    writer.close()
        except OSError as error:
            raise _unavailable(f"HAProxy does not answer on {self._path}: {error}") from error


async def _read(reader: asyncio.StreamReader) -> str:
    answer = bytearray()
    while piece := await reader.read(_PIECE_BYTES):
        answer += piece
        if len(answer) > _ANSWER_MAX_BYTES:
            raise _unavailable(f"HAProxy answers more than {_ANSWER_MAX_BYTES} bytes")
    return answer.decode(errors="replace")


def _unavailable(message: str) -> errors.EngineUnavailable:
    return errors.EngineUnavailable("ENGINE_UNAVAILABLE", message)


def parse_processes(text: str) -> Processes:
    """`show proc`: the master, the current worker under `# workers`, and those that only finish their connections."""
    section, master, worker = "", None, 0
    for line in text.splitlines():
        row = _ROW.match(line)
        if row is None:
            section = line.strip()
        elif row["kind"] == "master":
            master = row
        elif section == "# workers":
            worker = int(row["pid"])
    if master is None:
        raise _unavailable("HAProxy's master does not tell its processes")
    return Processes(int(master["pid"]), int(master["reloads"]), int(master["failed"] or 0), worker)


def parse_parts(text: str) -> frozenset[Part]:
    """`show stat`: servers as they are, listeners where they are open. A blank line ends it."""
    if not text.startswith("# pxname,") or not text.endswith("\n\n"):
        raise _unavailable("HAProxy's worker does not tell what it serves")
    header, *rows = csv.reader(text.removeprefix("# ").splitlines()[:-1])
    section, name, socket, kind, status = (header.index(field) for field in ("pxname", "svname", "addr", "type", "status"))
    return frozenset(Part(row[section], row[name], row[socket]) for row in rows if row[kind] != _LISTENER or row[status] == _OPEN)
