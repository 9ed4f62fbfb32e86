"""What may lead from one table into another, because a resource says so: a mark on a link says nothing by itself.

An end is a table, and the mark that the link carries in it. Whatever else makes such links on purpose adds its own.
"""

from collections.abc import Iterator, Mapping

from services.nsmanager.model import Link

End = tuple[str, str]
# Both ends -> the resource.
Declared = Mapping[frozenset[End], str]


def declared(links: Mapping[str, Link]) -> Declared:
    """Of interfaces, by name: those that sit on one of another table."""
    return {frozenset(((each.table, each.mark), (below.table, below.mark))): each.resource for each, below in _stacked(links)}


def _stacked(links: Mapping[str, Link]) -> Iterator[tuple[Link, Link]]:
    for each in links.values():
        below = links.get(each.parent)
        if below is not None and below.table != each.table:
            yield each, below
