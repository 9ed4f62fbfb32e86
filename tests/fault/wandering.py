"""A device on which anything may happen at any time, in any order, with nobody waiting for anything: and then it comes to rest.

A state machine of hypothesis over the running suite. Tables come and go, interfaces come, move, are renamed, readdressed and go;
so do routes, rules and neighbours; somebody meddles with `ip` behind crossns' back; processes are killed. Who asks repeats what
is answered with "later", as clients do; what was taken is the wish. Run by test_converge.
"""

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from crossns import errors
from crossns.cli import kinds
from crossns.testing.device import Device, doc, wait_until
from crossns.testing.lab import Cable
from tests.fault import kernel, wish

CABLES = {"interfaces/lan": Cable("card-1", "02:00:00:00:01:01"), "interfaces/wan": Cable("card-2", "02:00:00:00:01:02")}
CARDS = {name: cable.card for name, cable in CABLES.items()}
# Interface -> what kind of link it is, for as long as it lives.
KINDS: Mapping[str, wish.Spec] = {
    "interfaces/lan": {"physical": {"linkName": CABLES["interfaces/lan"].card}},
    "interfaces/wan": {"physical": {"macAddress": CABLES["interfaces/wan"].card_mac}},
    "interfaces/br": {"bridge": {}},
    "interfaces/vx": {"vxlan": {"vni": 7}},
    "interfaces/mv": {"macvlan": {"parent": "interfaces/lan"}},
}
# The table that always stays: somebody else has things in it.
SHARED = "a"
PROCESSES = ("nsmanager", "gateway", "launcher", "agent a", "agent b", "agent default", "zygote", "etcd")
# Few, so that one wants what another has.
LINK_NAMES = ("x0", "y0", "z0", "lan")
# Nothing may need the resync, which comes within a minute.
PATIENCE_S = 25.0
# What a client may be told because of what he did before.
REFUSALS = {
    "TARGET_NOT_FOUND",
    "TARGET_BEING_DELETED",
    "LINK_NAME_TAKEN",
    "STILL_REFERENCED",
    "ROUTE_TABLE_NOT_EMPTY",
    "INVALID_FIELD",
}

T = TypeVar("T")


