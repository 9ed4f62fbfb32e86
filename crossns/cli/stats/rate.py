"""How fast totals grow: the difference of two looks at one route table, by the times at which they were read.

Pure. There is no rate where there was no look before, or where a total shrank: then the link or the whole namespace was made anew
in between.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from crossns.v1 import statistics_pb2

_GROWING = "_total"


@dataclass(frozen=True, slots=True)
class Looks:
    """The last two; `before` None at first."""

    now: statistics_pb2.RouteTableStatistics
    before: statistics_pb2.RouteTableStatistics | None = None

    @property
    def seconds(self) -> float:
        """Between the two; 0 where there is one."""
        if self.before is None:
            return 0.0
        return (self.now.read_time.ToNanoseconds() - self.before.read_time.ToNanoseconds()) / 1e9

    def link_before(self, link: str) -> statistics_pb2.LinkStatistics | None:
        found = self.before.links if self.before is not None else ()
        return next((each for each in found if each.link == link), None)

    def rate(self, field: str, now: Message, before: Message | None) -> float | None:
        """Per second, of a field of two messages of the two looks."""
        grown = getattr(now, field) - getattr(before, field) if before is not None else -1
        return grown / self.seconds if grown >= 0 and self.seconds > 0 else None


def plain(looks: Looks) -> dict[str, Any]:
    """All rates under their proto-JSON names, nested as the statistics are; what has no rate is left out."""
    result = dict(_rates(looks, looks.now, looks.before))
    links = ((link.link, dict(_rates(looks, link, looks.link_before(link.link)))) for link in looks.now.links)
    result["links"] = [{"link": name, **rates} for name, rates in links]
    return result


def _rates(looks: Looks, now: Message, before: Message | None) -> Iterator[tuple[str, Any]]:
    for field, value in now.ListFields():
        if isinstance(value, Message):
            was = getattr(before, field.name) if before is not None and before.HasField(field.name) else None
            if nested := dict(_rates(looks, value, was)):
                yield field.camelcase_name, nested
    for known in now.DESCRIPTOR.fields:
        if known.name.endswith(_GROWING):
            rate = looks.rate(known.name, now, before)
            if rate is not None:
                yield known.camelcase_name, round(rate, 3)
