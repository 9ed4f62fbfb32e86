"""One agent per table: forked by the zygote, adopted from its record, forked again when it ends.

Called by the launcher. An agent writes its record itself and keeps it locked while it lives, so there is never a second one
in a namespace; the launcher only reads. The zygote dies with the launcher, agents do not.
"""

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from crossns import errors, pidfd
from services.nsmanager.launcher import records, watch
from services.nsmanager.launcher.loop import Reactor, Timer

# An agent that has not come up by then is forked once more.
_READY_S = 2.0
# What a caller waits for an agent at most.
_PATIENCE_S = 5.0
_REQUEST_MAX = 4096
_log = logging.getLogger(__name__)

Done = Callable[[errors.CrossnsError | None], None]


class Fork(msgspec.Struct, frozen=True, tag=True):
    """To the zygote: an agent for this table, in the namespace whose mount is `path` ("": the zygote's own). `restarts`: how many
    the namespace has had before."""

    table: str
    cookie: int
    path: str
    restarts: int = 0


class Look(msgspec.Struct, frozen=True, tag=True):
    """To the zygote: a process that looks at the whole device and writes what it sees to the descriptor beside this."""


class Ready(msgspec.Struct, frozen=True):
    """From a new agent: it is recorded and its socket is open."""

    table: str
    cookie: int


@dataclass(eq=False, slots=True)
class Agent:
    """What the launcher knows of one table's agent. `pid` 0: none answers now."""

    fork: Fork
    pid: int = 0
    restarts: int = 0
    crashes: int = 0
    since: float = 0.0
    watched: watch.Watch | None = None
    timer: Timer | None = None
    # Whether a zygote was asked for it since the last one ended.
    is_asked: bool = False
    waiting: list[Done] = field(default_factory=list)
    # Set once the agent shall end and stay away.
    leaving: Callable[[], None] | None = None