class Walk:
    """The device and the wish. `failure`: what was not as it must be. There is no point in going on then, nor in doing the same
    again: a real device does not twice what it does."""

    def __init__(self, device: Device, loop: asyncio.AbstractEventLoop) -> None:
        self.device, self._loop = device, loop
        self.wish: wish.Wish = {}
        self.story: list[str] = []
        self.failure: BaseException | None = None
        self._firewalls: dict[str, str] = {}

    def now(self, what: Coroutine[Any, Any, T]) -> T:
        """From the machine's thread: do it in the loop that the device lives in."""
        if self.failure is not None:
            what.close()
            raise self.failure
        try:
            return asyncio.run_coroutine_threadsafe(what, self._loop).result()
        except BaseException as failure:
            self.failure = failure
            failure.add_note("\n".join(self.story))
            raise

    async def begin(self) -> None:
        self.wish, self.story = {}, []
        await self.put(f"routeTables/{SHARED}")
        await wait_until(lambda: SHARED in kernel.names())
        await kernel.plant(SHARED)
        self._firewalls = {table: await kernel.firewall(table) for table in ("default", SHARED, kernel.FOREIGN)}

    async def end(self) -> None:
        """Nothing of this walk is there for the next."""
        await kernel.uproot(SHARED)
        await self.device.clear()

    async def put(self, name: str, **spec: Any) -> None:
        text = doc(name, **spec)
        is_taken = await self._was_taken(lambda: self.device.apply(text, wait=False))
        self.story.append(f"{'taken' if is_taken else 'refused'}: {text}")
        if is_taken:
            self.wish[name] = spec

    async def delete(self, name: str) -> None:
        is_taken = await self._was_taken(lambda: self.device.client.delete(name, allow_missing=True))
        self.story.append(f"{'taken' if is_taken else 'refused'}: delete {name}")
        if is_taken:
            self.wish.pop(name, None)

    async def _was_taken(self, ask: Any) -> bool:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    await ask()
                except errors.TemporaryError:
                    await asyncio.sleep(0.02)
                except errors.RequestError as refused:
                    assert refused.reason in REFUSALS, refused  # noqa: PT017 - which it is, is the question
                    return False
                else:
                    return True

    async def empty(self, table: str) -> None:
        """All that is in a table, then the table, and nobody waits in between."""
        for name in sorted(wish.inside(table, self.wish), reverse=True):
            await self.delete(name)
        await self.delete(f"routeTables/{table}")

    async def kill(self, process: str) -> None:
        self.story.append(f"kill {process}")
        for pid in self.device.pids(process):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def look(self) -> None:
        """While all is under way: no card is nowhere or in two places, no address of an interface in two tables. Namespaces are
        not read at one moment, so only what two looks agree about has been so in between."""
        first, second = await kernel.look(), await kernel.look()
        if not {*wish.tables(self.wish)} <= first.keys() & second.keys():
            # One whose name was taken away is there still, but not to be seen.
            return
        for name, cable in CABLES.items():
            where = [_places(seen, name, cable.card) for seen in (first, second)]
            assert any(where), f"{name} is nowhere"
            assert len(where[0] & where[1]) <= 1, f"{name} is in {where}"
        addresses = Counter(text for table, text in _addresses(first) & _addresses(second))
        assert not [text for text, times in addresses.items() if times > 1], "an address is in two tables"

    async def converge(self) -> None:
        shown = dict.fromkeys(("default", SHARED, kernel.FOREIGN), kernel.PLANTED)
        wanted = wish.expected(self.wish, shown, CARDS)
        left = ["never looked"]
        try:
            async with asyncio.timeout(PATIENCE_S):
                await wait_until(self.device.serves)
                while left:
                    left = wish.difference(wanted, await kernel.look()) or await self._unsaid()
        except TimeoutError:
            raise AssertionError(f"not at rest: {left}") from None
        self.story.append("at rest")
        found = {table: await kernel.firewall(table) for table in self._firewalls}
        assert found == self._firewalls, f"nftables of others: {found}"

    async def _unsaid(self) -> list[str]:
        """What the API does not say as it is wished."""
        found = {each.name for kind in _collections() async for each in self.device.client.list(kind)}
        odd = found ^ {*self.wish, "routeTables/default"}
        return sorted(odd) or await self._unready()

    async def _unready(self) -> list[str]:
        """Tables and interfaces that do not say that they are as wished."""
        found = []
        for name, spec in self.wish.items():
            if name.startswith("interfaces/") or name.count("/") == 1:
                resource = await self.device.client.get(name)
                state = await self.device.state(name)
                ports = spec.get("bridge", {}).get("ports", ())
                is_partial = any(self.wish[port]["routeTable"] != spec["routeTable"] for port in ports)
                if resource.reconciling or state != ("DEGRADED" if is_partial else "READY"):
                    found.append(f"{name} is {state}: {[each.message for each in resource.status.conditions]}")
        return found


def _places(seen: Mapping[str, wish.Seen], name: str, card: str) -> set[str]:
    mark = wish.MARK + name.split("/")[1]
    return {table for table, each in seen.items() for link in each.links if link[1] == mark or link[0] == card}


def _addresses(seen: Mapping[str, wish.Seen]) -> set[tuple[str, str]]:
    return {(table, text) for table, each in seen.items() for link, text in each.addresses if link != "foreign0"}


def _collections() -> list[kinds.Kind]:
    return [kinds.BY_COLLECTION[each] for each in ("routeTables", "interfaces", "routes", "rules", "neighbors")]


tables = st.sampled_from(["a", "a", "b", "b", "c", "default"])
interfaces = st.sampled_from(sorted(KINDS))
names = st.sampled_from(LINK_NAMES)
entries = st.sampled_from(
    ["routes/r1v4", "routes/r1v6", "routes/r2v4", "routes/r2v6", "routes/end", "rules/p100", "rules/p200", "neighbors/n"]
)


