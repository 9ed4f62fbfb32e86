"""The launcher's book of agents: none is left alone, whenever its table goes."""

import os
import subprocess
import time
from collections.abc import Iterator
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
    kept.end("a", COOKIE, loop.stop)
    run(loop)
    process.wait(PATIENCE_S)
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
