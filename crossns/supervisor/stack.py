"""Reads deploy/stack.toml into values: which processes and directories a device has.

Pure but for the one file. The systemd units and the compose file are written by hand and compared with these values by a test.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crossns.layout import Layout

FILE = Path(__file__).parents[2] / "deploy" / "stack.toml"
# Where processes with a uid of their own see the code.
APP = "app"


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory that must be there before anything starts. `user` and `group` "" are root."""

    path: Path
    user: str = ""
    group: str = ""
    mode: int = 0o755


@dataclass(frozen=True, slots=True)
class Process:
    """One process. `argv` may hold `{python}`, which depends on who sees the code where; it is empty for the embedded etcd."""

    name: str
    argv: tuple[str, ...]
    ready: tuple[str, ...]
    user: str = ""
    groups: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    directory: Path | None = None
    embedded: bool = False


@dataclass(frozen=True, slots=True)
class Stack:
    directories: tuple[Directory, ...]
    processes: tuple[Process, ...]

    def without_embedded(self) -> "Stack":
        """For a device whose etcd is a cluster elsewhere."""
        left_out = {process.name for process in self.processes if process.embedded}
        kept = (process for process in self.processes if process.name not in left_out)
        return Stack(
            self.directories,
            tuple(replace(process, after=tuple(name for name in process.after if name not in left_out)) for process in kept),
        )


def load(layout: Layout, file: Path = FILE) -> Stack:
    """The stack with `{run}` and `{state}` filled in."""
    read = tomllib.loads(file.read_text(encoding="utf-8"))
    places = {"run": str(layout.run), "state": str(layout.state), "python": "{python}"}
    return Stack(
        tuple(_directory(entry, places) for entry in read["directory"]),
        tuple(_process(entry, places) for entry in read["process"]),
    )


def _directory(entry: Mapping[str, Any], places: Mapping[str, str]) -> Directory:
    fields = dict(entry)
    path = Path(fields.pop("path").format(**places))
    return Directory(path, mode=int(fields.pop("mode", "755"), 8), **fields)


def _process(entry: Mapping[str, Any], places: Mapping[str, str]) -> Process:
    fields = {key: _filled(value, places) for key, value in entry.items()}
    directory = fields.pop("directory", None)
    return Process(argv=fields.pop("argv", ()), directory=Path(directory) if directory else None, **fields)


def _filled(value: Any, places: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return tuple(_filled(part, places) for part in value)
    return value.format(**places) if isinstance(value, str) else value