def _given(interface: str) -> list[str]:
    number = sorted(KINDS).index(interface) + 1
    return [f"10.{number}.0.1/24", f"10.{number}.1.1/24", f"2001:db8:{number}::1/64"]


class Wandering(RuleBasedStateMachine):
    """`kills` is how many processes may be killed in one walk: each that dies again soon is started again ever later."""

    def __init__(self, walk: Walk, kills: int) -> None:
        super().__init__()
        self.walk = walk
        self.kills = kills

    @initialize()
    def begin(self) -> None:
        self.walk.now(self.walk.begin())
        self.put_table("b", forwarding=True)
        for name, table, link in (("interfaces/lan", "a", "lan"), ("interfaces/wan", "b", "lan"), ("interfaces/br", "b", "x0")):
            self._put_interface(name, table, link, _given(name)[:1], enabled=True)

    @rule(table=st.sampled_from(["a", "b", "b", "c"]), forwarding=st.booleans())
    def put_table(self, table: str, *, forwarding: bool) -> None:
        self.walk.now(self.walk.put(f"routeTables/{table}", forwarding=forwarding))

    @rule(table=st.sampled_from(["b", "c"]))
    def empty_table(self, table: str) -> None:
        self.walk.now(self.walk.empty(table))

    @rule(
        name=interfaces, table=tables, link=names, given=st.sets(st.integers(0, 2)), enabled=st.sampled_from([True, True, False])
    )
    def put_interface(self, name: str, table: str, link: str, given: set[int], *, enabled: bool) -> None:
        self._put_interface(name, table, link, [_given(name)[each] for each in sorted(given)], enabled=enabled)

    @rule(name=interfaces, table=tables)
    def move_interface(self, name: str, table: str) -> None:
        spec = self.walk.wish.get(name)
        if spec is not None:
            self.walk.now(self.walk.put(name, **{**spec, "routeTable": f"routeTables/{table}"}))

    @rule(has_port=st.booleans())
    def set_ports(self, *, has_port: bool) -> None:
        spec = self.walk.wish.get("interfaces/br")
        if spec is not None:
            self.walk.now(self.walk.put("interfaces/br", **{**spec, "bridge": {"ports": ["interfaces/wan"] if has_port else []}}))

    def _put_interface(self, name: str, table: str, link: str, given: list[str], *, enabled: bool) -> None:
        kept = self.walk.wish.get(name, {})
        kind = {key: kept.get(key, value) for key, value in KINDS[name].items()}
        spec = {"routeTable": f"routeTables/{table}", "linkName": link, "addresses": given, "enabled": enabled, **kind}
        self.walk.now(self.walk.put(name, **spec))

    @rule(name=interfaces)
    def delete_interface(self, name: str) -> None:
        self.walk.now(self.walk.delete(name))

    @rule(table=tables, interface=interfaces, far=st.integers(1, 2), version=st.sampled_from([4, 6]))
    def put_route(self, table: str, interface: str, far: int, version: int) -> None:
        number = sorted(KINDS).index(interface) + 1
        destination, gateway = f"192.168.{far}.0/24", f"10.{number}.0.9"
        if version == 6:
            destination, gateway = f"2001:db8:f{far}::/48", f"2001:db8:{number}::9"
        hop = {"address": gateway, "interface": interface}
        self.walk.now(self.walk.put(f"routeTables/{table}/routes/r{far}v{version}", destination=destination, gateways=[hop]))

    @rule(table=tables, kind=st.sampled_from(["BLACKHOLE", "UNREACHABLE", "PROHIBIT"]), metric=st.sampled_from([0, 5]))
    def put_end(self, table: str, kind: str, metric: int) -> None:
        name = f"routeTables/{table}/routes/end"
        self.walk.now(self.walk.put(name, destination="198.51.100.0/24", type=kind, metric=metric, kernelTable=100))

    @rule(table=tables, interface=st.one_of(st.none(), interfaces), priority=st.sampled_from([100, 200]))
    def put_rule(self, table: str, interface: str | None, priority: int) -> None:
        source = "10.66.0.0/16" if priority == 100 else "2001:db8:66::/48"
        named = {"interface": interface} if interface else {}
        self.walk.now(
            self.walk.put(f"routeTables/{table}/rules/p{priority}", priority=priority, source=source, kernelTable=100, **named)
        )

    @rule(table=tables, interface=interfaces, is_proxy=st.booleans())
    def put_neighbor(self, table: str, interface: str, *, is_proxy: bool) -> None:
        what: wish.Spec = {"proxy": True} if is_proxy else {"macAddress": "02:00:00:00:00:77"}
        name = f"routeTables/{table}/neighbors/n"
        self.walk.now(self.walk.put(name, address="10.200.0.7", interface=interface, **what))

    @rule(table=tables, entry=entries)
    def delete_entry(self, table: str, entry: str) -> None:
        self.walk.now(self.walk.delete(f"routeTables/{table}/{entry}"))

    @rule(
        name=interfaces,
        other=tables,
        how=st.sampled_from(["address", "flush", "down", "up", "rename", "delete", "leave", "elsewhere"]),
    )
    def meddle_with_link(self, name: str, other: str, how: str) -> None:
        spec = self.walk.wish.get(name)
        if spec is None:
            return
        link = spec["linkName"]
        given = next(iter(spec["addresses"]), "10.9.9.9/32")
        commands = {
            "address": f"address del {given} dev {link}",
            "flush": f"address flush dev {link}",
            "down": f"link set {link} down",
            "up": f"link set {link} up",
            "rename": f"link set {link} name away0",
            # A cable that is cut does not grow again.
            "delete": f"link set {link} down" if "physical" in spec else f"link del {link}",
            "leave": f"link set {link} nomaster",
            "elsewhere": f"link set {link} netns {'1' if other == 'default' else other}",
        }
        self.walk.story.append(f"{wish.table_of(spec)}: {commands[how]}")
        self.walk.now(kernel.meddle(wish.table_of(spec), commands[how]))

    @rule(table=tables, how=st.sampled_from(["routes", "rules", "neighbors", "name", "forwarding"]))
    def meddle_with_table(self, table: str, how: str) -> None:
        if table in wish.tables(self.walk.wish):
            self.walk.story.append(f"{table}: meddle with {how}")
            self.walk.now(_meddled(table, how))

    @precondition(lambda self: self.kills)
    @rule(process=st.sampled_from(PROCESSES))
    def kill(self, process: str) -> None:
        self.kills -= 1
        self.walk.now(self.walk.kill(process))

    @rule(pause_s=st.sampled_from([0.0, 0.005, 0.03]))
    def pause(self, pause_s: float) -> None:
        self.walk.now(asyncio.sleep(pause_s))

    @rule()
    def look(self) -> None:
        self.walk.now(self.walk.look())

    @rule()
    def converge(self) -> None:
        self.walk.now(self.walk.converge())

    def teardown(self) -> None:
        if self.walk.failure is None:
            self.walk.now(self.walk.converge())
            self.walk.now(self.walk.end())


async def _meddled(table: str, how: str) -> None:
    if how == "name" and table != "default":
        await kernel.meddle("default", f"netns delete {table}")
    elif how == "forwarding" and table != "default":
        await kernel.flip_forwarding(table)
    else:
        commands = {
            "routes": ["route flush table all proto 197", "-6 route flush table all proto 197"],
            "rules": ["rule del pref 100", "-6 rule del pref 200"],
            "neighbors": [f"neigh del {proxy}10.200.0.7 dev {link}" for proxy in ("", "proxy ") for link in LINK_NAMES],
        }
        await kernel.meddle(table, *commands.get(how, ()))


@contextlib.asynccontextmanager
async def unmoved() -> Any:
    """Somebody else's things around the walks: in `default`, and a namespace among those of the tables."""
    await kernel.batch("default", f"netns add {kernel.FOREIGN}")
    for table in ("default", kernel.FOREIGN):
        await kernel.plant(table)
    try:
        yield
    finally:
        await kernel.uproot("default")
        await kernel.batch("default", f"netns delete {kernel.FOREIGN}")
