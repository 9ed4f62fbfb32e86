"""Delays grow to their bound and no further, whatever the dice say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossns.retry import Backoff

BACKOFF = Backoff(0.1, 2.0, 3.0)


def test_delay_grows_by_its_factor_until_it_meets_its_bound() -> None:
    assert [BACKOFF.delay(attempt) for attempt in range(7)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.0, 3.0]


def test_first_delay_beyond_the_bound_is_the_bound() -> None:
    assert Backoff(9.0, 2.0, 3.0).delay(0) == 3.0


def test_millionth_attempt_waits_as_long_as_any_late_one() -> None:
    assert BACKOFF.delay(1_000_000) == 3.0


@pytest.mark.parametrize(("roll", "expected"), [(0.0, 0.8), (0.5, 1.0), (1.0, 1.2)])
def test_roll_spreads_evenly_to_both_sides(roll: float, expected: float) -> None:
    assert Backoff(1.0, 2.0, 8.0).delay(0, roll) == pytest.approx(expected)


@given(attempt=st.integers(0, 200), first_s=st.floats(0.001, 10), factor=st.floats(1, 10), max_s=st.floats(0.001, 100))
def test_later_attempt_never_waits_shorter_and_none_longer_than_the_bound(
    attempt: int, first_s: float, factor: float, max_s: float
) -> None:
    backoff = Backoff(first_s, factor, max_s)
    assert 0 < backoff.delay(attempt) <= backoff.delay(attempt + 1) <= max_s
