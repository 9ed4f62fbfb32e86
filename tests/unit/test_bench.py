"""The arithmetic of rows, and that a run of one area leaves the others' rows alone."""

from typing import Any

import pytest

from bench import row

FIVE = (1.0, 2.0, 3.0, 4.0, 10.0)


def _row(slug: str, samples: tuple[float, ...] = FIVE, against: tuple[float, ...] | None = None) -> row.Row:
    return row.Row(slug, "ms", row.Series("ours", samples), row.Series("theirs", against) if against else None)


def test_ratio_is_that_of_the_medians() -> None:
    assert _row("ground.x", against=(2.0, 2.0, 2.0, 2.0, 90.0)).ratio == 1.5


def test_row_without_another_contestant_has_no_ratio() -> None:
    assert _row("ground.x").ratio is None
    assert _row("ground.x").as_json()["against"] is None


def test_control_ratio_is_the_same_contestants_odd_runs_against_its_even_ones() -> None:
    assert _row("ground.x", (1.0, 2.0, 1.0, 2.0, 1.0, 2.0)).control_ratio == 2.0
    assert _row("ground.x", (3.0,) * 6).control_ratio == 1.0


def test_ratio_to_nothing_is_none() -> None:
    assert _row("ground.idle_cpu", (0.0,) * 5).control_ratio is None


def test_fewer_than_five_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="4 samples"):
        row.Series("ours", FIVE[:4])


def test_goal_is_the_most_that_the_median_may_be() -> None:
    series = row.Series("ours", FIVE)
    assert row.Row("a.b", "ms", series, goal=3.0).is_met
    assert not row.Row("a.b", "ms", series, goal=2.9).is_met
    assert row.Row("a.b", "ms", series).is_met


def test_written_row_has_exactly_the_fields_that_readers_know() -> None:
    assert _row("ground.x", against=FIVE).as_json() == {
        "slug": "ground.x",
        "unit": "ms",
        "samples": list(FIVE),
        "against": {"name": "theirs", "samples": list(FIVE)},
        "ratio": 1.0,
        "control_ratio": 1.0,
    }


def test_run_of_one_area_replaces_only_its_rows() -> None:
    earlier: list[dict[str, Any]] = [
        {"slug": "ground.gone"},
        {"slug": "ground.x", "samples": []},
        {"slug": "proxy.y"},
        {"slug": "groundwork.z"},
    ]
    joined = row.merged(earlier, [_row("ground.x")], "ground")
    assert [written["slug"] for written in joined] == ["ground.x", "groundwork.z", "proxy.y"]
    assert joined[0]["samples"] == list(FIVE)


def test_run_of_everything_replaces_everything() -> None:
    assert [written["slug"] for written in row.merged([{"slug": "proxy.y"}], [_row("ground.x")], "")] == ["ground.x"]


async def test_contestants_take_turns_and_the_first_round_does_not_count() -> None:
    order: list[str] = []

    async def run(name: str) -> float:
        order.append(name)
        return len(order)

    ours, theirs = await row.alternate(5, ("ours", lambda: run("a")), ("theirs", lambda: run("b")))
    assert order == ["a", "b"] * 6
    assert ours.samples == (3, 5, 7, 9, 11)
    assert theirs.samples == (4, 6, 8, 10, 12)
