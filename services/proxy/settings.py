"""What the proxy alone is set by; the rest is crossns.settings. Variable: CROSSNS_PROXY_OPEN_FILES. Read once, by `app`."""

import resource
from collections.abc import Mapping
from dataclasses import dataclass

from crossns import errors

VARIABLE = "CROSSNS_PROXY_OPEN_FILES"
OPEN_FILES_MIN = 512


@dataclass(frozen=True, slots=True)
class Settings:
    """`open_files`: how many HAProxy may have, as the launcher starts it."""

    open_files: int


def from_environ(environ: Mapping[str, str]) -> Settings:
    """This process's own limit unless it is set: whoever started it started the launcher alike."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    text = environ.get(VARIABLE) or str(hard)
    if not text.isdecimal() or int(text) < OPEN_FILES_MIN:
        raise errors.InvalidSpec(VARIABLE, f"{errors.bounded(repr(text))} must be a whole number, at least {OPEN_FILES_MIN}")
    return Settings(int(text))
