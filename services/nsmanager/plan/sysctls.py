"""Sysctls of a table: how it forwards, speaks ARP and filters by the way back.

Of a setting that each link has, too, the kernel takes the higher one of `all` and the link's own: a table is as it is asked to be
when `all` has the value and no link a higher one. `default` is what links begin with.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from crossns import sysctl
from services.nsmanager.model import Desired
from services.nsmanager.plan.observed import At, Observed

# What every table but `default` runs with. A VIP that is missing must not stop the proxy.
_ALWAYS = {"net.ipv4.ip_nonlocal_bind": "1", "net.ipv6.ip_nonlocal_bind": "1"}
_FORWARDING = ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding")
# As the kernel begins with them; a namespace begins with what the device's own has (net.core.devconf_inherit_init_net).
_CONF = {"arp_ignore": 0, "arp_announce": 0, "arp_filter": 0, "rp_filter": 0}


def plan(desired: Desired, observed: Observed) -> tuple[At, ...]:
    if observed.snapshot is None:
        return ()
    seen = observed.snapshot.sysctls
    wanted = {**_wanted(desired), **_of_all(_conf(desired))}
    return (
        *(_set(desired, name, value) for name, value in wanted.items() if seen.get(name) != value),
        *_of_links(desired, observed),
    )


def asked(desired: Desired) -> tuple[At, ...]:
    """Of a table that is about to be made: what is asked is in force before a link comes in."""
    conf = desired.table.conf if desired.table is not None else {}
    return tuple(_set(desired, name, value) for name, value in _of_all(conf).items())


def _wanted(desired: Desired) -> dict[str, str]:
    wanted = dict(_ALWAYS) if not desired.is_built_in or desired.vips else {}
    forwards = desired.table is not None and desired.table.forwarding
    if not desired.is_built_in or forwards:
        # `default` is the operator's own: it is made to forward when asked, and otherwise left as it is.
        wanted |= dict.fromkeys(_FORWARDING, "1" if forwards else "0")
    return wanted


def _conf(desired: Desired) -> Mapping[str, int]:
    """Of what each link has, too. `default` again is left as it is in what nobody asked."""
    given = desired.table.conf if desired.table is not None else {}
    return given if desired.is_built_in else {**_CONF, **given}


def _of_all(conf: Mapping[str, int]) -> dict[str, str]:
    return {f"net.ipv4.conf.{scope}.{name}": str(value) for name, value in conf.items() for scope in ("all", "default")}


def _of_links(desired: Desired, observed: Observed) -> Iterator[At]:
    """What is asked holds for every link. What nobody asks is taken off ours only: somebody else's link stays as he set it."""
    given = desired.table.conf if desired.table is not None else {}
    for link in observed.links.values():
        for name, value in _conf(desired).items():
            if int(link.sysctls.get(name, "0")) > value and (name in given or link.mark):
                known: Any = name
                lowered = sysctl.SetLinkSysctl(link=link.name, name=known, value=str(value))
                yield At(f"routeTables/{desired.id}", desired.id, lowered)


def _set(desired: Desired, name: str, value: str) -> At:
    known: Any = name
    return At(f"routeTables/{desired.id}", desired.id, sysctl.SetSysctl(name=known, value=value))
