"""What the store holds of a device, key by key, as it stands there: what tests of whole changes compare.

Left out is what is another one behind every write, or every start, and says nothing about what is wanted or what is there:
- `instance` and `leader`: leased, they say which processes run, and since when;
- `requests`: leased, they say for an hour that a request was carried out;
- `trace`: the trace context of whoever wrote last, no part of the spec (architecture, section 2);
- of a resource `update_time` and `generation`, of a status `observed_generation` and `last_transition_time`: they count writes,
  and what is taken back was written twice. `create_time` stays: what was made anew is not what was there.
Revisions are etcd's, and no part of a value.
"""

from crossns import names, resource, settings
from crossns.etcd.client import EtcdStore
from crossns.testing.device import Device

_LEFT_OUT = ("instance", "leader", "requests", "trace")


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
        if family not in _LEFT_OUT:
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
        for part in getattr(status, "frontends", ()):
            part.ClearField("observed_generation")
        return str(status)
    return value.decode()
