"""When HAProxy is tried again with what it did not start with."""

import asyncio
from collections.abc import Mapping

import pytest
import pytest_asyncio

from services.proxy import plan, render
from services.proxy.driver.refusals import Refusals
from tests.unit.proxy import sample

Refused = Mapping[render.Part, plan.Refusal]

ONE = {sample.listener("a"): plan.Refusal("no", 1)}
OTHER = {sample.listener("b"): plan.Refusal("no", 1)}
CHANGED = {sample.listener("a"): plan.Refusal("no", 2)}


class Clock:
    """The loop's, which stands still unless it is told."""

    def __init__(self) -> None:
        self.now = asyncio.get_running_loop().time()

    async def advance(self, by_s: float) -> None:
        self.now += by_s
        for _ in range(3):
            await asyncio.sleep(0)


@pytest_asyncio.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: made.now)
    return made


class Driver:
    """Uses refusals as the device does; `tries`: how often it was told to try again."""

    def __init__(self) -> None:
        self.known = Refusals(self.retry)
        self.tries = 0

    def retry(self) -> None:
        self.tries += 1

    def refuse(self, found: Refused) -> None:
        """HAProxy does not start with these, and then without them."""
        self.known.leave_out()
        self.known.add(found)
        self.take()

    def take(self) -> None:
        """HAProxy starts with whatever is not left out."""
        self.known.leave_out()
        self.known.settle()


async def test_what_is_refused_together_is_tried_together(clock: Clock) -> None:
    driver = Driver()
    driver.refuse(ONE | OTHER)
    assert driver.known.leave_out() == ONE | OTHER
    await clock.advance(1.0)
    assert (driver.tries, driver.known.leave_out()) == (1, {})


async def test_what_is_refused_again_is_tried_ever_later(clock: Clock) -> None:
    driver = Driver()
    for count, delay_s in enumerate((1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 300.0, 300.0)):
        driver.refuse(ONE)
        await clock.advance(delay_s - 0.01)
        assert driver.tries == count
        await clock.advance(0.01)
        assert driver.tries == count + 1


async def test_what_is_refused_for_the_first_time_does_not_wait_for_others(clock: Clock) -> None:
    driver = Driver()
    for delay_s in (1.0, 2.0, 4.0):
        driver.refuse(ONE)
        await clock.advance(delay_s)
    driver.refuse(ONE)
    driver.refuse(OTHER)
    await clock.advance(1.0)
    # The time of the other one has not come.
    assert (driver.tries, driver.known.leave_out()) == (4, ONE)
    driver.take()
    await clock.advance(6.99)
    assert (driver.tries, driver.known.leave_out()) == (4, ONE)
    await clock.advance(0.01)
    assert (driver.tries, driver.known.leave_out()) == (5, {})


async def test_what_haproxy_took_is_refused_anew_whatever_is_refused_beside_it(clock: Clock) -> None:
    driver = Driver()
    driver.refuse(ONE | OTHER)
    await clock.advance(1.0)
    # Takes the one, and later not any more.
    driver.refuse(OTHER)
    driver.refuse(ONE)
    await clock.advance(1.0)
    assert (driver.tries, driver.known.leave_out()) == (2, OTHER)
    await clock.advance(1.0)
    assert (driver.tries, driver.known.leave_out()) == (3, {})


async def test_what_was_not_tried_was_not_taken(clock: Clock) -> None:
    """Its time comes while HAProxy starts without it."""
    driver = Driver()
    driver.refuse(ONE)
    await clock.advance(1.0)
    driver.known.settle()
    driver.refuse(ONE)
    await clock.advance(1.0)
    assert driver.tries == 1
    await clock.advance(1.0)
    assert driver.tries == 2


async def test_a_retry_that_is_due_is_not_put_off_by_another_refusal(clock: Clock) -> None:
    driver = Driver()
    driver.refuse(ONE)
    for _ in range(5):
        driver.refuse(OTHER)
        await clock.advance(0.2)
    assert (driver.tries, driver.known.leave_out()) == (1, OTHER)


async def test_a_vservice_that_was_changed_begins_anew(clock: Clock) -> None:
    driver = Driver()
    driver.refuse(ONE)
    await clock.advance(1.0)
    driver.refuse(ONE)
    driver.refuse(CHANGED)
    await clock.advance(1.0)
    assert driver.tries == 2


async def test_those_who_are_nearly_due_go_along(clock: Clock) -> None:
    driver = Driver()
    driver.refuse(ONE)
    await clock.advance(0.05)
    driver.refuse(OTHER)
    await clock.advance(0.95)
    assert (driver.tries, driver.known.leave_out()) == (1, {})
    await clock.advance(0.05)
    assert driver.tries == 1


async def test_nothing_is_tried_again_after_the_end(clock: Clock) -> None:
    driver = Driver()
    driver.refuse(ONE)
    driver.known.close()
    await clock.advance(300.0)
    assert driver.tries == 0


async def test_what_somebody_was_shown_does_not_change(clock: Clock) -> None:
    driver = Driver()
    driver.refuse(ONE)
    shown = driver.known.leave_out()
    await clock.advance(1.0)
    assert (shown, driver.known.leave_out()) == (ONE, {})
