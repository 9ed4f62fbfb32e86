"""A device on which anything may change at any time, and what must hold whenever HAProxy has taken it.

A state machine of hypothesis: members, pools, frontends, vServices, tables and what is down come, change and go; HAProxy crashes;
the proxy is ended between any two operations. Run by test_slots.
"""

import dataclasses
import ipaddress
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from services.proxy import model, plan, render
from tests.unit.proxy.engine import Engine, Line

TABLES = ("routeTables/a", "routeTables/b")
DMZ = "routeTables/dmz"
ADDRESSES = [ipaddress.ip_address(text) for text in ("10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1")]
ALGORITHMS: list[model.Algorithm] = ["round robin", "least connections", "source hash", "random", "first"]

services = st.sampled_from(["vServices/v", "vServices/w"])
pools = st.sampled_from(["p", "p", "q"])
members = st.builds(
    model.Member,
    name=st.sampled_from(["k", "l", "m", "n", "o"]),
    table=st.sampled_from(TABLES),
    address=st.sampled_from(ADDRESSES),
    port=st.sampled_from([81, 81, 82, 0]),
    weight=st.sampled_from([1, 2, 256]),
    state=st.sampled_from(["enabled", "enabled", "drain", "disabled"]),
    max_connections=st.sampled_from([0, 0, 9]),
)


