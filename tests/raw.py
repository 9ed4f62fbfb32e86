"""What the store holds of a device, key by key, as it stands there: what tests of whole changes compare.

Left out is what is another one behind every write, or every start, and says nothing about what is wanted or what is there:
- what is leased, for it goes by itself: `instance` and `leader` say which processes run, `requests` for an hour that one was
  carried out, an index that was freed rests for a minute;
- `trace`: the trace context of whoever wrote last, no part of the spec (architecture, section 2);
- of a resource `update_time` and `generation`, of a status `observed_generation` and `last_transition_time`: they count writes,
  and what is taken back was written twice. `create_time` stays: what was made anew is not what was there.
- of a vService how its members are: that is checked every second, whoever changes what.
Revisions are etcd's, and no part of a value.
"""

import json

from crossns import names, resource, settings
from crossns.etcd.client import EtcdStore
from crossns.testing.device import Device
from crossns.v1 import impact_pb2, v_service_pb2


async def raw(device: Device) -> dict[str, str]:
    """By key, below the device's prefix: `nsmanager/desired/interfaces/lan`."""
    keys = names.Keys(settings.Settings().device, "nsmanager")
    backend = await EtcdStore.connect(settings.Etcd((f"unix:{device.layout.etcd_socket}",)))
    try:
        listing = await backend.list(keys.device_prefix)
    finally:
        await backend.close()
    found = {}
    for entry in listing.entries:
        _, family, rest = keys.parse(entry.key) or ("", "", "")
        if family != "trace" and not entry.lease:
            found[entry.key.removeprefix(keys.device_prefix)] = _shown(family, rest, entry.value)
    return found


def _shown(family: str, name: str, value: bytes) -> str:
    if family == "desired":
        message = resource.load(names.collection(name), value)
        message.ClearField("update_time")
        message.ClearField("generation")
        return str(message)
    if family == "status":
        status = resource.load_status(names.collection(name), value)
        status.ClearField("observed_generation")
        for condition in status.conditions:
            condition.ClearField("last_transition_time")
        if isinstance(status, v_service_pb2.VServiceStatus):
            _leave_out_health(status)
        return str(status)
    return value.decode()


def _leave_out_health(status: v_service_pb2.VServiceStatus) -> None:
    if status.members:
        status.ClearField("members")
        status.ClearField("state")
        kept = [each for each in status.conditions if each.type != "Healthy"]
        status.ClearField("conditions")
        status.conditions.extend(kept)
    for part in status.frontends:
        part.ClearField("observed_generation")


def _as_foretold(name: str, said: impact_pb2.Impact, target: str) -> str:
    """The name that a resource has behind the move: that of its copy in the target, "" where it has none."""
    changes = {each.name: each.change for each in said.resources}
    copy = f"routeTables/{target}/{names.collection(name)}/{names.resource_id(name)}"
    if changes.get(name) != impact_pb2.IMPACT_CHANGE_REMOVED:
        return name
    return copy if changes.get(copy) == impact_pb2.IMPACT_CHANGE_ADDED else ""


def _claim(rest: str, value: str, said: impact_pb2.Impact, source: str, target: str) -> tuple[str, str] | None:
    """`link/a/lan` becomes `link/b/lan` where its owner moves; what is the device's, such as a card, stays its own."""
    holdings = json.loads(value)
    kind, _, key = rest.partition("/")
    owner = holdings[0]["owner"]
    now = _as_foretold(owner, said, target)
    if not now:
        return None
    if now != owner or (owner == said.name and kind == "link"):
        key = f"{target}{key.removeprefix(source)}"
        holdings[0]["owner"] = now
    return f"{kind}/{key}", json.dumps(holdings, separators=(",", ":"))


def _reference(rest: str, said: impact_pb2.Impact, source: str, target: str) -> str | None:
    """A route that has lost the next hops over the interface does not name it any more."""
    used, _, by = rest.partition("//")
    now = _as_foretold(by, said, target)
    is_less = used == said.name and by in {each.name for each in said.resources} and now == by
    if not now or is_less:
        return None
    is_leaving = used == f"routeTables/{source}" and (now != by or by == said.name)
    return f"{f'routeTables/{target}' if is_leaving else used}//{now}"


def foretold(said: impact_pb2.Impact, before: dict[str, str], source: str, target: str) -> dict[str, str]:
    """The claims and references that there are behind the move, by what the impact says that it writes."""
    then: dict[str, str] = {}
    for key, value in before.items():
        service, family, rest = key.split("/", 2)
        if family == "claims" and value.startswith("["):
            claim = _claim(rest, value, said, source, target)
            then |= {f"{service}/claims/{claim[0]}": claim[1]} if claim else {}
        elif family == "refs":
            reference = _reference(rest, said, source, target)
            then |= {f"{service}/refs/{reference}": value} if reference else {}
    return then


def unforetold(said: impact_pb2.Impact, before: dict[str, str], now: dict[str, str], source: str, target: str) -> list[str]:
    """What the store became otherwise than the impact says, key by key; [] where all is as foretold."""
    kinds = {key: key.split("/", 2)[1] for key in before.keys() | now.keys()}
    held = {key: value for key, value in now.items() if kinds[key] not in ("desired", "status")}
    wrong = {key for key, _ in held.items() ^ foretold(said, before, source, target).items()}
    written = {each.name: each.change for each in said.resources}
    touched = written.keys() | {item.resource for item in said.items}
    for key in (key for key, kind in kinds.items() if kind in ("desired", "status")):
        _, kind, name = key.split("/", 2)
        change = written.get(name, impact_pb2.IMPACT_CHANGE_UNSPECIFIED)
        was, is_now = key in before, key in now
        is_right = {
            impact_pb2.IMPACT_CHANGE_ADDED: not was and is_now,
            impact_pb2.IMPACT_CHANGE_REMOVED: was and not is_now,
            impact_pb2.IMPACT_CHANGE_CHANGED: was and is_now and (kind == "status" or before[key] != now[key]),
        }
        is_same = was and is_now and before[key] == now[key]
        is_told = name in touched and kind == "status" and was and is_now
        if not is_right.get(change, is_same or is_told):
            wrong.add(key)
    return sorted(f"{key}: {before.get(key)} -> {now.get(key)}" for key in wrong)
