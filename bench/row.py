"""A measured row: what it is made of, how it compares, and how rows of one run join those of earlier ones.

Pure but for `alternate`, which calls what it is given. A sample is one run's value; contestants take turns, so that whatever
the machine does meanwhile happens to all of them; the same contestant against itself says how far a ratio is to be believed.
"""

import math
import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

SAMPLES_MIN = 5
# Contestants that are less like themselves than this leave open whether a ratio is that of equals.
SPREAD_MAX = 0.05

Verdict = Literal["met", "missed", "inconclusive"]
Statistic = Literal["median", "mean", "sum", "p99", "worst"]


def p99(samples: Sequence[float]) -> float:
    """The smallest sample that 99 of 100 do not exceed (nearest rank)."""
    return sorted(samples)[math.ceil(0.99 * len(samples)) - 1]


_STATISTICS: Mapping[Statistic, Callable[[Sequence[float]], float]] = {
    "median": statistics.median,
    "mean": statistics.fmean,
    "sum": sum,
    "p99": p99,
    "worst": max,
}


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

    @property
    def control_ratio(self) -> float | None:
        """The contestant against itself: its odd runs against its even ones."""
        samples = self.samples
        return _ratio(statistics.median(samples[1::2]), statistics.median(samples[0::2]))


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound of what a row shows: of a statistic of its samples, in its unit, or of its ratio to the other contestant."""

    bound: float
    of: Statistic | Literal["ratio"] = "median"
    sense: Literal["at most", "at least"] = "at most"

    def __str__(self) -> str:
        return f"{'' if self.of == 'median' else f'{self.of} '}{'<=' if self.sense == 'at most' else '>='} {self.bound:g}"

    def holds_for(self, value: float) -> bool:
        return value <= self.bound if self.sense == "at most" else value >= self.bound


@dataclass(frozen=True, slots=True)
class Row:
    """`goal` is printed, not written; a bare number is the most that the median may be."""

    slug: str
    unit: str
    measured: Series
    against: Series | None = None
    goal: Goal | float | None = None

    @property
    def area(self) -> str:
        return self.slug.split(".")[0]

    @property
    def ratio(self) -> float | None:
        return _ratio(self.measured.median, self.against.median) if self.against else None

    @property
    def value(self) -> float:
        """What the row is judged by: the statistic that its goal is of, else the median."""
        of = self.bound.of if self.bound else "median"
        return _STATISTICS["median" if of == "ratio" else of](self.measured.samples)

    @property
    def control_ratio(self) -> float | None:
        return self.measured.control_ratio

    @property
    def spread(self) -> float | None:
        """How far from 1 a ratio of equals may be here: the control ratio of that contestant that is less like itself."""
        if self.against is None:
            return None
        controls = (self.measured.control_ratio, self.against.control_ratio)
        return max(_off_one(control) for control in controls if control is not None) if None not in controls else None

    @property
    def bound(self) -> Goal | None:
        return Goal(self.goal) if isinstance(self.goal, float | int) else self.goal

    @property
    def verdict(self) -> Verdict | None:
        """None without a goal. A ratio within the spread is that of equals: it meets what 1 meets, or, where the spread is a
        wide one, nothing can be said."""
        bound = self.bound
        if bound is None:
            return None
        value = self.ratio if bound.of == "ratio" else self.value
        if value is not None and bound.holds_for(value):
            return "met"
        if bound.of != "ratio" or value is None or self.spread is None:
            return "missed"
        if _off_one(value) > self.spread or not bound.holds_for(1):
            return "missed"
        return "met" if self.spread <= SPREAD_MAX else "inconclusive"

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


def _off_one(ratio: float) -> float:
    """As exact as ratios are: 1.05 is 0.05 off, not a little more."""
    return round(abs(ratio - 1), 3)


def merged(earlier: Sequence[dict[str, Any]], rows: Sequence[Row], only: str) -> list[dict[str, Any]]:
    """The rows of results.json: `rows`, and of the earlier ones those of other areas where `only` one was measured."""
    kept = [row for row in earlier if only and row["slug"].split(".")[0] != only]
    return sorted([*kept, *(row.as_json() for row in rows)], key=lambda row: str(row["slug"]))


def summary(rows: Sequence[Row]) -> str:
    """How many goals were met, missed, and neither, in a line."""
    verdicts = [row.verdict for row in rows]
    return "goals: " + ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in get_args(Verdict))


async def alternate(rounds: int, *contestants: tuple[str, Callable[[], Awaitable[float]]]) -> tuple[Series, ...]:
    """Each contestant once a round, in turn; a round before the first does not count, it warms up."""
    samples: list[list[float]] = [[] for _ in contestants]
    for number in range(rounds + 1):
        for (_, run), taken in zip(contestants, samples, strict=True):
            value = await run()
            if number:
                taken.append(round(value, 4))
    return tuple(Series(name, tuple(taken)) for (name, _), taken in zip(contestants, samples, strict=True))
