"""One engine: its configuration checked before it counts, its process started, reloaded, watched and started again.

Called by the launcher. The invariant: the file beside the engine's directory is the last configuration that the engine
accepted, and while that file is there the engine runs; a refused one never touches it.
"""

import collections
import hashlib
import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from crossns import errors, operation, pidfd
from crossns.layout import Layout
from services.nsmanager.launcher import confined, directive, master, place, records, watch
from services.nsmanager.launcher.loop import Reactor, Timer

_HAPROXY = "/usr/sbin/haproxy"
# Ends a check that hangs: one with 5,000 vServices takes less than a second.
_CHECK_MAX_S = 15.0
# How long an engine may take to come up with a configuration, and how often it is asked: 5,000 vServices take 0.6 s.
_START_MAX_S = 10.0
_START_STEP_S = 0.01
_WORDS_MAX = 16 * 1024
_log = logging.getLogger(__name__)

Done = Callable[[operation.Engine | errors.CrossnsError], None]


@dataclass(frozen=True, slots=True)
class _Trial:
    """A configuration that the engine shall come up with, before `deadline` and without ending once more."""

    done: Done
    restarts: int
    deadline: float


class Engine:
    """HAProxy. `exited(pid, status)` is called for each end that nobody asked for; it is back by itself."""

    name = "haproxy"

    def __init__(self, reactor: Reactor, layout: Layout, exited: Callable[[int, int], None]) -> None:
        self._reactor = reactor
        self._layout = layout
        self._exited = exited
        self._uid = layout.uid(self.name)
        self._config = place.engine_config(layout)
        self._candidate = self._config.with_suffix(".candidate")
        self._former = self._config.with_suffix(".former")
        self._record = place.engine_record(layout)
        self._process: records.Process | None = None
        self._watch: watch.Watch | None = None
        self._timer: Timer | None = None
        self._since = 0.0
        self._crashes = self.restarts = self.reloads = 0
        self._queue: collections.deque[tuple[str, Done]] = collections.deque()
        self._checking = False
        self._leaving: dict[records.Process, Callable[[], None]] = {}

    def recover(self) -> None:
        """Adopt the running engine, start the one that should run, end the one that should not."""
        found = records.find(self._record)
        if found:
            self._adopt(*found)
        if not self._config.exists():
            self.stop(lambda: None)
        elif self._process is None:
            end_members(records.read(self._record, records.Process), self._uid)
            self._start()

    def shown(self) -> operation.Engine | None:
        """None where it was never asked for."""
        try:
            digest = hashlib.sha256(self._config.read_bytes()).hexdigest()
        except FileNotFoundError:
            return None
        pid = self._process.pid if self._process else 0
        return operation.Engine(engine=self.name, pid=pid, config_digest=digest, restarts=self.restarts, reloads=self.reloads)

    def apply(self, config: str, done: Done) -> None:
        """Check `config`, then start or reload with it; one after the other."""
        self._queue.append((config, done))
        if not self._checking:
            self._check_next()

    def stop(self, done: Callable[[], None]) -> None:
        """End it for good; `done` once it is gone."""
        records.remove(self._config)
        if self._timer:
            self._timer.cancel()
        process, self._process, self._watch = self._process, None, None
        if process is None:
            done()
            return
        self._leaving[process] = done
        end_members(process, self._uid)

    def _check_next(self) -> None:
        if not self._queue:
            return
        config, done = self._queue.popleft()
        self._checking = True
        try:
            directive.check(config, self._layout.engine_dir(self.name))
            self._check(config, done)
        except (errors.CrossnsError, OSError) as error:
            foreign = errors.EngineUnavailable("ENGINE_UNAVAILABLE", f"cannot check a configuration: {error}")
            self._checked(done, error if isinstance(error, errors.CrossnsError) else foreign)

    def _check(self, config: str, done: Done) -> None:
        if not os.access(_HAPROXY, os.X_OK):
            raise errors.EngineUnavailable("ENGINE_UNAVAILABLE", f"{_HAPROXY} is not there: install haproxy")
        records.write_bytes(self._candidate, config.encode(), mode=0o640, gid=self._uid)
        words = os.memfd_create("check", os.MFD_CLOEXEC)
        argv = [_HAPROXY, "-c", "-f", os.fspath(self._candidate)]
        pid = confined.start(confined.Program(argv, self._uid, output=words), self._layout)

        def ended(status: int) -> None:
            limit.cancel()
            said = os.pread(words, _WORDS_MAX, 0).decode(errors="replace")
            os.close(words)
            if status == 0:
                self._accept(done)
            else:
                self._checked(done, _refused(said or f"the check ended with status {status}"))

        checking = watch.Watch(self._reactor, os.pidfd_open(pid), ended)
        limit = self._reactor.call_later(_CHECK_MAX_S, lambda: checking.signal(signal.SIGKILL))

    def _checked(self, done: Done, outcome: operation.Engine | errors.CrossnsError) -> None:
        self._checking = False
        done(outcome)
        self._check_next()

    def _accept(self, done: Done) -> None:
        """Run with the candidate; where the engine does not, the former file is its configuration again."""
        if self._config.exists():
            self._config.replace(self._former)
        self._candidate.replace(self._config)
        trial = _Trial(done, self.restarts, time.monotonic() + _START_MAX_S)
        if self._process is None:
            self._crashes = 0
            self._start()
            self._await(trial, -1)
        else:
            self.reloads += 1
            self._reload(trial)

    def _reload(self, trial: _Trial) -> None:
        """A master that is not up, or that reloads already, would miss the signal: it must answer first."""

        def asked(state: master.State | None) -> None:
            if state and self._watch:
                self._watch.signal(signal.SIGUSR2)
                self._await(trial, state.reloads)
            else:
                self._later(trial, lambda: self._reload(trial))

        master.ask(self._reactor, self._layout.haproxy_master, asked)

    def _await(self, trial: _Trial, reloads: int) -> None:
        """Until the master counts more than `reloads`."""

        def asked(state: master.State | None) -> None:
            if state is None or state.reloads <= reloads:
                self._later(trial, lambda: self._await(trial, reloads))
            elif state.failed:
                self._reject(trial)
            else:
                self._former.unlink(missing_ok=True)
                self._checked(trial.done, self.shown() or _did_not_come_up())

        master.ask(self._reactor, self._layout.haproxy_master, asked)

    def _later(self, trial: _Trial, again: Callable[[], None]) -> None:
        if self.restarts > trial.restarts or time.monotonic() > trial.deadline:
            self._reject(trial)
        else:
            self._reactor.call_later(_START_STEP_S, again)

    def _reject(self, trial: _Trial) -> None:
        if self._former.exists():
            self._former.replace(self._config)
        else:
            self._config.unlink(missing_ok=True)
        self._checked(trial.done, _did_not_come_up())

    def _start(self) -> None:
        control = f"{self._layout.haproxy_master},mode,660,level,admin"
        argv = [_HAPROXY, "-W", "-f", os.fspath(self._config), "-S", control]
        pid = confined.start(confined.Program(argv, self._uid, record=self._record), self._layout)
        self._adopt(records.Process(pid, pidfd.start_time(pid) or 0), os.pidfd_open(pid))

    def _adopt(self, process: records.Process, fd: int) -> None:
        self._process, self._since = process, time.monotonic()
        self._watch = watch.Watch(self._reactor, fd, lambda status: self._on_end(process, status))

    def _on_end(self, process: records.Process, status: int) -> None:
        if process in self._leaving:
            records.remove(self._record)
            self._leaving.pop(process)()
            return
        self._process = self._watch = None
        _log.warning("%s (pid %d) ended with status %d", self.name, process.pid, status)
        end_members(process, self._uid)
        self._exited(process.pid, status)
        self._crashes = self._crashes + 1 if time.monotonic() - self._since < watch.SETTLED_S else 1
        self.restarts += 1
        self._timer = self._reactor.call_later(watch.rest_s(self._crashes), self._restart)

    def _restart(self) -> None:
        if self._process is None and self._config.exists():
            self._start()


def end_members(leader: records.Process | None, uid: int) -> None:
    """Kill the engine; workers must not go on behind a master that is gone: they would share the listeners of the next."""
    for member in confined.session_members(leader, uid) if leader else ():
        fd = pidfd.open_process(member.pid, member.started)
        if fd is not None:
            pidfd.send(fd, signal.SIGKILL)
            os.close(fd)


def _did_not_come_up() -> errors.PermanentError:
    message = "haproxy took the configuration but did not come up with it: its words are in the launcher's log"
    return errors.PermanentError("ENGINE_REFUSED", message)


def _refused(words: str) -> errors.PermanentError:
    """With the alerts of what it said, as far as they fit."""
    alerts = " ".join(line for line in words.splitlines() if "[ALERT]" in line)
    return errors.PermanentError("ENGINE_REFUSED", f"haproxy refused the configuration: {errors.bounded(alerts or words)}")
