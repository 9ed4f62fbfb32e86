"""The check of the members: counting by values, the rest on the loopback of this process, with an agent that is none."""

import asyncio
import ipaddress
import itertools
import logging
import os
import socket
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossns import errors, netns, operation
from crossns.agent import Agent as RealAgent
from crossns.layout import Layout
from crossns.retry import Backoff
from services.proxy import model
from services.proxy.driver import check, dial
from services.proxy.driver.check import Checker
from services.proxy.plan.verdict import ANOTHER, Verdict

LOOPBACK = ipaddress.ip_address("127.0.0.1")
OUTCOMES = st.lists(st.sampled_from(["", "refuses", "is silent"]))


def judged(*outcomes: str) -> Verdict:
    verdict = Verdict()
    for outcome in outcomes:
        verdict = verdict.after(outcome)
    return verdict


def test_what_nothing_is_known_of_is_up() -> None:
    assert judged().reason == ""


def test_it_takes_two_failures_in_a_row_to_be_down() -> None:
    assert judged("refuses").reason == ""
    assert judged("refuses", "", "refuses").reason == ""
    assert judged("is silent", "refuses").reason == "refuses"


def test_it_takes_two_successes_in_a_row_to_be_up_again() -> None:
    down = ("refuses", "refuses")
    assert judged(*down, "").reason == "refuses"
    assert judged(*down, "", "refuses", "").reason == "refuses"
    assert judged(*down, "", "is silent", "").reason == "refuses"
    assert judged(*down, "", "") == Verdict()


@given(OUTCOMES)
def test_the_last_two_of_a_kind_in_a_row_decide(outcomes: list[str]) -> None:
    pairs = [one == "" for one, other in itertools.pairwise(outcomes) if bool(one) == bool(other)]
    assert (judged(*outcomes).reason == "") == ([True, *pairs][-1])


@given(OUTCOMES)
def test_a_verdict_is_shaken_as_long_as_the_last_check_speaks_against_it(outcomes: list[str]) -> None:
    verdict = judged(*outcomes)
    assert verdict.is_shaken == (bool(outcomes) and bool(outcomes[-1]) != bool(verdict.reason))


def test_another_reason_is_told_when_it_lasts() -> None:
    down = ("is silent", "is silent")
    assert judged(*down, *["refuses"] * (ANOTHER - 1)).reason == "is silent"
    assert judged(*down, *["refuses"] * ANOTHER).reason == "refuses"


def test_reasons_that_take_turns_are_told_once() -> None:
    down = ("is silent", "is silent")
    assert judged(*down, *["refuses", "is silent"] * 20).reason == "is silent"
    assert judged(*down, *["refuses", "has no route"] * 20).reason == "is silent"


def target(address: str = "10.0.0.5", port: int = 8080, namespace: str = "tenant-a.11") -> model.Target:
    return model.Target(namespace, ipaddress.ip_address(address), port)


def test_a_target_is_named_by_socket_and_table() -> None:
    assert str(target()) == "10.0.0.5:8080 in tenant-a"
    assert str(target("fd00::5")) == "[fd00::5]:8080 in tenant-a"
    assert (target().table, target().cookie) == ("tenant-a", 11)


def test_targets_of_both_families_have_an_order() -> None:
    one, other, six = target("10.0.0.5", 81), target("10.0.0.6", 80), target("::1", 1)
    assert sorted([six, other, target(namespace="z.1"), one]) == [one, other, six, target(namespace="z.1")]


class Agent:
    """Every table's: makes sockets here. `refusal` is what it answers instead, while there is one."""

    def __init__(self) -> None:
        self.refusal: Exception | None = None
        self.is_closed = True
        self.sessions: list[Path] = []
        self.asked: list[operation.OpenSocket] = []

    async def connect(self, path: Path, _service: str, _token: operation.Token) -> "Agent":
        self.sessions.append(path)
        self.is_closed = False
        return self

    async def open_socket(self, wanted: operation.OpenSocket) -> socket.socket:
        self.asked.append(wanted)
        if self.refusal is not None:
            raise self.refusal
        made = socket.socket(socket.AF_INET6 if wanted.family == "inet6" else socket.AF_INET, socket.SOCK_STREAM)
        made.settimeout(0)
        return made

    async def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Agent:
    made = Agent()
    monkeypatch.setattr("crossns.agent.Agent.connect", made.connect)
    monkeypatch.setattr(check, "INTERVAL_S", 0.02)
    monkeypatch.setattr(check, "SHAKEN_S", 0.01)
    monkeypatch.setattr(check, "_TURN_S", 0.01)
    monkeypatch.setattr(dial, "_REST", Backoff(0.01, 1.0, 0.01))
    return made


