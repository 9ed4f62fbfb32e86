"""The route tables' rows: what one tenant's flood costs another, what one more table costs beside 500, what 200 cost that stand.

Called by `bench.__main__` inside the sandbox. Tables are created one after the other, each until a client sees it READY; at
STANDING of them the growing pauses for what is measured there.
"""

from rich.console import Console

from bench import client
from bench.row import Row
from bench.tables import event, flood, growth, standing
from bench.tables.place import LABEL, METRICS, Place
from crossns import rpc
from crossns.layout import Layout
from crossns.testing.device import Device

__all__ = ["METRICS", "measure"]


async def measure(progress: Console) -> list[Row]:
    """All rows, in the order of the table."""
    rows: list[Row] = []
    async with rpc.channel(client.GATEWAY) as gateway:
        place = Place(Device(Layout(), gateway), gateway)
        try:
            for measurement in (
                flood.flood,
                growth.first,
                standing.agent_pss,
                standing.scrape,
                event.events,
                standing.agent_back,
                standing.idle,
                growth.rest,
                growth.restart,
                growth.delete,
            ):
                progress.print(f"tables: {measurement.__name__} at {len(place.tables)} ...")
                rows += await measurement(place)
        finally:
            await client.delete_all(gateway, LABEL)
    return rows
