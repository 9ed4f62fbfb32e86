"""Ends the connections to members: those of the current worker, and of the ones that only finish what they have.

Called by `device` for members that are disabled. A worker that finishes refuses commands about its servers, and the same spare
line was another member's before a reload; so its sessions are looked at, one by one, for the member's own address.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from services.proxy.driver import master, worker
from services.proxy.render import Part

# `show sess`: a line for each; `show sess <id>`: a paragraph that begins alike.
_LISTED = re.compile(r"^(0x[0-9a-f]+): .* be=(\S+) srv=(\S+) ", re.MULTILINE)
_PARAGRAPH = re.compile(r"^(?=0x[0-9a-f]+: )", re.MULTILINE)
_SHOWN = re.compile(r"(0x[0-9a-f]+): .*\n  backend=(\S+) .*\n  server=[^. ]+\.(\S+) \(id=\d+\) addr=(\S+):(\d+)\n", re.DOTALL)
# Commands on a line, which HAProxy reads into one buffer.
_BATCH = 100


async def end(path: Path, members: Collection[Part]) -> None:
    """Of all workers. Nothing happens where there are none."""
    if not members:
        return
    wanted = {part.section for part in members}
    for pid in await worker.look_at_all(path):
        listed = _LISTED.findall(await master.ask(path, [f"@!{pid} show sess"]))
        ids = [id_ for id_, section, _ in listed if section in wanted]
        shown = [await master.ask(path, [f"@!{pid} show sess {id_}" for id_ in batch]) for batch in _batches(ids)]
        for batch in _batches(of(members, "".join(shown))):
            await master.ask(path, [f"@!{pid} shutdown session {id_}" for id_ in batch])


def of(members: Collection[Part], text: str) -> list[str]:
    """The ids of those among the sessions in `text` that go to `members`."""
    known = {(part.section, part.namespace, *_place(part.socket)) for part in members}
    return [
        id_
        for paragraph in _PARAGRAPH.split(text)
        for id_, section, namespace, host, port in _SHOWN.findall(paragraph)
        if (section, namespace, host, port) in known or (section, namespace, host, "0") in known
    ]


def _place(socket: str) -> tuple[str, str]:
    host, _, port = socket.rpartition(":")
    return host.strip("[]"), port


def _batches(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[first : first + _BATCH] for first in range(0, len(ids), _BATCH))
