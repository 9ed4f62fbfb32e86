"""What others gave to links that a move takes out of their table: kept in its journal, given back where it is taken back.

Called by `move`. Agents keep and give in the kernel's words; here it is only packed, and what is refused at first is tried again:
an address may not be used before it is known to be nobody else's (RFC 4862), a link may come a moment later.
"""

import asyncio
import logging
import zlib
from collections.abc import Collection, Mapping

import msgspec

from crossns import errors, keepsake
from services.nsmanager.servicer.impact import Ask

# The journal is one value of a transaction of 1.5 MiB, and grows by a third in it: tens of thousands of routes.
SIZE_MAX = 768 * 1024
# Duplicate address detection takes a second or two, a card that comes up some more until it has a carrier.
PATIENCE_S = 8.0
_PAUSE_S = 0.2

log = logging.getLogger(__name__)

# By the table's id.
_Records = dict[str, tuple[keepsake.Record, ...]]


class Kept(msgspec.Struct, frozen=True):
    """`left_out`: how many records there were that take more room than there is; `content` is empty then."""

    content: bytes = b""
    left_out: int = 0


async def keep(ask: Ask, links: Mapping[str, Collection[str]]) -> Kept:
    """`links` by the table's id. AgentUnavailable where a table's agent does not answer."""
    records: _Records = {}
    for table, names in links.items():
        found = await ask(table, keepsake.Remember(links=tuple(names)))
        if not isinstance(found, keepsake.Kept):
            raise errors.InvariantError(f"the agent of {table} was asked for what others have, and answered with {found!r:.80}")
        records[table] = found.records
    content = zlib.compress(msgspec.msgpack.encode(records))
    if len(content) > SIZE_MAX:
        return Kept(left_out=sum(map(len, records.values())))
    return Kept(content)


async def give_back(ask: Ask, kept: Kept) -> tuple[str, ...]:
    """What did not come back, and why."""
    if kept.left_out:
        return (f"{kept.left_out} routes, addresses and neighbours of others, too many to be kept",)
    left = msgspec.msgpack.decode(zlib.decompress(kept.content), type=_Records) if kept.content else {}
    why: dict[str, list[str]] = {}
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while left := {table: records for table, records in left.items() if records}:
        for table, records in left.items():
            left[table], why[table] = await _given(ask, table, records)
        if asyncio.get_running_loop().time() > deadline:
            break
        if any(left.values()):
            await asyncio.sleep(_PAUSE_S)
    return tuple(words for table in left for words in why[table])


async def _given(ask: Ask, table: str, records: tuple[keepsake.Record, ...]) -> tuple[tuple[keepsake.Record, ...], list[str]]:
    """What was refused, and in which words."""
    try:
        answer = await ask(table, keepsake.GiveBack(records=records))
    except errors.CrossnsError as error:
        return records, [error.message]
    refused = answer.items if isinstance(answer, keepsake.Refused) else ()
    return tuple(records[each.number] for each in refused), [each.words for each in refused]
