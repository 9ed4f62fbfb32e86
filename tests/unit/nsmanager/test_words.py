"""What the launcher hears of an engine, over a real pipe."""

import logging
import os
from pathlib import Path

import pytest

from services.nsmanager.launcher import words
from services.nsmanager.launcher.loop import Loop

STOPPED = "[WARNING]  (7) : Proxy vs.web.fe.dmz stopped (cumulated conns: FE: 0, BE: 0).\n"
ALERT = "[ALERT]    (8) : Binding [/run/x.cfg:18] for frontend f: cannot bind socket\n"


def opened(path: Path) -> words.Words:
    made = words.Words(Loop(), path, "haproxy")
    made.open()
    return made


def test_alert_is_kept_behind_thousands_of_lines_that_nobody_reads(tmp_path: Path) -> None:
    engine = opened(tmp_path / "words")
    engine.forget()
    os.write(engine.fd, STOPPED.encode() * 10_000)
    os.write(engine.fd, ALERT.encode())
    assert engine.said() == ALERT
    os.close(engine.fd)


def test_what_was_said_before_is_another_matter(tmp_path: Path) -> None:
    engine = opened(tmp_path / "words")
    os.write(engine.fd, b"before\nhalf ")
    engine.forget()
    os.write(engine.fd, b"of it\nunfinished")
    assert engine.said() == "half of it\n"
    os.close(engine.fd)


def test_words_wait_for_the_next_launcher(tmp_path: Path) -> None:
    first = opened(tmp_path / "words")
    engine = os.dup(first.fd)
    os.close(first.fd)
    os.write(engine, ALERT.encode())
    second = opened(tmp_path / "words")
    assert second.said() == ALERT
    for fd in (engine, second.fd):
        os.close(fd)


def test_foreign_text_enters_the_log_line_by_line_and_bounded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    engine = opened(tmp_path / "words")
    with caplog.at_level(logging.INFO):
        os.write(engine.fd, b"\x1b[31mred\x85\xff\n" + ALERT.encode() + b"x" * 5000 + b"\n")
        engine.said()
    red, alert, long = caplog.records
    assert red.getMessage() == "haproxy: ?[31mred\ufffd\ufffd"
    assert (red.levelno, alert.levelno) == (logging.INFO, logging.ERROR)
    assert len(long.getMessage()) < 1100
    os.close(engine.fd)


@pytest.mark.parametrize(("said", "told"), [("", "it says nothing"), ("no alert\n", "no alert"), ("x\n" + ALERT, "Binding [")])
def test_refusal_has_the_alerts_or_what_there_is(said: str, told: str) -> None:
    assert words.refusal("haproxy refused it", said).message.startswith(f"haproxy refused it: {told}")


def test_refusal_has_all_of_many_alerts() -> None:
    message = words.refusal("refused", ALERT.replace("frontend f", f"frontend {'f' * 200}") * 128).message
    assert message.count("Binding [/run/x.cfg:18]") == 128
