"""Looks at a configuration before HAProxy sees it, and asks HAProxy about one that is only kept.

Called by `engine`. The directives are looked at first: HAProxy itself never sees a file that may not run. HAProxy is asked in a
process of its own, confined as the engine is, that never holds up the loop. What it shall run with it is not asked about: its
start or reload tells as much, and of the listeners, too.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path

from crossns import errors
from crossns.layout import Layout
from services.nsmanager.launcher import confined, directive, records, watch, words
from services.nsmanager.launcher.loop import Reactor

HAPROXY = "/usr/sbin/haproxy"
# Ends a check that hangs: one with 5,000 vServices takes less than a second.
_MAX_S = 15.0

Done = Callable[[errors.CrossnsError | None], None]


class Check:
    def __init__(self, reactor: Reactor, layout: Layout, candidate: Path) -> None:
        self._reactor = reactor
        self._layout = layout
        self._candidate = candidate
        # Sections of the last configuration whose directives were looked at.
        self._passed: frozenset[bytes] = frozenset()

    def admit(self, config: str) -> errors.CrossnsError | None:
        """Write `config` to the candidate, or say why it may not run."""
        try:
            self._passed = directive.check(config, self._layout.engine_dir("haproxy"), self._passed)
            if not os.access(HAPROXY, os.X_OK):
                raise _unavailable(f"{HAPROXY} is not there: install haproxy")
            records.write_bytes(self._candidate, config.encode(), mode=0o640, gid=self._layout.uid("haproxy"))
        except OSError as error:
            return _unavailable(f"cannot check a configuration: {error}")
        except errors.CrossnsError as error:
            return error
        return None

    def run(self, config: str, done: Done) -> None:
        """The same, and call `done` with None where HAProxy takes the candidate, with the error where it does not."""
        error = self.admit(config)
        if error:
            done(error)
            return
        try:
            self._ask(done)
        except OSError as failure:
            done(_unavailable(f"cannot check a configuration: {failure}"))

    def _ask(self, done: Done) -> None:
        output = os.memfd_create("check", os.MFD_CLOEXEC)
        argv = [HAPROXY, "-c", "-f", os.fspath(self._candidate)]
        pid = confined.start(confined.Program(argv, self._layout.uid("haproxy"), output=output), self._layout)

        def ended(status: int) -> None:
            limit.cancel()
            said = os.pread(output, words.MAX, 0).decode(errors="replace")
            os.close(output)
            done(_outcome(status, said))

        checking = watch.Watch(self._reactor, os.pidfd_open(pid), ended)
        limit = self._reactor.call_later(_MAX_S, lambda: checking.signal(signal.SIGKILL))


def _outcome(status: int, said: str) -> errors.CrossnsError | None:
    if status == 0:
        return None
    if status == confined.FAILED:
        return _unavailable(errors.bounded(said))
    return words.refusal("haproxy refused the configuration", said or f"the check ended with status {status}")


def _unavailable(message: str) -> errors.EngineUnavailable:
    return errors.EngineUnavailable("ENGINE_UNAVAILABLE", message)
