"""Which frontends HAProxy has no room for: each port is a file that it opens, and of those it may have only so many.

Called by `wish`. HAProxy would not start at all with one listener too many, and would name nobody. Who is there stays; of the
others the oldest comes first. So a vService that asks for much takes nothing from those that were there before.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from services.proxy import model, render
from services.proxy.plan.engine import Observed, Refusal


class _Wanting(NamedTuple):
    """A frontend, by the order in which they get room."""

    is_new: bool
    created_ns: int
    part: render.Part
    ports: int
    generation: int


def crowded_out(desired: model.Desired, observed: Observed, tables: Mapping[str, str]) -> Mapping[render.Part, Refusal]:
    """The frontends that are one too many, as a whole each. `tables`: those that have a namespace."""
    open_files = observed.limits.open_files
    most = left = render.max_listeners(open_files)
    if sum(frontend.ports for vservice in desired.services for frontend in vservice.frontends) <= most:
        return {}
    words = f"left out: all vServices together may listen on {most} ports, for HAProxy may have {open_files} files open: "
    words += "give this one fewer ports, or start the launcher with a higher limit"
    out: dict[render.Part, Refusal] = {}
    for each in sorted(_wanting(desired, observed, tables)):
        if each.ports <= left:
            left -= each.ports
        else:
            out[each.part] = Refusal(words, each.generation, "LISTENERS_EXHAUSTED")
    return out


def _wanting(desired: model.Desired, observed: Observed, tables: Mapping[str, str]) -> Iterator[_Wanting]:
    for vservice in desired.services:
        for frontend in vservice.frontends:
            part = render.frontend_part(vservice.name, frontend, tables)
            if part is not None:
                is_new = not observed.listeners.issuperset(render.listeners(vservice.name, frontend, tables))
                yield _Wanting(is_new, vservice.created_ns, part, frontend.ports, vservice.generation)
