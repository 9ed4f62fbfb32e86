"""`python -m bench [--only AREA]`: brings the suite up in the sandbox, measures, prints the table, writes bench/results.json.

Called by `make bench`. The outer process becomes `crossns up --sandbox`, which runs this module once more inside when all is
up: what is measured is what an operator starts. The exit status is 1 where a goal was missed.
"""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import ground, tables, vservice
from bench.row import SPREAD_MAX, Row, merged, summary
from crossns.testing import sandbox

RESULTS = Path(__file__).parent / "results.json"
COMMAND = Path(sys.executable).parent / "crossns"
AREAS: dict[str, Callable[[Console], Awaitable[list[Row]]]] = {
    "ground": ground.measure,
    "tables": tables.measure,
    "vservice": vservice.measure,
}


# Below the table.
LEGEND = (
    "value: the median, or what the goal is of; "
    "control: a contestant's odd runs against its even ones; spread: how far from 1 that is for the worse of a row's two; "
    f"a ratio within the spread is taken for 1, unless the spread is larger than {SPREAD_MAX:g}: then it is INCONCLUSIVE"
)


def table(rows: Sequence[Row]) -> Table:
    shown = Table(
        "row", "value", "unit", "goal", "against", "ratio", "control", "spread", box=None, header_style="bold", caption=LEGEND
    )
    for row in rows:
        goal = f"{row.bound}{'' if row.verdict == 'met' else f' {row.verdict}'.upper()}" if row.bound else ""
        against = f"{row.against.median:.3g} {row.against.name}" if row.against else ""
        ratios = (f"{value:.2f}" if value is not None else "" for value in (row.ratio, row.control_ratio, row.spread))
        shown.add_row(row.slug, f"{row.value:.4g}", row.unit, goal, against, *ratios)
    return shown


async def measure(only: str) -> int:
    """The exit status: 1 where a goal was missed."""
    progress = Console(stderr=True)
    rows = [row for area, run in AREAS.items() if only in ("", area) for row in await run(progress)]
    earlier = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else []
    RESULTS.write_text(json.dumps(merged(earlier, rows, only), indent=1) + "\n", encoding="utf-8")
    Console(width=None if sys.stdout.isatty() else 160).print(table(rows))
    print(f"written to {RESULTS}")
    print(summary(rows))
    return 1 if any(row.verdict == "missed" for row in rows) else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", default="", choices=["", *AREAS], metavar="AREA", help=f"one of {', '.join(AREAS)}")
    only = parser.parse_args().only
    if not sandbox.is_inside():
        again = [sys.executable, "-m", "bench", *(["--only", only] if only else [])]
        # Only where it is asked for: telling metrics costs the gateway memory, which is a row of another area.
        metrics = ["--metrics", tables.METRICS] if only in ("", "tables") else []
        os.execv(COMMAND, [str(COMMAND), "up", "--sandbox", "--quiet", *metrics, "--", *again])
    return asyncio.run(measure(only))


if __name__ == "__main__":
    sys.exit(main())
