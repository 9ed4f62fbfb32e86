"""HAProxy as somebody would configure it by hand who knows what crossns knows, and as it comes.

Called by `bench.crossing`. The text is the suite's own but for names, ports and sockets, so that what differs is how it is run.
Pure.
"""

import re
from pathlib import Path

# By hand nobody counts incarnations.
_NAMESPACE = re.compile(r"\b(namespace|name) ([a-z0-9-]+)\.[0-9]+")
_PORT = re.compile(r"^(    bind ipv4@[0-9.]+:)([0-9]+)", re.MULTILINE)
# Settings that make HAProxy faster or larger than it comes.
_TUNING = re.compile(r"^    (?:tune\.|maxpipes |option splice-).*\n", re.MULTILINE)
_SPARE = re.compile(r"^    server .* disabled\n", re.MULTILINE)


def render(suite: str, engine_dir: Path, directory: Path, port_offset: int) -> str:
    """From the suite's text: the same vServices, each frontend `port_offset` above, sockets in `directory`."""
    text = suite.replace(str(engine_dir), str(directory))
    text = _NAMESPACE.sub(r"\1 \2", text)
    text = _PORT.sub(lambda found: f"{found[1]}{int(found[2]) + port_offset}", text)
    return _SPARE.sub("", text)


def untuned(text: str) -> str:
    """With HAProxy's own defaults where the suite has chosen."""
    return _TUNING.sub("", text)
