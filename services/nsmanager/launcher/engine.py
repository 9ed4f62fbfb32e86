"""One engine: its process started, reloaded, watched and started again; a configuration counts once it has come up with it.

Called by the launcher. The invariant: the file beside the engine's directory is the last configuration that the engine
accepted, and while that file is there the engine runs; a refused one never touches it. While another one is on trial, the
accepted one is kept beside it (empty: there was none), so that a launcher which dies meanwhile knows.
"""

import collections
import hashlib
import logging
import os
import signal
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from crossns import errors, operation, pidfd
from crossns.layout import Layout
from services.nsmanager.launcher import check, confined, master, place, records, watch, words
from services.nsmanager.launcher.loop import Reactor, Timer

# How long an engine may take to come up with a configuration, and how often it is asked: 5,000 vServices take 0.6 s.
_START_MAX_S = 10.0
_START_STEP_S = 0.01
_log = logging.getLogger(__name__)

Done = Callable[[operation.Engine | errors.CrossnsError], None]


@dataclass(frozen=True, slots=True, eq=False)
class _Trial:
    """A configuration that the engine shall come up with."""

    done: Done


class Engine:
    """HAProxy. `exited(pid, status)` is called for each end that nobody asked for; it is back by itself. `reloaded()` is called
    each time that it has come up with a configuration, whoever wanted that."""

    name = "haproxy"

    def __init__(
        self, reactor: Reactor, layout: Layout, exited: Callable[[int, int], None], reloaded: Callable[[], None]
    ) -> None:
        self._reactor = reactor
        self._layout = layout
        self._exited = exited
        self._reloaded = reloaded
        self._uid = layout.uid(self.name)
        self._config = place.engine_config(layout)
        self._candidate = self._config.with_suffix(".candidate")
        self._former = self._config.with_suffix(".former")
        self._checks = check.Check(reactor, layout, self._candidate)
        self._record = place.engine_record(layout)
        self._words = words.Words(reactor, self._record.with_suffix(".words"), self.name)
        self._process: records.Process | None = None
        self._watch: watch.Watch | None = None
        self._timer: Timer | None = None
        self._since = 0.0
        self._crashes = self.restarts = self.reloads = 0
        # What is asked for is done one after the other.
        self._waiting: collections.deque[Callable[[], None]] = collections.deque()
        self._busy = False
        self._trial: _Trial | None = None
        self._limit: Timer | None = None
        self._leaving: dict[records.Process, Callable[[], None]] = {}

    def recover(self) -> None:
        """Adopt the running engine, start the one that should run, end the one that should not."""
        self._words.open()
        found = records.find(self._record)
        if found:
            self._adopt(*found)
        else:
            end_members(records.read(self._record, records.Process), self._uid)
        if not self._config.exists():
            self.stop(lambda: None)
        elif self._former.exists():
            # Nobody saw how it went.
            self._queue(lambda: self._try(lambda _: None))
        elif self._process is None:
            self._start()

    def shown(self) -> operation.Engine | None:
        """None where it was never asked for."""
        content = _content(self._former)
        if content is None:
            content = _content(self._config)
        if content is None:
            return None
        digest = hashlib.sha256(content).hexdigest() if content else ""
        pid = self._process.pid if self._process else 0
        return operation.Engine(engine=self.name, pid=pid, config_digest=digest, restarts=self.restarts, reloads=self.reloads)

    def apply(self, config: str, done: Done) -> None:
        """Start or reload with `config`: the engine itself says best whether it takes it."""

        def admitted() -> None:
            error = self._checks.admit(config)
            if error:
                self._answer(done, error)
            else:
                self._run(done)

        self._queue(admitted)

    def save(self, config: str, done: Done) -> None:
        """Check `config` and keep it for the next start; what runs is left alone."""

        def checked(error: errors.CrossnsError | None) -> None:
            if error:
                self._answer(done, error)
            else:
                self._keep(done)

        self._queue(lambda: self._checks.run(config, checked))

    def end_workers(self, pids: Collection[int], done: Callable[[], None]) -> None:
        """Those of them that a reload has replaced, as the master says."""

        def asked(state: master.State | None) -> None:
            replaced = state.replaced.intersection(pids) if state else ()
            for member in confined.session_members(self._process, self._uid) if self._process else ():
                if member.pid in replaced:
                    _signal(member, signal.SIGTERM)
            done()

        master.ask(self._reactor, self._layout.haproxy_master, asked)

    def stop(self, done: Callable[[], None]) -> None:
        """End it for good; `done` once it is gone."""
        self._queue(lambda: self._stop(done))

    def _queue(self, job: Callable[[], None]) -> None:
        self._waiting.append(job)
        if not self._busy:
            self._next()

    def _next(self) -> None:
        self._busy = bool(self._waiting)
        if self._busy:
            self._waiting.popleft()()

    def _answer(self, done: Done, outcome: operation.Engine | errors.CrossnsError) -> None:
        done(outcome)
        self._next()

    def _stop(self, done: Callable[[], None]) -> None:
        records.remove(self._config)
        records.remove(self._former)
        if self._timer:
            self._timer.cancel()

        def gone() -> None:
            done()
            self._next()

        self._end(gone)

    def _end(self, gone: Callable[[], None]) -> None:
        process, self._process, self._watch = self._process, None, None
        if process is None:
            gone()
            return
        self._leaving[process] = gone
        end_members(process, self._uid)

    def _keep(self, done: Done) -> None:
        if self._process is None:
            self._run(done)
        else:
            self._candidate.replace(self._config)
            self._answer(done, self.shown() or _vanished())

    def _run(self, done: Done) -> None:
        """Run with the candidate; where the engine does not, the former file is its configuration again."""
        records.remove(self._former)
        if self._config.exists():
            # Never without a configuration: a launcher that comes back then would end the engine.
            self._former.hardlink_to(self._config)
        else:
            self._former.touch()
        self._candidate.replace(self._config)
        self._try(done)

    def _try(self, done: Done) -> None:
        self._words.forget()
        trial = self._trial = _Trial(done)
        self._limit = self._reactor.call_later(_START_MAX_S, lambda: self._reject(trial))
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

        self._ask(trial, asked)

    def _await(self, trial: _Trial, reloads: int) -> None:
        """Until the master counts more than `reloads`."""

        def asked(state: master.State | None) -> None:
            if state is None or state.reloads <= reloads:
                self._later(trial, lambda: self._await(trial, reloads))
            elif state.failed:
                self._reject(trial)
            else:
                self._close_trial()
                records.remove(self._former)
                self._reloaded()
                self._answer(trial.done, self.shown() or _vanished())

        self._ask(trial, asked)

    def _ask(self, trial: _Trial, asked: master.Done) -> None:
        """The answer is of no interest once the trial is over."""
        path = self._layout.haproxy_master
        master.ask(self._reactor, path, lambda state: asked(state) if trial is self._trial else None)

    def _later(self, trial: _Trial, again: Callable[[], None]) -> None:
        self._reactor.call_later(_START_STEP_S, lambda: again() if trial is self._trial else None)

    def _reject(self, trial: _Trial) -> None:
        """The former file counts again; where there was none, there is no engine."""
        self._close_trial()
        outcome = words.refusal("haproxy does not run with the configuration", self._words.said())
        if _content(self._former):
            self._former.replace(self._config)
            # It stays where both were the same file: rename(2).
            records.remove(self._former)
            self._answer(trial.done, outcome)
        else:
            records.remove(self._config)
            records.remove(self._former)
            self._end(lambda: self._answer(trial.done, outcome))

    def _close_trial(self) -> None:
        self._trial = None
        if self._limit:
            self._limit.cancel()

    def _start(self) -> None:
        control = f"{self._layout.haproxy_master},mode,660,level,admin"
        argv = [check.HAPROXY, "-W", "-f", os.fspath(self._config), "-S", control]
        program = confined.Program(argv, self._uid, record=self._record, output=self._words.fd)
        pid = confined.start(program, self._layout)
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
        if self._trial:
            self._reject(self._trial)

    def _restart(self) -> None:
        if self._process is None and self._config.exists():
            self._start()


def end_members(leader: records.Process | None, uid: int) -> None:
    """Kill the engine; workers must not go on behind a master that is gone: they would share the listeners of the next."""
    for member in confined.session_members(leader, uid) if leader else ():
        _signal(member, signal.SIGKILL)


def _signal(process: records.Process, number: signal.Signals) -> None:
    fd = pidfd.open_process(process.pid, process.started)
    if fd is not None:
        pidfd.send(fd, number)
        os.close(fd)


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _vanished() -> errors.EngineUnavailable:
    return errors.EngineUnavailable("ENGINE_UNAVAILABLE", "the configuration was taken away while haproxy took it: try again")