class Port:
    """A port of the loopback that listens or not; it does at first."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.number: int = self._listener.getsockname()[1]

    def open(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.number))

    def close(self) -> None:
        self._listener.close()

    @property
    def target(self) -> model.Target:
        return model.Target(f"tenant-a.{netns.cookie()}", LOOPBACK, self.number)


@pytest.fixture
def port() -> Iterator[Port]:
    made = Port()
    yield made
    made.close()


class Wanted:
    """What the checker asks for, how often it told of something, and how often that was of another `down`."""

    def __init__(self, *targets: model.Target) -> None:
        self.targets = frozenset(targets)
        self.calls = self.changes = 0
        self._down: dict[model.Target, str] = {}

    def changed(self, down: Mapping[model.Target, str]) -> None:
        self.calls += 1
        self.changes += down != self._down
        self._down = dict(down)


@asynccontextmanager
async def checking(wanted: Wanted) -> AsyncIterator[Checker]:
    checker = Checker(Layout(), operation.Token(1, 1), lambda: wanted.targets, lambda: wanted.changed(checker.down))
    running = asyncio.create_task(checker.run())
    try:
        yield checker
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_so():
            await asyncio.sleep(0.002)


async def attempts(agent: Agent, count: int = 5) -> None:
    """Until the agent has been asked `count` times more."""
    enough = len(agent.asked) + count
    await until(lambda: len(agent.asked) >= enough)


async def test_a_member_that_refuses_is_down_and_is_up_again_when_it_listens(
    agent: Agent, port: Port, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    wanted = Wanted(port.target)
    async with checking(wanted) as checker:
        await attempts(agent)
        assert (dict(checker.down), wanted.changes) == ({}, 0)
        port.close()
        await until(lambda: wanted.changes == 1)
        reason = f"127.0.0.1:{port.number} in tenant-a refuses connections"
        assert dict(checker.down) == {port.target: reason}
        assert f"member down: {reason}" in caplog.messages
        await attempts(agent)
        port.open()
        await until(lambda: not checker.down)
        assert wanted.changes == 2
        assert f"member up: 127.0.0.1:{port.number} in tenant-a accepts connections" in caplog.messages
        assert len([told for told in caplog.messages if told.startswith("member ")]) == 2
    assert agent.is_closed


async def test_the_socket_is_haproxys_and_the_tables_own(agent: Agent, port: Port) -> None:
    async with checking(Wanted(port.target)):
        await attempts(agent, 2)
    layout = Layout()
    assert agent.asked[0] == operation.OpenSocket(family="inet", kind="stream", owner_uid=layout.uid("haproxy"))
    assert agent.sessions == [layout.agent_socket("tenant-a")]


async def test_what_is_no_longer_wanted_is_forgotten(agent: Agent, port: Port) -> None:
    port.close()
    wanted = Wanted(port.target)
    async with checking(wanted) as checker:
        await until(lambda: bool(checker.down))
        wanted.targets = frozenset()
        await until(lambda: not checker.down)
        assert wanted.changes == 2
        assert agent.is_closed
        asked = len(agent.asked)
        # Wanted once more it begins anew: up until it has failed twice.
        wanted.targets = frozenset({port.target})
        await until(lambda: bool(checker.down))
        assert len(agent.asked) >= asked + 2


@pytest.mark.parametrize(
    "refusal",
    [
        errors.AgentUnavailable("AGENT_UNAVAILABLE", "the agent: the connection was lost"),
        errors.InvariantError("the operation failed inside the privileged process: its log has the details"),
    ],
    ids=["gone", "out of files"],
)
async def test_an_agent_that_makes_no_socket_changes_no_verdict(agent: Agent, port: Port, refusal: Exception) -> None:
    gone = model.Target(port.target.namespace, LOOPBACK, 1)
    wanted = Wanted(port.target, gone)
    async with checking(wanted) as checker:
        await until(lambda: set(checker.down) == {gone})
        sessions = len(agent.sessions)
        agent.refusal = refusal
        await attempts(agent)
        assert (set(checker.down), wanted.changes) == ({gone}, 1)
        agent.refusal = None
        port.close()
        await until(lambda: len(checker.down) == 2)
        assert len(agent.sessions) > sessions


async def test_a_socket_in_another_namespace_says_nothing(agent: Agent, port: Port) -> None:
    port.close()
    anew = model.Target(f"tenant-a.{port.target.cookie + 1}", LOOPBACK, port.number)
    before = set(os.listdir("/proc/self/fd"))
    async with checking(Wanted(anew)) as checker:
        await attempts(agent)
        assert dict(checker.down) == {}
    assert set(os.listdir("/proc/self/fd")) == before


async def test_a_fenced_process_checks_nothing_more(agent: Agent, port: Port, caplog: pytest.LogCaptureFixture) -> None:
    port.close()
    others = [model.Target(port.target.namespace, LOOPBACK, number) for number in (1, 2)]
    words = "a newer process acts for proxy by now: this one has to stop"
    agent.refusal = errors.FailedPrecondition("FENCED", words)
    async with checking(Wanted(port.target, *others)) as checker:
        await until(lambda: f"no member is checked any more: {words}" in caplog.messages)
        assert (checker.down, len(asyncio.all_tasks())) == ({}, 2)


async def test_an_answer_that_came_while_this_process_was_busy_counts(
    agent: Agent, port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The time is up before it is looked whether there is an answer.
    monkeypatch.setattr(dial, "TIMEOUT_S", 0.0)
    dialler = dial.Dialler(Layout(), operation.Token(1, 1))
    assert await dialler.attempt(port.target) == ""
    port.close()
    assert await dialler.attempt(port.target) == f"{port.target} refuses connections"


class Dialler:
    """Attempts that `attempt` answers, at the times `at`."""

    def __init__(self, attempt: Callable[[model.Target], Awaitable[str | None]]) -> None:
        self._attempt = attempt
        self.at: list[float] = []

    async def attempt(self, wanted: model.Target) -> str | None:
        self.at.append(asyncio.get_running_loop().time())
        return await self._attempt(wanted)

    async def keep(self, _tables: object) -> None:
        pass


async def test_there_are_never_more_attempts_than_the_device_has_time_for(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes: defaultdict[model.Target, Iterator[str]] = defaultdict(lambda: itertools.cycle(["fails", ""]))

    async def attempt(wanted: model.Target) -> str:
        """Every verdict is shaken all the time."""
        return next(outcomes[wanted])

    dialler = Dialler(attempt)
    monkeypatch.setattr(check, "Dialler", lambda *_: dialler)
    async with checking(Wanted(*(target(port=number) for number in range(1, 31)))):
        await until(lambda: len(dialler.at) > 50)
    # 50 steps, less what a clock and a sleep may be off.
    assert dialler.at[50] - dialler.at[0] > 0.9 * 50 / check.CHECKS_PER_S


async def test_a_member_that_hangs_holds_up_nobody(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    async def attempt(wanted: model.Target) -> str:
        seen.append(wanted.port)
        if wanted.port == 1:
            await asyncio.get_running_loop().create_future()
        return ""

    monkeypatch.setattr(check, "Dialler", lambda *_: Dialler(attempt))
    async with checking(Wanted(target(port=1), target(port=2), target(port=3))):
        await until(lambda: seen.count(2) > 3 and seen.count(3) > 3)
    assert seen.count(1) == 1


async def test_a_descriptor_that_did_not_come_is_the_agents_to_explain(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(_agent: RealAgent, _wanted: operation.OpenSocket) -> tuple[None, int]:
        return None, -1

    monkeypatch.setattr(RealAgent, "_answer", answer)
    agent = object.__new__(RealAgent)
    with pytest.raises(errors.AgentUnavailable, match="open files"):
        await agent.open_socket(operation.OpenSocket(family="inet", kind="stream"))


async def test_members_of_before_are_unknown_until_they_were_judged_and_that_is_told(agent: Agent, port: Port) -> None:
    gone, later = (model.Target(port.target.namespace, LOOPBACK, number) for number in (1, 2))
    wanted = Wanted(port.target, gone)
    checker = Checker(Layout(), operation.Token(1, 1), lambda: wanted.targets, lambda: None)
    assert checker.unknown == {port.target, gone}
    agent.refusal = errors.AgentUnavailable("AGENT_UNAVAILABLE", "the agent: the connection was lost")
    async with checking(wanted) as checker:
        await attempts(agent)
        assert checker.unknown == {port.target, gone}
        # Who comes now was nothing to a process before this one.
        wanted.targets |= {later}
        await attempts(agent)
        assert checker.unknown == {port.target, gone}
        agent.refusal = None
        await until(lambda: not checker.unknown)
        assert set(checker.down) <= {gone, later}
        await until(lambda: wanted.calls > wanted.changes)
