"""The command line as a person uses it: commands to their end, and `crossns up` in a terminal of its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from crossns.testing import sandbox

ROOT = Path(__file__).parents[2]
CROSSNS = (sys.executable, "-P", "-m", "crossns.cli")
ENVIRON = {**os.environ, "PYTHONPATH": str(ROOT)}
# The tests run in a sandbox; what makes its own, as it does for a person, must not know.
OUTSIDE = {name: value for name, value in ENVIRON.items() if name != sandbox.VARIABLE}
TIMEOUT_S = 60
_POLL_S = 0.02


def crossns(*argv: str, stdin: str = "", environ: Mapping[str, str] = ENVIRON) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CROSSNS, *argv], input=stdin, capture_output=True, text=True, timeout=TIMEOUT_S, env=environ, cwd=ROOT, check=False
    )


def done(*argv: str, stdin: str = "") -> str:
    """The output of a command that must succeed."""
    completed = crossns(*argv, stdin=stdin)
    assert completed.returncode == 0, completed.stderr
    return completed.stdout


class Up:
    """A running `crossns up` and what it printed."""

    def __init__(self, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
        self.process = process
        self._log = log

    @property
    def text(self) -> str:
        self._log.seek(0)
        return self._log.read().decode()

    def wait_until_printed(self, words: str) -> None:
        wait_until(lambda: words in self.text or self.process.poll() is not None)
        assert words in self.text, self.text

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Its exit status."""
        self.process.send_signal(number)
        return self.process.wait(TIMEOUT_S)


@contextmanager
def up(*options: str, environ: Mapping[str, str] = ENVIRON) -> Iterator[Up]:
    """Ready; stopped at the end where the test did not."""
    with TemporaryFile() as log:
        process = subprocess.Popen([*CROSSNS, "up", *options], stdout=log, stderr=log, env=environ, start_new_session=True)
        started = Up(process, log)
        try:
            started.wait_until_printed("crossns is ready")
            yield started
        finally:
            if process.poll() is None:
                started.stop(signal.SIGTERM)


def wait_until(is_so: Callable[[], object], timeout_s: float = TIMEOUT_S) -> None:
    """Until `is_so()` is true."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(_POLL_S)