class Agents:
    """`started(table, pid, restarts)` is called when one answers, `exited(table, pid)` when one ended that nobody sent away."""

    def __init__(
        self,
        reactor: Reactor,
        directory: Path,
        started: Callable[[str, int, int], None],
        exited: Callable[[str, int], None],
    ) -> None:
        self._reactor = reactor
        self._records = directory
        self._started = started
        self._exited = exited
        self._agents: dict[str, Agent] = {}
        self._zygote: socket.socket | None = None
        # How many zygotes ended early, in a row.
        self._crashes = 0

    def get(self, table: str) -> Agent | None:
        return self._agents.get(table)

    def ensure(self, fork: Fork, done: Done) -> None:
        """Adopt or fork the agent; `done(None)` when it answers, an error when it does not in time."""
        agent = self._agents.get(fork.table)
        if agent and agent.fork.cookie != fork.cookie and not agent.leaving:
            # Its namespace was destroyed under it, and it may still be in what is left.
            self.end(fork.table, agent.fork.cookie, lambda: self.ensure(fork, done))
            return
        if agent and agent.leaving:
            done(errors.AgentUnavailable("AGENT_UNAVAILABLE", f"the former agent of {fork.table} is still ending: try again"))
            return
        if agent is None:
            agent = self._agents[fork.table] = Agent(fork)
            if not self._adopt(agent):
                agent.restarts = self._lost(fork)
                self._request(agent)
        if agent.pid:
            done(None)
        else:
            self._await(agent, done)

    def end(self, table: str, cookie: int, done: Callable[[], None]) -> None:
        """End the agent for good, its record and socket with it."""
        agent = self._agents.get(table)
        if agent is None:
            # One of an earlier life, in a namespace that was listed but not adopted, cannot be: adoption comes first.
            done()
            return

        def gone() -> None:
            self._agents.pop(table, None)
            records.remove(self._record(table, cookie))
            done()

        _settle(agent, errors.AgentUnavailable("AGENT_UNAVAILABLE", f"{table} is being destroyed"))
        if agent.timer:
            agent.timer.cancel()
        if self._find(agent) and agent.watched:
            agent.leaving = gone
            agent.watched.end()
        else:
            # It may be coming up, unrecorded yet: found by its record later, it is killed then.
            del self._agents[table]
            self._reactor.call_later(_READY_S, lambda: self._clear(table, cookie))
            done()

    def _record(self, table: str, cookie: int) -> Path:
        return self._records / f"{table}.{cookie}"

    def _lost(self, fork: Fork) -> int:
        """How many agents the namespace has had: one that died while no launcher was there has left its record."""
        lost = records.read(self._record(fork.table, fork.cookie), records.Process)
        return lost.restarts + 1 if lost else 0

    def _adopt(self, agent: Agent) -> bool:
        """Whether an agent of the namespace lives: it is watched from now on, and told of."""
        if not self._find(agent):
            return False
        self._started(agent.fork.table, agent.pid, agent.restarts)
        _settle(agent, None)
        return True

    def _find(self, agent: Agent) -> bool:
        """Whether an agent of the namespace lives; it is watched from now on."""
        if agent.watched:
            return True
        found = records.find(self._record(agent.fork.table, agent.fork.cookie))
        if found is None:
            return False
        process, fd = found
        agent.pid, agent.since = process.pid, time.monotonic()
        # One that a former launcher had forked knows its number.
        agent.restarts = max(agent.restarts, process.restarts)
        agent.watched = watch.Watch(self._reactor, fd, lambda _status: self._on_end(agent))
        return True

    def _await(self, agent: Agent, done: Done) -> None:
        def too_late() -> None:
            if done in agent.waiting:
                agent.waiting.remove(done)
                done(errors.AgentUnavailable("AGENT_UNAVAILABLE", f"the agent of {agent.fork.table} did not come up"))

        agent.waiting.append(done)
        self._reactor.call_later(_PATIENCE_S, too_late)

    def _request(self, agent: Agent) -> None:
        """Ask the zygote for the agent, until it is there."""
        if agent.pid or self._adopt(agent):
            return
        try:
            self._living_zygote().send(msgspec.json.encode(msgspec.structs.replace(agent.fork, restarts=agent.restarts)))
        except OSError as error:
            _log.warning("the zygote does not take a request: %s", error)
        agent.is_asked = True
        agent.timer = self._reactor.call_later(_READY_S, lambda: self._request(agent))

    def look(self, out: int) -> None:
        """Have somebody look at the device and write what he sees to `out`; AgentUnavailable where nobody can be sent."""
        try:
            socket.send_fds(self._living_zygote(), [msgspec.json.encode(Look())], [out])
        except OSError as error:
            message = f"nobody can be sent to look at the device: {error}"
            raise errors.AgentUnavailable("LAUNCHER_UNAVAILABLE", message) from error

    def start_zygote(self) -> None:
        """Have it preloaded before the first table asks."""
        self._living_zygote()

    def _living_zygote(self) -> socket.socket:
        if self._zygote is None:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            ours.settimeout(0)
            theirs.set_inheritable(True)
            with theirs:
                argv = [sys.executable, "-m", "services.nsmanager.agent", str(theirs.fileno())]
                pid = os.posix_spawn(sys.executable, argv, os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
            self._zygote = ours
            self._reactor.add_reader(ours.fileno(), lambda: self._on_message(ours))
            since = time.monotonic()
            watch.Watch(self._reactor, os.pidfd_open(pid), lambda status: self._on_zygote_end(ours, since, status))
        return self._zygote

    def _on_zygote_end(self, zygote: socket.socket, since: float, status: int) -> None:
        # It dies only when killed.
        _log.warning("the zygote ended with status %d", status)
        self._reactor.remove_reader(zygote.fileno())
        zygote.close()
        self._zygote = None
        self._crashes = self._crashes + 1 if time.monotonic() - since < watch.SETTLED_S else 1
        self._reactor.call_later(watch.rest_s(self._crashes), self._replace_zygote)

    def _replace_zygote(self) -> None:
        """What the former one was asked for has ended with it, unless it is there."""
        self.start_zygote()
        for agent in list(self._agents.values()):
            if agent.is_asked and agent.timer:
                agent.timer.cancel()
                self._request(agent)

    def _on_message(self, zygote: socket.socket) -> None:
        try:
            message = zygote.recv(_REQUEST_MAX)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if message:
            self._on_ready(msgspec.json.decode(message, type=Ready))
        else:
            self._reactor.remove_reader(zygote.fileno())

    def sweep(self) -> None:
        """Kill agents of namespaces that were destroyed while they were coming up, and drop the records of the dead."""
        expected = {self._record(agent.fork.table, agent.fork.cookie) for agent in self._agents.values()}
        for path in set(self._records.iterdir()) - expected:
            _kill(path)

    def _on_ready(self, ready: Ready) -> None:
        # Where its table was destroyed while it was coming up.
        self._clear(ready.table, ready.cookie)
        agent = self._agents.get(ready.table)
        if agent and agent.fork.cookie == ready.cookie and not agent.pid and self._adopt(agent) and agent.timer:
            agent.timer.cancel()

    def _clear(self, table: str, cookie: int) -> None:
        """Kill an agent that nobody wants any more."""
        agent = self._agents.get(table)
        if agent is None or agent.fork.cookie != cookie:
            _kill(self._record(table, cookie))

    def _on_end(self, agent: Agent) -> None:
        pid, agent.pid, agent.watched, agent.is_asked = agent.pid, 0, None, False
        if agent.leaving:
            agent.leaving()
            return
        _log.warning("agent of %s (pid %d) ended", agent.fork.table, pid)
        self._exited(agent.fork.table, pid)
        lived_s = time.monotonic() - agent.since
        agent.crashes = agent.crashes + 1 if lived_s < watch.SETTLED_S else 1
        agent.restarts += 1
        agent.timer = self._reactor.call_later(watch.rest_s(agent.crashes), lambda: self._request(agent))


def _settle(agent: Agent, outcome: errors.CrossnsError | None) -> None:
    waiting, agent.waiting = agent.waiting, []
    for done in waiting:
        done(outcome)


def _kill(record: Path) -> None:
    found = records.find(record)
    if found:
        pidfd.send(found[1], signal.SIGKILL)
        os.close(found[1])
    records.remove(record)
