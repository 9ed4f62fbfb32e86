"""HAProxy 2.6's answer, as it came out of its master socket."""

from pathlib import Path

import pytest

from crossns import errors
from services.proxy import render
from services.proxy.driver import master

STATISTICS = (Path(__file__).parents[2] / "testdata" / "proxy" / "show-stat.txt").read_text(encoding="utf-8")


def test_statistics_show_listeners_and_servers() -> None:
    assert master.parse(STATISTICS) == {
        render.Part("vs.web.fe.fe", "dmz.11", "203.0.113.10:80"),
        render.Part("vs.web.fe.six", "dmz.11", "[fd00::9]:80"),
        render.Part("vs.web.po.main", "a1.tenant-a.21", "10.0.0.5:8080"),
    }


def test_a_listener_that_is_not_open_is_not_there() -> None:
    sections = {part.section for part in master.parse(STATISTICS.replace(",OPEN,", ",STOP,", 1))}
    assert sections == {"vs.web.fe.six", "vs.web.po.main"}


@pytest.mark.parametrize(
    "text", ["", "\n", STATISTICS[:-1], STATISTICS[:700], "Can't find the target PID matching the prefix '@1'\n\n"]
)
def test_half_an_answer_is_none(text: str) -> None:
    with pytest.raises(errors.EngineUnavailable):
        master.parse(text)


def test_a_worker_that_serves_nothing_says_so() -> None:
    assert master.parse(STATISTICS.splitlines()[0] + "\n\n") == frozenset()
