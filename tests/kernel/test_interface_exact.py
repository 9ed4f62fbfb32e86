"""Whatever is moved wherever, with whatever hangs on it: kernel and store become what was foretold, or stay as they are."""

import json
from collections.abc import AsyncIterator

import hypothesis
import pytest
import pytest_asyncio
from hypothesis import strategies

from crossns import errors, proc
from crossns.testing.device import Device, doc, wait_until
from crossns.testing.lab import Cable, Lab
from crossns.v1 import impact_pb2, interface_pb2, v_service_pb2
from tests.kernel.test_proxy import frontend
from tests.kernel.things import TABLES, becomes, foretold, impact, move, settled, things, without_dad
from tests.kernel.view import do
from tests.raw import raw, unforetold

pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]

# On a link, behind a gateway, behind the default route, with an address of the other table.
MEMBERS = (("a", "10.1.0.6"), ("a", "10.66.0.6"), ("a", "192.0.2.6"), ("a", "2001:db8:67::6"), ("b", "10.1.0.6"))
INTERFACES = ("one", "two", "vx", "mv", "br")
# What somebody else puts beside ours before a move.
FOREIGN = ("", "address", "route", "rule", "neighbor", "source", "both")
# Of the profile's examples, since each takes some seconds: one in the default run.
COUNT = hypothesis.settings().max_examples // 50
# Which interface goes where, without its addresses, without its routes, with what beside it.
Step = tuple[str, str, bool, bool, str]
STEPS = strategies.lists(
    strategies.tuples(
        strategies.sampled_from(INTERFACES),
        strategies.sampled_from(TABLES),
        strategies.sampled_from([False, False, True]),
        strategies.sampled_from([False, False, True]),
        strategies.sampled_from(FOREIGN),
    ),
    min_size=5,
    max_size=8,
)
# Each kind of interface once, and what is hardest beside it.
EACH: list[Step] = [
    ("one", "b", False, False, "both"),
    ("vx", "b", True, False, "source"),
    ("two", "default", False, True, "route"),
    ("br", "b", False, False, "rule"),
]


@pytest_asyncio.fixture(loop_scope="module", name="town")
async def hosts_and_tables(device: Device, lab: Lab) -> AsyncIterator[Device]:
    for number, name in ((1, "one"), (2, "two")):
        await lab.host(name, Cable(name), [f"10.{number}.0.6/24", f"2001:db8:{number}::6/64"])
    dad = [f"net.ipv6.conf.{each}.accept_dad" for each in ("all", "default")]
    await do("sysctl", "-qw", *(f"{each}=0" for each in dad))
    yield device
    await do("sysctl", "-qw", f"{dad[0]}=0", f"{dad[1]}=1")


def _member(where: tuple[str, str]) -> dict[str, object]:
    table, address = where
    name = table + address.replace(".", "-").replace(":", "-").replace("--", "-")
    return {"name": name, "routeTable": f"routeTables/{table}", "address": address, "port": 80}


async def build(device: Device) -> None:
    await device.apply(doc("routeTables/a"), doc("routeTables/b", forwarding=True))
    await without_dad("a", "b")
    a, one, three = {"routeTable": "routeTables/a"}, {"address": "10.1.0.254"}, {"address": "10.3.0.9"}
    six = [{"address": "2001:db8:1::9"}, {"address": "2001:db8:1::8"}]
    twice = ["10.1.0.1/24", "10.1.0.2/24", "2001:db8:1::1/64"]
    v_service = {
        "frontends": [frontend("x", "a", "10.1.0.77"), frontend("y", "b", "2001:db8:3::77"), frontend("z", "b", "10.1.0.78")],
        "pools": [{"name": "main", "members": [_member(each) for each in MEMBERS]}],
    }
    await device.apply(
        doc("interfaces/one", **a, physical={"linkName": "one"}, addresses=twice, mtu=1400),
        doc("interfaces/two", **a, physical={"linkName": "two"}, addresses=["10.2.0.1/31", "2001:db8:2::1/127"]),
        doc("interfaces/vx", **a, linkName="vx", vxlan={"vni": 7}, addresses=["10.3.0.1/24", "2001:db8:3::1/64"]),
        doc("interfaces/mv", **a, linkName="mv", macvlan={"parent": "interfaces/two"}, addresses=["10.4.0.1/32"]),
        doc("interfaces/br", **a, linkName="br", bridge={}, enabled=False, addresses=["10.5.0.1/24"]),
        doc("routeTables/a/routes/r", destination="0.0.0.0/0", gateways=[one]),
        doc("routeTables/a/routes/s", destination="10.66.0.0/16", gateways=[one, three], metric=3),
        doc("routeTables/a/routes/t", destination="2001:db8:66::/64", gateways=[{"interface": "interfaces/vx"}], kernelTable=66),
        doc("routeTables/a/routes/u", destination="2001:db8:67::/64", gateways=six),
        doc("routeTables/a/rules/i", interface="interfaces/one", priority=100, source="10.1.0.0/25", kernelTable=66),
        doc("routeTables/a/rules/j", interface="interfaces/vx", priority=101, family="IPV6", mark=3, action="PROHIBIT"),
        doc("routeTables/a/neighbors/n", interface="interfaces/one", address="10.1.0.9", macAddress="02:00:00:00:00:09"),
        doc("routeTables/a/neighbors/m", interface="interfaces/vx", address="2001:db8:3::9", macAddress="02:00:00:00:00:08"),
        doc("vServices/web", protocol="TCP", **v_service),
    )


