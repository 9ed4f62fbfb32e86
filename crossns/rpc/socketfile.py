"""The file of a unix socket that a process listens on, without a gap between it and its predecessor.

The socket is bound under a name of this process and renamed into place. A predecessor that ends late takes nothing away: its
own name is gone, and what stands in its place is not its own any more.
"""

import os
from contextlib import suppress
from pathlib import Path


class SocketFile:
    """Bind to `own`, then `place`; `remove` at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.own = path.with_name(f".{os.getpid()}.{path.name}")
        # Of a process with this very pid that was killed between the two steps.
        self.own.unlink(missing_ok=True)
        self._placed: os.stat_result | None = None

    def place(self) -> None:
        self.own.replace(self.path)
        self._placed = self.path.stat()

    def remove(self) -> None:
        if self._placed is not None:
            with suppress(FileNotFoundError):
                if os.path.samestat(self.path.stat(), self._placed):
                    self.path.unlink()
