"""Keeps a worker of HAProxy alive until everything that it counted was read: a worker lives as long as somebody is connected to
its own socket, and what it counted goes with it.

Called by `counting`, which connects before a reload and lets go when the worker has nothing else to do. The connection is the
worker's own (management guide, 9.3), not one through the master: those do not outlive a reload, and keep nobody alive.
"""

import asyncio
import re
from pathlib import Path
from typing import Self

from crossns import errors

# HAProxy closes a connection on which nobody asks for 10 s.
_ANSWER_MAX_S = 5.0
# Ends every answer once `prompt` was said.
_PROMPT = b"\n> "
# 5,000 vServices with 4 members each are 10 MB.
_ANSWER_MAX_BYTES = 64 * 1024 * 1024
_FIELD = re.compile(r"^(Pid|Stopping|Jobs|Unstoppable Jobs): (\d+)$", re.MULTILINE)


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
            hold = cls(*await asyncio.open_unix_connection(path, limit=_ANSWER_MAX_BYTES))
        except OSError as error:
            raise _unavailable(str(error)) from error
        try:
            await hold.ask("prompt")
            hold.pid = (await hold._info())["Pid"]
        except BaseException:
            hold.close()
            raise
        return hold

    async def is_stopping(self) -> bool:
        return bool((await self._info())["Stopping"])

    async def is_done(self) -> bool:
        """Whether it is stopping, and has no listener and no connection but this one."""
        info = await self._info()
        return bool(info["Stopping"]) and info["Jobs"] - info["Unstoppable Jobs"] <= 1

    async def ask(self, command: str) -> str:
        """EngineUnavailable where the worker has ended."""
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

    async def _info(self) -> dict[str, int]:
        found = {name: int(value) for name, value in _FIELD.findall(await self.ask("show info"))}
        if len(found) < 4:
            raise _unavailable("it does not tell what it does")
        return found


def _unavailable(words: str) -> errors.EngineUnavailable:
    return errors.EngineUnavailable("ENGINE_UNAVAILABLE", f"HAProxy's worker does not answer: {words}")
