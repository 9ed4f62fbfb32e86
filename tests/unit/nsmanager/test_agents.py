"""The launcher's book of agents: none is left alone, whenever its table goes."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from crossns import pidfd
from services.nsmanager.launcher import agents, records
from services.nsmanager.launcher.loop import Loop

COOKIE = 7
PATIENCE_S = 5.0


class _Zygote:
    """One that is slow: it takes every request and forks nothing yet."""

    def send(self, _request: bytes) -> None:
        pass


class Book(agents.Agents):
    def _living_zygote(self) -> _Zygote:  # type: ignore[override] # as much of a socket as is asked of it
        return _Zygote()


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


@pytest.fixture
def process() -> Iterator["subprocess.Popen[bytes]"]:
    """What has become an agent."""
    with subprocess.Popen(["/bin/sleep", "60"]) as made:
        yield made
        made.kill()


def record(directory: Path, process: "subprocess.Popen[bytes]") -> Path:
    path = directory / f"a.{COOKIE}"
    known = records.Process(process.pid, pidfd.start_time(process.pid) or 0)
    path.write_bytes(msgspec.json.encode(known))
    return path


def run(loop: Loop, for_s: float = PATIENCE_S) -> None:
    """Until `loop.stop`, or so long at most."""
    loop.call_later(for_s, loop.stop)
    loop.run()


def is_alive(process: "subprocess.Popen[bytes]") -> bool:
    return process.poll() is None and os.path.exists(f"/proc/{process.pid}")


def book(loop: Loop, directory: Path) -> Book:
    made = Book(loop, directory, lambda *_started: None, lambda *_exited: None)
    made.ensure(agents.Fork("a", COOKIE, ""), lambda _outcome: None)
    return made


def test_agent_that_has_just_recorded_itself_ends_with_its_table(
    loop: Loop, tmp_path: Path, process: "subprocess.Popen[bytes]"
) -> None:
    """Its word that it is ready was not read yet."""
    kept = book(loop, tmp_path)
    path = record(tmp_path, process)
    ended: list[bool] = []

    def end() -> None:
        ended.append(not is_alive(process))
        loop.stop()

    kept.end("a", COOKIE, end)
    run(loop)
    assert ended == [True]
    assert not path.exists()


def test_agent_that_comes_up_behind_the_end_of_its_table_is_killed(
    loop: Loop, tmp_path: Path, process: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents, "_READY_S", 0.05)
    kept = book(loop, tmp_path)
    begun = time.monotonic()
    kept.end("a", COOKIE, lambda: None)
    path = record(tmp_path, process)
    assert is_alive(process)
    run(loop, 0.2)
    process.wait(PATIENCE_S)
    assert not path.exists()
    assert time.monotonic() - begun < PATIENCE_S


class _Now:
    """A reactor and a clock in the test's hand."""

    def __init__(self) -> None:
        self.time_s = 100.0
        self.readers: dict[int, Callable[[], object]] = {}
        self.timers: list[tuple[float, Callable[[], object]]] = []

    def add_reader(self, fd: int, callback: Callable[[], object], /) -> None:
        self.readers[fd] = callback

    def remove_reader(self, fd: int, /) -> None:
        del self.readers[fd]

    def call_later(self, delay: float, callback: Callable[[], object], /) -> "_Now":
        self.timers.append((delay, callback))
        return self

    def cancel(self) -> None:
        pass


def test_agent_that_keeps_ending_is_back_ever_later_and_at_once_when_it_had_lived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = _Now()
    monkeypatch.setattr(time, "monotonic", lambda: now.time_s)
    told: list[tuple[object, ...]] = []
    kept = Book(now, tmp_path, lambda *started: told.append(started), lambda *exited: told.append(exited))  # type: ignore[arg-type]
    pids: list[int] = []
    rests_s: list[float] = []
    for lived_s in (60, 1, 1, 9, 11, 1):
        with subprocess.Popen(["/bin/sleep", "60"]) as process:
            record(tmp_path, process)
            if pids:
                rest_s, begin = now.timers.pop()
                rests_s.append(rest_s)
                begin()
            else:
                kept.ensure(agents.Fork("a", COOKIE, ""), lambda _outcome: None)
            pids.append(process.pid)
            now.time_s += lived_s
            process.kill()
            process.wait(PATIENCE_S)
            (ended,) = now.readers.values()
            ended()
    assert rests_s == [0.0, 0.05, 0.1, 0.2, 0.0]
    starts = [("a", pid, restarts) for restarts, pid in enumerate(pids)]
    assert told == [each for start in starts for each in (start, start[:2])]


def test_zygote_that_always_ends_is_started_ever_later(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    kept = agents.Agents(loop, tmp_path, lambda *_started: None, lambda *_exited: None)
    kept.start_zygote()
    run(loop, 0.5)
    # At 0, 0, 50, 150 and 350 ms, and as long as each lives.
    assert 2 <= sum("the zygote ended" in each.message for each in caplog.records) <= 5
