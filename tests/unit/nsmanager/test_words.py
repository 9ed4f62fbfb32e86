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


RELOAD = """\
[NOTICE]   (154) : Reloading HAProxy
[NOTICE]   (154) : New worker (168) forked
[NOTICE]   (154) : Loading success.
[NOTICE]   (156) : Scheduling a soft-stop in 86400000 ms.
[NOTICE]   (154) : haproxy version is 2.6.12-1+deb12u3
[NOTICE]   (154) : path to executable is /usr/sbin/haproxy
[WARNING]  (154) : Former worker (156) exited with code 143 (Terminated)
"""


def levels(path: Path, caplog: pytest.LogCaptureFixture, said: str) -> list[int]:
    """Those of the lines in the log."""
    engine = opened(path)
    with caplog.at_level(logging.DEBUG, "services.nsmanager.launcher.words"):
        os.write(engine.fd, said.encode())
        # Whatever its level, it may be what an answer depends on.
        assert engine.said() == said
    os.close(engine.fd)
    return [record.levelno for record in caplog.records if record.name == "services.nsmanager.launcher.words"]


def test_a_reload_that_goes_well_is_no_news(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert levels(tmp_path / "words", caplog, RELOAD) == [logging.DEBUG] * 7


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("[WARNING]  (154) : Former worker (156) exited with code 137 (Killed)", logging.WARNING),
        ("[WARNING]  (154) : Former worker (156) exited with code 139 (Segmentation fault)", logging.WARNING),
        ("[ALERT]    (154) : Current worker (156) exited with code 143 (Terminated)", logging.ERROR),
        ("[WARNING]  (154) : Failed to load worker!", logging.WARNING),
        ("[WARNING]  (154) : Server vs.web.po.main/a.a.1 is DOWN: Former worker (156) exited with code 143 ", logging.WARNING),
        ("[NOTICE]   (154) : something else", logging.INFO),
        ("New worker (168) forked", logging.INFO),
    ],
)
def test_what_is_out_of_the_ordinary_is_news(tmp_path: Path, caplog: pytest.LogCaptureFixture, line: str, level: int) -> None:
    assert levels(tmp_path / "words", caplog, f"{line}\n") == [level]


@pytest.mark.parametrize(("said", "told"), [("", "it says nothing"), ("no alert\n", "no alert"), ("x\n" + ALERT, "Binding [")])
def test_refusal_has_the_alerts_or_what_there_is(said: str, told: str) -> None:
    assert words.refusal("haproxy refused it", said).message.startswith(f"haproxy refused it: {told}")


def test_refusal_has_all_of_many_alerts() -> None:
    message = words.refusal("refused", ALERT.replace("frontend f", f"frontend {'f' * 200}") * 128).message
    assert message.count("Binding [/run/x.cfg:18]") == 128
