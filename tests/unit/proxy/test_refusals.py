"""When HAProxy is tried again with what it did not start with."""

import asyncio

import pytest

from crossns.retry import Backoff
from services.proxy import plan
from services.proxy.driver import refusals
from services.proxy.driver.refusals import Refusals
from tests.unit.proxy import sample

ONE = {sample.listener("a"): plan.Refusal("no", 1)}
OTHER = {sample.listener("b"): plan.Refusal("no", 1)}


@pytest.fixture
def delays(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """For each retry that was planned, how many there had been before it."""
    asked: list[int] = []

    class Soon(Backoff):
        def delay(self, attempt: int, *_dice: float) -> float:
            asked.append(attempt)
            return 0.0

    monkeypatch.setattr(refusals, "_RETRY", Soon(1.0, 2.0, 300.0))
    return asked


async def turn() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_all_that_was_refused_is_tried_again_at_once(delays: list[int]) -> None:
    calls: list[int] = []
    known = Refusals(lambda: calls.append(len(known.current)))
    known.add(ONE)
    known.add(OTHER)
    assert known.current == ONE | OTHER
    await turn()
    assert calls == [0]
    assert delays == [0]


async def test_what_is_refused_again_is_tried_ever_later(delays: list[int]) -> None:
    known = Refusals(lambda: None)
    for _ in range(3):
        known.add(ONE)
        # The rest runs without it.
        known.settle()
        await turn()
    assert delays == [0, 1, 2]


async def test_once_everything_runs_the_next_refusal_is_a_new_one(delays: list[int]) -> None:
    known = Refusals(lambda: None)
    known.add(ONE)
    await turn()
    known.settle()
    known.add(OTHER)
    await turn()
    assert delays == [0, 0]


async def test_a_retry_that_is_due_is_not_put_off_by_another_refusal(delays: list[int]) -> None:
    known = Refusals(lambda: None)
    for _ in range(5):
        known.add(ONE)
    await turn()
    assert delays == [0]


async def test_nothing_is_tried_again_after_the_end(delays: list[int]) -> None:
    calls: list[None] = []
    known = Refusals(lambda: calls.append(None))
    known.add(ONE)
    known.close()
    await turn()
    assert calls == []


async def test_what_somebody_was_shown_does_not_change(delays: list[int]) -> None:
    known = Refusals(lambda: None)
    known.add(ONE)
    shown = known.current
    await turn()
    assert (shown, known.current) == (ONE, {})
