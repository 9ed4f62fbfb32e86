"""HAProxy 2.6's answers, as they came out of its master socket."""

from pathlib import Path

import pytest

from crossns import errors
from services.proxy import render
from services.proxy.driver import master

ANSWERS = Path(__file__).parents[2] / "testdata" / "proxy"
RUNNING = (ANSWERS / "show-proc.txt").read_text(encoding="utf-8")
FAILED = (ANSWERS / "show-proc-failed.txt").read_text(encoding="utf-8")
STATISTICS = (ANSWERS / "show-stat.txt").read_text(encoding="utf-8")


def test_a_running_master_tells_its_current_worker() -> None:
    assert master.parse_processes(RUNNING) == master.Processes(master=8, reloads=1, failed=0, worker=103)


def test_a_failed_reload_is_seen_and_the_worker_from_before_is_current() -> None:
    assert master.parse_processes(FAILED) == master.Processes(master=8, reloads=2, failed=1, worker=103)


def test_a_master_with_old_workers_alone_has_none() -> None:
    lines = [line for line in RUNNING.splitlines() if not line.startswith("103 ")]
    assert master.parse_processes("\n".join(lines)).worker == 0


@pytest.mark.parametrize("text", ["", "\n", "Unknown command\n"])
def test_an_answer_without_a_master_is_none(text: str) -> None:
    with pytest.raises(errors.EngineUnavailable):
        master.parse_processes(text)


def test_statistics_show_listeners_and_servers() -> None:
    assert master.parse_parts(STATISTICS) == {
        render.Part("vs.web.fe.fe", "dmz.11", "203.0.113.10:80"),
        render.Part("vs.web.fe.six", "dmz.11", "[fd00::9]:80"),
        render.Part("vs.web.po.main", "a1.tenant-a.21", "10.0.0.5:8080"),
    }


def test_a_listener_that_is_not_open_is_not_there() -> None:
    sections = {part.section for part in master.parse_parts(STATISTICS.replace(",OPEN,", ",STOP,", 1))}
    assert sections == {"vs.web.fe.six", "vs.web.po.main"}


@pytest.mark.parametrize(
    "text", ["", "\n", STATISTICS[:-1], STATISTICS[:700], "Can't find the target PID matching the prefix '@1'\n\n"]
)
def test_half_an_answer_is_none(text: str) -> None:
    with pytest.raises(errors.EngineUnavailable):
        master.parse_parts(text)


def test_a_worker_that_serves_nothing_says_so() -> None:
    assert master.parse_parts(STATISTICS.splitlines()[0] + "\n\n") == frozenset()
