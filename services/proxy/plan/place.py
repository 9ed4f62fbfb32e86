"""Where HAProxy has the frontends and members of a vService, if it has them: asked several times in each round, made once.

Called by `wish`, `difference` and `report`. What was made is kept beside the vService, for as long as its tables have the same
namespaces: a change costs what it concerns.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from services.proxy import model, render


@dataclass(frozen=True, slots=True)
class Places:
    """`tables`: the namespaces of those it names and that have one; `frontends`, by name, and `members`, by pool and name: None
    without a namespace; `listeners`: of each frontend, one for each port; `sections`: of all pools."""

    tables: Mapping[str, str]
    frontends: Mapping[str, render.Part | None]
    listeners: Mapping[str, tuple[render.Part, ...]]
    members: Mapping[tuple[str, str], render.Part | None]
    sections: tuple[str, ...]


def places(vservice: model.VService, tables: Mapping[str, str]) -> Places:
    """`tables`: those whose namespace engines can enter."""
    _, named = vservice.memo.get("named", (None, None))
    if not isinstance(named, frozenset):
        of_members = (member.table for pool in vservice.pools for member in pool.members)
        named = frozenset({frontend.table for frontend in vservice.frontends}.union(of_members))
        vservice.memo["named"] = None, named
    around = {table: tables[table] for table in named if table in tables}
    before, made = vservice.memo.get("places", (None, None))
    if before != around or not isinstance(made, Places):
        made = _places(vservice, around)
        vservice.memo["places"] = around, made
    return made


def _places(vservice: model.VService, tables: Mapping[str, str]) -> Places:
    return Places(
        tables,
        {each.name: render.frontend_part(vservice.name, each, tables) for each in vservice.frontends},
        {each.name: render.listeners(vservice.name, each, tables) for each in vservice.frontends},
        {
            (pool.name, each.name): render.member_part(vservice.name, pool.name, each, tables)
            for pool in vservice.pools
            for each in pool.members
        },
        tuple(render.backend_section(vservice.name, pool.name) for pool in vservice.pools),
    )
