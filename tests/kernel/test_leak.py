"""The leak check must itself be able to fail: each kind of thing is left behind on purpose, seen, and taken away again."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import leak

pytestmark = pytest.mark.kernel


@contextmanager
def _seen(word: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the block does is seen as one more thing called `word`, as soon as it has taken shape."""
    monkeypatch.setattr(leak, "SETTLE_S", 0.0)
    before = leak.census()
    yield
    deadline = time.monotonic() + 5
    while not any(thing.startswith(word) for thing in leak.left_since(before)):
        assert time.monotonic() < deadline, leak.left_since(before)


def test_left_process_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    with _seen("process: sleep", monkeypatch):
        process = subprocess.Popen(["sleep", "60"])
    process.kill()
    process.wait()


def test_left_spare_that_is_no_zygotes_is_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "spare"
    shutil.copy("/bin/sleep", program)
    with _seen("process: spare", monkeypatch):
        process = subprocess.Popen([program, "60"])
    process.kill()
    process.wait()


def test_child_that_nobody_reaped_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    with _seen("process: zombie", monkeypatch):
        process = subprocess.Popen(["true"])
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    process.wait()


def test_left_namespace_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    with _seen("network namespace", monkeypatch):
        subprocess.run(["ip", "netns", "add", "left"], check=True)
    subprocess.run(["ip", "netns", "delete", "left"], check=True)


def test_left_mount_is_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with _seen(f"mount: {tmp_path}", monkeypatch):
        subprocess.run(["mount", "-t", "tmpfs", "left", str(tmp_path)], check=True)
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_left_file_descriptor_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    with _seen("file descriptor: /dev/null", monkeypatch):
        left = os.open("/dev/null", os.O_RDONLY)
    os.close(left)
