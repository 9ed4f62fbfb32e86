"""The queue's promises, under a clock that only the test moves."""

import asyncio
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossns.queue import Queue


class Clock:
    """The running loop's time, standing still but for `advance`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: self.now)

    async def advance(self, seconds: float) -> None:
        self.now += seconds
        await settle()


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def taken(queue: Queue) -> str | None:
    """The next key if there is one now."""
    task = asyncio.create_task(queue.take())
    await settle()
    if task.done():
        return task.result()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return None


async def test_keys_are_taken_in_the_order_in_which_they_came() -> None:
    queue = Queue()
    for key in ("b", "a", "c"):
        queue.add(key)
    assert [await queue.take() for _ in range(3)] == ["b", "a", "c"]


async def test_key_that_is_in_line_is_not_added_twice() -> None:
    queue = Queue()
    queue.add("a")
    queue.add("a")
    assert (len(queue), await taken(queue), await taken(queue)) == (1, "a", None)


async def test_key_is_with_one_task_at_a_time_and_runs_once_more_afterwards() -> None:
    queue = Queue()
    queue.add("a")
    await queue.take()
    queue.add("a")
    queue.add("a")
    assert await taken(queue) is None
    queue.done("a")
    assert await taken(queue) == "a"
    queue.done("a")
    assert await taken(queue) is None


async def test_key_that_is_added_all_the_time_takes_its_turn_behind_the_others() -> None:
    queue = Queue()
    for key in ("busy", "x", "y"):
        queue.add(key)
    order = []
    for _ in range(4):
        key = await queue.take()
        order.append(key)
        queue.add("busy")
        queue.done(key)
    assert order == ["busy", "x", "y", "busy"]


async def test_waiting_worker_gets_the_key_that_comes() -> None:
    queue = Queue()
    worker = asyncio.create_task(queue.take())
    await settle()
    queue.add("a")
    assert await worker == "a"


async def test_cancelled_worker_loses_no_key() -> None:
    queue = Queue()
    worker = asyncio.create_task(queue.take())
    await settle()
    queue.add("a")
    worker.cancel()
    await asyncio.gather(worker, return_exceptions=True)
    assert await taken(queue) == "a"


async def test_delayed_key_comes_when_its_time_has_come_and_not_before(clock: Clock) -> None:
    queue = Queue()
    queue.add_after("a", 5.0)
    await clock.advance(4.9)
    assert (len(queue), await taken(queue)) == (0, None)
    await clock.advance(0.2)
    assert await taken(queue) == "a"


@pytest.mark.parametrize("delays", [(5.0, 9.0), (9.0, 5.0)])
async def test_earliest_of_several_times_counts_and_only_once(clock: Clock, delays: tuple[float, float]) -> None:
    queue = Queue()
    for delay_s in delays:
        queue.add_after("a", delay_s)
    await clock.advance(5.1)
    assert await taken(queue) == "a"
    queue.done("a")
    await clock.advance(10)
    assert await taken(queue) is None


async def test_key_that_is_added_meanwhile_forgets_its_time(clock: Clock) -> None:
    queue = Queue()
    queue.add_after("a", 5.0)
    queue.add("a")
    assert await taken(queue) == "a"
    queue.done("a")
    await clock.advance(6)
    assert await taken(queue) is None


async def test_key_in_line_or_to_run_again_needs_no_time_of_its_own(clock: Clock) -> None:
    queue = Queue()
    queue.add("a")
    queue.add_after("a", 5.0)
    await queue.take()
    queue.add("a")
    queue.add_after("a", 5.0)
    queue.done("a")
    assert await taken(queue) == "a"
    queue.done("a")
    await clock.advance(6)
    assert await taken(queue) is None


async def test_time_that_comes_while_the_key_is_worked_on_is_not_forgotten(clock: Clock) -> None:
    queue = Queue()
    queue.add("a")
    await queue.take()
    queue.add_after("a", 5.0)
    await clock.advance(6)
    assert await taken(queue) is None
    queue.done("a")
    assert await taken(queue) == "a"


@given(st.lists(st.tuples(st.sampled_from(["add", "take", "done"]), st.sampled_from("abc")), max_size=60))
def test_queue_is_a_line_without_repetition_whose_taken_keys_stand_aside(steps: list[tuple[str, str]]) -> None:
    asyncio.run(_follow_model(steps))


async def _follow_model(steps: list[tuple[str, str]]) -> None:
    queue, line, working, again = Queue(), deque[str](), set[str](), set[str]()
    for action, key in steps:
        if action == "add":
            queue.add(key)
            if key in working:
                again.add(key)
            elif key not in line:
                line.append(key)
        elif action == "take" and line:
            expected = line.popleft()
            assert await queue.take() == expected
            working.add(expected)
        elif action == "done" and key in working:
            queue.done(key)
            working.remove(key)
            if key in again:
                again.remove(key)
                line.append(key)
        assert len(queue) == len(line) + len(again)
