"""`crossns stats` on the whole suite: live on a terminal until q or Ctrl-C, once elsewhere, with real traffic."""

import asyncio
import json
import os
import re
import signal
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from crossns.testing.device import Device, doc
from tests.e2e.terminal import CROSSNS, ENVIRON, crossns, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

SIZE = (40, 160)


class Terminal:
    """A command with a terminal of its own, and what it has written there."""

    def __init__(self, *argv: str) -> None:
        self._master, slave = os.openpty()
        termios.tcsetwinsize(slave, SIZE)
        os.set_blocking(self._master, False)
        self.before = termios.tcgetattr(slave)
        self.text = ""
        # A session of its own, whose controlling terminal it is: so Ctrl-C becomes a signal.
        own = ["setsid", "--ctty", "--wait", *CROSSNS, *argv]
        self.process = subprocess.Popen(own, stdin=slave, stdout=slave, stderr=slave, env={**ENVIRON, "TERM": "xterm"})
        self._slave = slave

    def press(self, key: bytes) -> None:
        os.write(self._master, key)

    def shows(self, pattern: str) -> bool:
        """Whether it has written that, between escapes."""
        try:
            while piece := os.read(self._master, 65536):
                self.text += piece.decode(errors="replace")
        except BlockingIOError:
            pass
        return re.search(pattern, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.text)) is not None

    def wait_until_shown(self, pattern: str) -> None:
        wait_until(lambda: self.shows(pattern) or self.process.poll() is not None, 20)
        assert self.shows(pattern), self.text

    def status(self) -> int:
        """How it ended; its terminal is as it was."""
        wait_until(lambda: self.shows("$") and self.process.poll() is not None, 20)
        assert termios.tcgetattr(self._slave) == self.before
        return self.process.wait()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        os.close(self._master)
        os.close(self._slave)


@contextmanager
def terminal(*argv: str) -> Iterator[Terminal]:
    shown = Terminal(*argv)
    try:
        yield shown
    finally:
        shown.close()


def watch_and_end(key: bytes) -> int:
    with terminal("stats", "a", "--interval", "0.2") as shown:
        shown.wait_until_shown(r"routeTables/a .*q ends")
        # From the second look on there are rates.
        shown.wait_until_shown(r"lo +[0-9.]+ K?i?B/s +[0-9]")
        assert shown.shows(r"packets in +[0-9.,]+ +[0-9,]+")
        shown.press(key)
        return shown.status()


@pytest.mark.parametrize("key", [b"q", b"\x03"], ids=["q", "ctrl-c"])
async def test_numbers_stay_up_to_date_on_a_terminal_until_somebody_ends_it(device: Device, key: bytes) -> None:
    await device.apply(doc("routeTables/a"))
    assert await asyncio.to_thread(watch_and_end, key) == 0


def watch_over_a_restart(pid: int) -> None:
    with terminal("stats", "a", "--interval", "0.2") as shown:
        shown.wait_until_shown("q ends")
        os.kill(pid, signal.SIGSTOP)
        try:
            shown.wait_until_shown(r"routeTables/a does not\s+answer")
        finally:
            os.kill(pid, signal.SIGCONT)
        shown.text = ""
        shown.wait_until_shown("q ends")
        shown.press(b"q")
        assert shown.status() == 0


async def test_agent_that_hangs_is_waited_for_on_a_terminal(device: Device) -> None:
    await device.apply(doc("routeTables/a"))
    await asyncio.to_thread(watch_over_a_restart, device.pid("agent a"))


async def test_elsewhere_the_numbers_are_printed_once_with_the_rates_of_one_interval(device: Device) -> None:
    await device.apply(doc("routeTables/a"))
    shown = await asyncio.to_thread(crossns, "stats", "a", "--interval", "0.1")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert re.match(r"routeTables/a  [0-9-]+ [0-9:]+ UTC\nlinks:\n", shown.stdout)
    assert re.search(r"^  lo +[0-9.]+ B/s +", shown.stdout, re.MULTILINE)
    assert "\x1b" not in shown.stdout


async def test_scripts_get_totals_and_rates(device: Device) -> None:
    await device.apply(doc("routeTables/a"))
    told = json.loads((await asyncio.to_thread(crossns, "stats", "a", "--interval", "0.1", "-o", "json")).stdout)
    assert told["statistics"]["name"] == "routeTables/a"
    assert [link["link"] for link in told["statistics"]["links"]] == ["lo"]
    assert 0.09 < told["seconds"] < 2
    assert told["perSecond"]["links"][0]["received"]["bytesTotal"] >= 0


async def test_table_that_is_not_there_is_an_error(device: Device) -> None:
    shown = await asyncio.to_thread(crossns, "stats", "none")
    assert (shown.returncode, shown.stdout) == (1, "")
    assert "routeTables/none" in shown.stderr
