"""A measured row: what it is made of, how it compares, and how rows of one run join those of earlier ones.

Pure but for `alternate`, which calls what it is given. A sample is one run's value; contestants take turns, so that whatever
the machine does meanwhile happens to all of them; the same contestant against itself says how far a ratio is to be believed.
"""

import statistics
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

SAMPLES_MIN = 5


@dataclass(frozen=True, slots=True)
class Series:
    """One contestant's samples, in the order of their runs."""

    name: str
    samples: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.samples) < SAMPLES_MIN:
            raise ValueError(f"{self.name}: {len(self.samples)} samples, at least {SAMPLES_MIN} are wanted")

    @property
    def median(self) -> float:
        return statistics.median(self.samples)


@dataclass(frozen=True, slots=True)
class Row:
    """`goal` is the most that the median may be, in `unit`; it is printed, not written."""

    slug: str
    unit: str
    measured: Series
    against: Series | None = None
    goal: float | None = None

    @property
    def area(self) -> str:
        return self.slug.split(".")[0]

    @property
    def ratio(self) -> float | None:
        return _ratio(self.measured.median, self.against.median) if self.against else None

    @property
    def control_ratio(self) -> float | None:
        """The same contestant's odd runs against its even ones."""
        samples = self.measured.samples
        return _ratio(statistics.median(samples[1::2]), statistics.median(samples[0::2]))

    @property
    def is_met(self) -> bool:
        return self.goal is None or self.measured.median <= self.goal

    def as_json(self) -> dict[str, Any]:
        return {
            "slug": self.slug,
            "unit": self.unit,
            "samples": list(self.measured.samples),
            "against": {"name": self.against.name, "samples": list(self.against.samples)} if self.against else None,
            "ratio": self.ratio,
            "control_ratio": self.control_ratio,
        }


def _ratio(value: float, against: float) -> float | None:
    return round(value / against, 3) if against else None


def merged(earlier: Sequence[dict[str, Any]], rows: Sequence[Row], only: str) -> list[dict[str, Any]]:
    """The rows of results.json: `rows`, and of the earlier ones those of other areas where `only` one was measured."""
    kept = [row for row in earlier if only and row["slug"].split(".")[0] != only]
    return sorted([*kept, *(row.as_json() for row in rows)], key=lambda row: str(row["slug"]))


async def alternate(rounds: int, *contestants: tuple[str, Callable[[], Awaitable[float]]]) -> tuple[Series, ...]:
    """Each contestant once a round, in turn; a round before the first does not count, it warms up."""
    samples: list[list[float]] = [[] for _ in contestants]
    for number in range(rounds + 1):
        for (_, run), taken in zip(contestants, samples, strict=True):
            value = await run()
            if number:
                taken.append(round(value, 4))
    return tuple(Series(name, tuple(taken)) for (name, _), taken in zip(contestants, samples, strict=True))
