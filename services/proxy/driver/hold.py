"""Keeps a worker of HAProxy alive until everything that it counted was read: a worker lives as long as somebody is connected to
its own socket, and what it counted goes with it.

Called by `counting`, which connects before a reload and lets go when the worker has nothing else to do. The connection is the
worker's own (management guide, 9.3), not one through the master: those do not outlive a reload, and keep nobody alive.
"""

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from crossns import errors

# HAProxy closes a connection on which nobody asks for 10 s.
_ANSWER_MAX_S = 5.0
# Ends every answer once `prompt` was said.
_PROMPT = b"\n> "
_FIELDS = ("Pid", "Stopping", "Jobs", "Unstoppable Jobs")
_FIELD = re.compile(rf"^({'|'.join(_FIELDS)}): (\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class State:
    """`is_stopping`: it takes nothing new; `is_done`: it has no listener and no connection any more but that of a Hold."""

    pid: int
    is_stopping: bool
    is_done: bool


class Hold:
    """One worker, `pid`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.pid = 0

    @classmethod
    async def connect(cls, path: Path) -> Self:
        """To the worker that is current; EngineUnavailable where there is none."""
        try:
            hold = cls(*await asyncio.open_unix_connection(path))
        except OSError as error:
            raise _unavailable(str(error)) from error
        try:
            await hold._ask("prompt")
            hold.pid = (await hold.look()).pid
        except BaseException:
            hold.close()
            raise
        return hold

    async def look(self) -> State:
        """EngineUnavailable where the worker has ended."""
        return state(await self._ask("show info"))

    async def _ask(self, command: str) -> str:
        try:
            async with asyncio.timeout(_ANSWER_MAX_S):
                self._writer.write(f"{command}\n".encode())
                answer = await self._reader.readuntil(_PROMPT)
        except (OSError, EOFError, asyncio.LimitOverrunError) as error:
            raise _unavailable(str(error)) from error
        return answer.decode(errors="replace")

    def close(self) -> None:
        """The worker ends, where it has nothing else to do."""
        self._writer.close()


def state(text: str) -> State:
    """`show info`; EngineUnavailable where it is none."""
    found = {name: int(value) for name, value in _FIELD.findall(text)}
    if len(found) < len(_FIELDS):
        raise _unavailable("it does not tell what it does")
    is_stopping = bool(found["Stopping"])
    return State(found["Pid"], is_stopping, is_stopping and found["Jobs"] - found["Unstoppable Jobs"] <= 1)


def _unavailable(words: str) -> errors.EngineUnavailable:
    return errors.EngineUnavailable("ENGINE_UNAVAILABLE", f"HAProxy's worker does not answer: {words}")
