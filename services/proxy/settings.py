"""What the proxy alone is set by; the rest is crossns.settings.

Variables: CROSSNS_PROXY_OPEN_FILES, CROSSNS_PROXY_RELOAD_INTERVAL_MS. Read once, by `app`.
"""

import resource
from collections.abc import Mapping
from dataclasses import dataclass

from crossns import errors

OPEN_FILES_MIN = 512
RELOAD_INTERVAL_MS = 50


@dataclass(frozen=True, slots=True)
class Settings:
    """`open_files`: what HAProxy may have open, as the launcher starts it; `reload_interval_s`: the least between two reloads."""

    open_files: int
    reload_interval_s: float = RELOAD_INTERVAL_MS / 1000


def from_environ(environ: Mapping[str, str]) -> Settings:
    """The limit of files is this process's own unless it is set: whoever started it started the launcher alike."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Settings(
        open_files=_number(environ, "CROSSNS_PROXY_OPEN_FILES", hard, OPEN_FILES_MIN),
        reload_interval_s=_number(environ, "CROSSNS_PROXY_RELOAD_INTERVAL_MS", RELOAD_INTERVAL_MS, 0) / 1000,
    )


def _number(environ: Mapping[str, str], variable: str, default: int, at_least: int) -> int:
    text = environ.get(variable) or str(default)
    if not text.isdecimal() or int(text) < at_least:
        raise errors.InvalidSpec(variable, f"{errors.bounded(repr(text))} must be a whole number, at least {at_least}")
    return int(text)
