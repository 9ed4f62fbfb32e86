"""A HAProxy of values, with its launcher: takes a configuration whole or not at all, changes servers while it runs, and starts
again with the text that was kept. It says no more than the real one does.

What is written here of HAProxy 2.6 was seen with the real one; the words for its runtime CLI are those of the driver.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from services.proxy import model, plan, render
from services.proxy.driver import master
from services.proxy.plan import blame
from tests.unit.proxy import sample

Line = tuple[str, str]

_SECTION = re.compile(r"(?:frontend|backend) (\S+) from (?:tcp|http)")
_BIND = re.compile(r"    bind ipv[46]@(\S+):(\d+)(?:-(\d+))? namespace (\S+) name \4 ")
_SERVER = re.compile(
    r"    server (\S+) ipv[46]@([0-9.]+|\[[0-9a-f:]+\])(?::(\d+))? id (\d+) namespace (\S+)(?: send-proxy(?:-v2)?)?"
    r" weight (\d+)(?: maxconn (\d+))?( disabled)?"
)
_NAMESPACE = re.compile(r"    (?:bind|server) .* namespace (\S+)")
_SET = re.compile(r"set (?:maxconn )?server (\S+)/(\S+) (?:(addr|weight|state) )?(\S+)(?: port (\d+))?")


@dataclass
class Worker:
    """A HAProxy process that has read `config`. `connections`: by line and where they go; `counted`: all that a line ever had."""

    config: str
    structure: str = ""
    listeners: frozenset[render.Part] = frozenset()
    servers: dict[Line, tuple[int, render.Server]] = field(default_factory=dict)
    connections: Counter[tuple[Line, render.Part]] = field(default_factory=Counter)
    counted: Counter[Line] = field(default_factory=Counter)

    @property
    def seen(self) -> Mapping[str, Mapping[str, plan.Seen]]:
        result: dict[str, dict[str, plan.Seen]] = {}
        now: Counter[Line] = Counter()
        for (line, _), count in self.connections.items():
            now[line] += count
        for (section, name), (number, server) in self.servers.items():
            shown = plan.Seen(server, number, was_used=self.counted[section, name] > 0, is_busy=now[section, name] > 0)
            result.setdefault(section, {})[name] = shown
        return result

    def to(self, part: render.Part) -> int:
        """Connections that there are to a member."""
        return sum(count for (_, each), count in self.connections.items() if each == part)

    def command(self, words: str) -> None:
        """One of the runtime CLI."""
        found = _SET.fullmatch(words)
        assert found, f"not a command of HAProxy: {words}"
        section, name, what, value, port = found.groups()
        number, server = self.servers[section, name]
        self.servers[section, name] = number, changed(server, what, value, port)


def changed(server: render.Server, what: str | None, value: str, port: str | None) -> render.Server:
    """The server after `set server ... <what> <value> [port <port>]`, or `set maxconn server ... <value>`."""
    match what:
        case "addr":
            assert port not in {None, "0"}
            assert not server.socket.endswith(":0"), "HAProxy cannot be led back from it"
            return dataclasses.replace(server, socket=f"[{value}]:{port}" if ":" in value else f"{value}:{port}")
        case "weight":
            assert 0 <= int(value) <= 256
            return dataclasses.replace(server, weight=int(value))
        case "state":
            return dataclasses.replace(server, enabled={"ready": True, "maint": False}[value])
    return dataclasses.replace(server, max_connections=int(value))


def read(config: str) -> Worker:
    """What HAProxy makes of a text."""
    found = re.search(r"^    description (\S+)$", config, re.MULTILINE)
    worker = Worker(config, found[1] if found else "")
    listeners: set[render.Part] = set()
    section = ""
    for line in config.splitlines():
        if title := _SECTION.fullmatch(line):
            section = title[1]
        elif bind := _BIND.match(line):
            host, first, last, namespace = bind.groups()
            ports = range(int(first), int(last or first) + 1)
            listeners.update(render.Part(section, namespace, f"{host}:{port}") for port in ports)
        elif server := _SERVER.fullmatch(line):
            name, host, port, number, _, weight, limit, disabled = server.groups()
            assert (section, name) not in worker.servers
            shown = render.Server(f"{host}:{port or 0}", int(weight), not disabled, int(limit or 0))
            worker.servers[section, name] = int(number), shown
        else:
            assert not line.startswith(("    bind", "    server", "frontend", "backend")), line
    worker.listeners = frozenset(listeners)
    return worker


def _ports(part: render.Part) -> frozenset[render.Part]:
    """The listeners of a `bind` line."""
    host, _, ports = part.socket.rpartition(":")
    first, _, last = ports.partition("-")
    numbers = range(int(first), int(last or first) + 1)
    return frozenset(dataclasses.replace(part, socket=f"{host}:{port}") for port in numbers)


@dataclass
class Engine:
    """`held`: listeners that cannot be opened; `faulty`: parts that the check of the file names; `is_broken`: it starts with
    nothing, and says nothing; `starts`: texts it was given."""

    held: frozenset[render.Part] = frozenset()
    faulty: frozenset[render.Part] = frozenset()
    is_broken: bool = False
    observed: plan.Observed = field(
        default_factory=lambda: plan.Observed(sample.LIMITS, namespaces=frozenset(sample.TABLES.values()))
    )
    starts: list[str] = field(default_factory=list)
    # Every set of listeners that was ever open.
    served: list[frozenset[render.Part]] = field(default_factory=list)
    # The current one first; the others only finish what they have.
    workers: list[Worker] = field(default_factory=list)
    # What it would start with.
    kept: str = ""

    @property
    def servers(self) -> Mapping[Line, render.Server]:
        """Of the current worker."""
        return {line: server for line, (_, server) in self.workers[0].servers.items()} if self.workers else {}

    @property
    def ids(self) -> Mapping[Line, int]:
        return {line: number for line, (number, _) in self.workers[0].servers.items()} if self.workers else {}

    def apply(self, op: plan.Operation) -> bool:
        """Whether it worked."""
        match op:
            case plan.StopEngine():
                self.workers, self.kept = [], ""
                self._look(running=False)
            case plan.StartEngine():
                return self._start(op)
            case plan.SaveEngine():
                if words := self._against(op.config):
                    raise AssertionError(f"what is kept would not start: {words}")
                self.kept = op.config
                self._look()
            case plan.SetServer():
                self._set(op)
        return True

    def crash(self) -> None:
        """All of it is gone; the launcher starts it again with what was kept, if HAProxy takes it."""
        self.workers = [] if self._against(self.kept) else [read(self.kept)]
        self._look()

    def carry(self, section: str, name: str, connections: int) -> None:
        """That many clients came since, and stay."""
        line = (section, name)
        part = render.Part(section, name.partition(".")[2], self.servers[line].socket)
        self.workers[0].connections[line, part] += connections
        self.workers[0].counted[line] += connections
        self._look()

    def end(self, parts: frozenset[render.Part]) -> None:
        """Of all workers."""
        for worker in self.workers:
            worker.connections = Counter({each: count for each, count in worker.connections.items() if each[1] not in parts})
        self._look()

    def settle(self, desired: model.Desired, rounds: int = 60) -> int:
        """Rounds until nothing is left to do."""
        for count in range(rounds):
            ops = plan.plan(desired, self.observed)
            if not ops:
                return count
            for op in ops:
                self.apply(op)
        raise AssertionError(f"not settled after {rounds} rounds: {plan.plan(desired, self.observed)}")

    def forget(self) -> None:
        """It is time for another try."""
        self.observed = dataclasses.replace(self.observed, refused={})

    def enter(self, namespaces: frozenset[str]) -> None:
        """Those that there are from now on."""
        self.observed = dataclasses.replace(self.observed, namespaces=namespaces)

    def _against(self, config: str) -> str:
        """What the check of a text says."""
        numbers = [number for number, part in blame.parts(config).items() if part in self.faulty]
        for number, line in enumerate(config.splitlines(), start=1):
            found = _NAMESPACE.match(line)
            if found and found[1] not in self.observed.namespaces:
                numbers.append(number)
        return "; ".join(f"config : parsing [/run/x.cfg:{number}] : no" for number in numbers)

    def _opening(self, config: str) -> str:
        """What is said of the listeners that cannot be opened: each is tried, and named where it stands."""
        numbers = [number for number, part in blame.parts(config).items() if _ports(part) & self.held]
        words = "cannot bind socket (Address already in use)"
        return "; ".join(f"Binding [/run/x.cfg:{number}] for frontend x: {words} for [10.0.0.1:80]" for number in numbers)

    def _start(self, op: plan.StartEngine) -> bool:
        self.starts.append(op.config)
        if words := self._against(op.config) or self._opening(op.config):
            self._look(refused=dict(self.observed.refused) | dict(plan.blamed(op, words)))
            return False
        if self.is_broken:
            return False
        self.workers = [read(op.config), *self.workers]
        self.end(op.ended)
        self.kept = op.config
        self._look(running=True)
        return True

    def _set(self, op: plan.SetServer) -> None:
        worker = self.workers[0]
        assert worker.servers[op.section, op.name][1] == op.before
        for words in master.commands(op):
            worker.command(words)
        self.end(op.ended)
        self._look()

    def _look(self, **fields: object) -> None:
        """What the driver sees of it now."""
        worker = self.workers[0] if self.workers else Worker("")
        self.observed = dataclasses.replace(
            self.observed,
            digest=plan.digest(self.kept) if self.kept else "",
            structure=worker.structure,
            listeners=worker.listeners,
            servers=worker.seen,
            **fields,  # type: ignore[arg-type]
        )
        self.served.append(self.observed.listeners)