# A step takes half a second: what fails is told as it was drawn, and not made smaller.
@pytest.mark.timeout(900)
@hypothesis.settings(
    suppress_health_check=list(hypothesis.HealthCheck),
    max_examples=COUNT,
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
)
@hypothesis.example(steps=EACH)
@hypothesis.given(steps=STEPS)
async def test_kernel_and_store_become_what_was_foretold(town: Device, steps: list[Step]) -> None:
    await build(town)
    try:
        for number, step in enumerate(steps):
            await one_move(town, number, step)
    finally:
        await town.clear()


async def one_move(device: Device, number: int, step: Step) -> None:
    name, target, drop_addresses, drop_routes, foreign = step
    found = await device.client.get(f"interfaces/{name}")
    assert isinstance(found, interface_pb2.Interface)
    source = found.spec.route_table.removeprefix("routeTables/")
    if source == target:
        return
    await disturb(source, name, number, foreign)
    before, stored = await quiet(), await raw(device)
    how = {"drop_addresses": drop_addresses, "drop_routes": drop_routes}
    said = await impact(device, name, target, **how)
    assert _cut_members(said) == await members_behind(device, source, name)
    hypothesis.note(f"{name}: {source} -> {target} {how} {foreign}")
    if any(each.blocking for each in said.conflicts):
        with pytest.raises(errors.FailedPrecondition):
            await move(device, name, target, **how)
        assert (await things(*TABLES), await raw(device)) == (before, stored)
        return
    await move(device, name, target, **how)
    await becomes(foretold(said, before, target))
    await store_becomes(device, said, stored, source, target)


async def store_becomes(device: Device, said: impact_pb2.Impact, before: dict[str, str], source: str, target: str) -> None:
    """What was foretold, to the last key, within a while."""
    left = ["never looked"]

    async def is_so() -> bool:
        left[:] = unforetold(said, before, await raw(device), source, target)
        return not left

    try:
        await wait_until(is_so, timeout_s=5)
    except TimeoutError:
        pytest.fail("not foretold: " + "\n".join(left))


def _cut_members(said: impact_pb2.Impact) -> set[str]:
    cut = [item for item in said.items if item.change == impact_pb2.IMPACT_CHANGE_INTERRUPTED]
    return {item.object for item in cut if item.kind == impact_pb2.IMPACT_KIND_MEMBER}


async def members_behind(device: Device, table: str, name: str) -> set[str]:
    """The members in a table whose packets leave by that link, as the kernel says."""
    found = await device.client.get("vServices/web")
    assert isinstance(found, v_service_pb2.VService)
    behind = set()
    for each in (member for pool in found.spec.pools for member in pool.members):
        if each.route_table == f"routeTables/{table}":
            way = await proc.run(["ip", *([] if table == "default" else ["-n", table]), "-json", "route", "get", each.address])
            if way.status == 0 and json.loads(way.stdout)[0].get("dev") == name:
                shown = f"[{each.address}]" if ":" in each.address else each.address
                behind.add(f"{shown}:{each.port}")
    return behind


async def disturb(table: str, name: str, number: int, foreign: str) -> None:
    """Put something of somebody else's on a link; the kernel takes none of some on a link that is down."""
    both = [word for way in (name, "vx" if name != "vx" else "one") for word in ("nexthop", "via", "fe80::9", "dev", way)]
    words = {
        "address": ["address", "add", f"10.200.{number}.1/24", "dev", name],
        "route": ["route", "add", f"10.201.{number}.0/24", "dev", name],
        "source": ["route", "add", f"10.203.{number}.0/24", "dev", "lo", "src", f"10.{INTERFACES.index(name) + 1}.0.1"],
        "both": ["route", "add", f"2001:db8:204:{number}::/64", *both],
        "rule": ["rule", "add", "priority", str(500 + number), "iif", name, "lookup", "500"],
        "neighbor": ["neighbor", "add", f"10.202.{number}.1", "lladdr", "02:00:00:00:00:07", "dev", name, "nud", "permanent"],
    }
    if foreign:
        inside = ["-n", table] if table != "default" else []
        await proc.run(["ip", *inside, *words[foreign]])


async def quiet() -> frozenset[tuple[str, str, str, str]]:
    """The kernel's things when they change no more: link-local addresses come a moment after their link."""
    return await settled(lambda: things(*TABLES))