class Changes(RuleBasedStateMachine):
    """What is wanted is in `wanted` (services, their pools, their members by name), what there is in `engine`."""

    def __init__(self) -> None:
        super().__init__()
        self.engine = Engine()
        self.wanted: dict[str, dict[str, model.Pool]] = {}
        self.tables: dict[str, str] = {}
        self.down: frozenset[tuple[str, str]] = frozenset()
        self.waits = False
        # Of the round before: the id of each member by where it was; and who had which line, since this worker runs.
        self.ids: Mapping[tuple[str, str, str], int] = {}
        self.had: dict[Line, set[str]] = defaultdict(set)
        self.starts = 0

    @initialize()
    def begin(self) -> None:
        for table in (DMZ, *TABLES):
            self.set_table(table, 1)

    @rule(name=services, pool=pools, member=members)
    def put_member(self, name: str, pool: str, member: model.Member) -> None:
        held = self.wanted.setdefault(name, {}).setdefault(pool, model.Pool(pool, ()))
        others = [each for each in held.members if each.name != member.name]
        if (member.table, member.socket) not in {(each.table, each.socket) for each in others}:
            self.wanted[name][pool] = dataclasses.replace(held, members=(*others, member))

    @rule(data=st.data(), change=members)
    def change_member(self, data: st.DataObject, change: model.Member) -> None:
        """In its table, as operators do all day."""
        all_of = [(name, pool.name, each) for name, of in self.wanted.items() for pool in of.values() for each in pool.members]
        if all_of:
            name, pool, member = data.draw(st.sampled_from(all_of))
            self.put_member(name, pool, dataclasses.replace(change, name=member.name, table=member.table))

    @rule(data=st.data())
    def drop_member(self, data: st.DataObject) -> None:
        all_of = [(name, pool, each) for name, of in self.wanted.items() for pool in of.values() for each in pool.members]
        if all_of:
            name, pool, member = data.draw(st.sampled_from(all_of))
            left = tuple(each for each in pool.members if each != member)
            self.wanted[name][pool.name] = dataclasses.replace(pool, members=left)

    @rule(name=services, pool=pools, algorithm=st.sampled_from(ALGORITHMS), send_proxy=st.sampled_from([0, 0, 2]))
    def set_pool(self, name: str, pool: str, algorithm: model.Algorithm, send_proxy: int) -> None:
        if held := self.wanted.get(name, {}).get(pool):
            self.wanted[name][pool] = dataclasses.replace(held, algorithm=algorithm, send_proxy=send_proxy)  # type: ignore[arg-type]

    @rule(name=services, pool=pools)
    def drop_pool(self, name: str, pool: str) -> None:
        held = self.wanted.get(name, {})
        held.pop(pool, None)
        if not held:
            self.wanted.pop(name, None)

    @rule(table=st.sampled_from([DMZ, *TABLES]), cookie=st.sampled_from([0, 1, 1, 2]))
    def set_table(self, table: str, cookie: int) -> None:
        """0: it is gone."""
        self.tables.pop(table, None)
        if cookie:
            self.tables[table] = f"{table.partition('/')[2]}.{cookie}"
        self.engine.enter(frozenset(self.tables.values()))

    @rule(hosts=st.frozensets(st.tuples(st.sampled_from(TABLES), st.sampled_from([str(each) for each in ADDRESSES]))))
    def set_down(self, hosts: frozenset[tuple[str, str]]) -> None:
        self.down = hosts

    @rule()
    def together(self) -> None:
        """The next change is seen together with the one behind it."""
        self.waits = True

    @rule(done=st.integers(0, 3))
    def end_the_proxy(self, done: int) -> None:
        """It comes back knowing nothing, and finds what it had done so far."""
        for op in plan.plan(self.desired(), self.look())[:done]:
            self.engine.apply(op)

    @rule()
    def kill_the_engine(self) -> None:
        self.engine.crash()
        self.forget()

    @rule(data=st.data())
    def carry_traffic(self, data: st.DataObject) -> None:
        for line, server in self.engine.servers.items():
            if server.enabled and server.weight and data.draw(st.booleans()):
                self.engine.carry(*line, connections=1)
                self.had[line].add(server.socket)

    @invariant()
    def settles(self) -> None:
        if self.waits:
            self.waits = False
            return
        starts = len(self.engine.starts)
        self.look()
        self.engine.settle(self.desired(), rounds=5)
        if len(self.engine.starts) != starts:
            self.had.clear()
        if self.wanted:
            self.check()

    def check(self) -> None:
        self.check_pools()
        self.check_connections()
        self.check_ids()
        self.check_restart()

    def check_pools(self) -> None:
        for name, of in self.wanted.items():
            for pool in of.values():
                self.check_pool(f"vs.{name.partition('/')[2]}.po.{pool.name}", pool)

    def check_pool(self, section: str, pool: model.Pool) -> None:
        """Everybody has one line that is exactly as it should be, and nobody else's lets anything through."""
        lines = {name: server for (each, name), server in self.engine.servers.items() if each == section}
        expected = dict(self.expected(pool))
        open_lines = Counter((name.partition(".")[2], server) for name, server in lines.items() if server.enabled)
        assert open_lines == Counter((self.tables[table], server) for (_, table), server in expected.items() if server.enabled)
        for (member, table), server in expected.items():
            own, namespace = f"{member}.{self.tables[table]}", self.tables[table]
            alike = [name for name in lines if name.startswith("_") and name.endswith(f".{namespace}")]
            assert lines[own] == server if own in lines else server in [lines[name] for name in alike]
        ids = [self.engine.ids[section, name] for name in lines]
        assert len(set(ids)) == len(ids)
        if pool.algorithm == "first":
            ordered = sorted(lines, key=lambda name: self.engine.ids[section, name])
            assert [name.partition(".")[0] for name in ordered] == [name for name, _ in expected]

    def expected(self, pool: model.Pool) -> Iterator[tuple[tuple[str, str], render.Server]]:
        present = [each for each in pool.members if each.table in self.tables]
        usable = {each.name for each in present if each.state == "enabled"}
        down = {each.name for each in present if each.name in usable and (each.table, str(each.address)) in self.down}
        for each in present:
            is_out = each.state == "disabled" or (each.name in down and down != usable)
            weight = 0 if each.state == "drain" else each.weight
            yield (each.name, each.table), render.Server(each.socket, weight, not is_out, each.max_connections)

    def check_connections(self) -> None:
        """No line is given from one to another, and who is disabled has no connection in any worker."""
        for (section, name), server in self.engine.servers.items():
            if server.enabled and name.startswith("_"):
                assert self.had[section, name] <= {server.socket}
        for section, _, member, namespace in self.members():
            if member.state == "disabled":
                part = render.Part(section, namespace, member.socket)
                assert sum(worker.to(part) for worker in self.engine.workers) == 0

    def check_ids(self) -> None:
        """The source hash goes by them: who stays where he is keeps his."""
        now: dict[tuple[str, str, str], int] = {}
        for section, pool, member, namespace in self.members():
            if pool.algorithm != "first":
                line = self.line_of(section, member, namespace)
                now[section, f"{member.name}.{namespace}", member.socket] = self.engine.ids[section, line]
        assert {key: number for key, number in now.items() if key in self.ids and self.ids[key] != number} == {}
        self.ids = now

    def line_of(self, section: str, member: model.Member, namespace: str) -> str:
        own = f"{member.name}.{namespace}"
        if (section, own) in self.engine.servers:
            return own
        return next(
            name
            for (each, name), server in sorted(self.engine.servers.items(), key=lambda line: not line[1].enabled)
            if each == section and name.startswith("_") and name.endswith(f".{namespace}") and server.socket == member.socket
        )

    def check_restart(self) -> None:
        """With the text that is kept HAProxy comes back as it was."""
        ids, workers, observed = self.engine.ids, self.engine.workers, self.engine.observed
        self.engine.crash()
        assert self.engine.ids == ids
        assert plan.plan(self.desired(), self.engine.observed) == ()
        self.check_pools()
        self.engine.workers, self.engine.observed = workers, observed

    def members(self) -> Iterator[tuple[str, model.Pool, model.Member, str]]:
        """Those that can be served: section, pool, member, namespace."""
        for name, of in self.wanted.items():
            for pool in of.values():
                for member in pool.members:
                    if member.table in self.tables:
                        section = f"vs.{name.partition('/')[2]}.po.{pool.name}"
                        yield section, pool, member, self.tables[member.table]

    def forget(self) -> None:
        self.had.clear()
        if not self.engine.workers:
            self.ids = {}

    def desired(self) -> model.Desired:
        made = []
        for name, of in sorted(self.wanted.items()):
            port = 80 if name.endswith("v") else 90
            frontends = tuple(
                model.Frontend(pool, DMZ, ADDRESSES[0], port + index, pool, port + index) for index, pool in enumerate(of)
            )
            made.append(model.VService(name, frontends, tuple(of.values())))
        return model.Desired(tuple(made), dict(self.tables))

    def look(self) -> plan.Observed:
        """With what the checks have found meanwhile."""
        down = {
            each: "no answer"
            for each in model.targets(self.desired())
            if (f"routeTables/{each.table}", str(each.address)) in self.down
        }
        self.engine.observed = dataclasses.replace(self.engine.observed, down=down)
        return self.engine.observed
