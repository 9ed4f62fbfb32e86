"""Asks HAProxy whether it takes a configuration, before the configuration counts.

Called by `engine`. The directives are looked at first: HAProxy itself never sees a file that may not run. The check is a process
of its own, confined as the engine is, and never holds up the loop.
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

    def run(self, config: str, done: Done) -> None:
        """Write `config` to the candidate and call `done` with None where HAProxy takes it, with the error where it does not."""
        try:
            self._passed = directive.check(config, self._layout.engine_dir("haproxy"), self._passed)
            if not os.access(HAPROXY, os.X_OK):
                raise _unavailable(f"{HAPROXY} is not there: install haproxy")
            records.write_bytes(self._candidate, config.encode(), mode=0o640, gid=self._layout.uid("haproxy"))
            self._ask(done)
        except OSError as error:
            done(_unavailable(f"cannot check a configuration: {error}"))
        except errors.CrossnsError as error:
            done(error)

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
