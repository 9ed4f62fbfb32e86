"""`python -m services.nsmanager.agent.teardown`: takes down everything that the privileged tree made on this device.

`python -m services.nsmanager.launcher --down` turns into it, in the namespace of `default`. It needs neither launcher nor
agents alive, may be run again wherever it was interrupted, and leaves alone what is not ours.
"""

import logging
import os
import select
import signal
import sys
from pathlib import Path

from crossns import entry, errors, netns, operation, pidfd, settings, telemetry
from crossns.layout import Layout
from services.nsmanager.agent import addresses, entries, links, neighbors, observe, routes, rules, throwaway
from services.nsmanager.agent.budgets import Budgets
from services.nsmanager.agent.rtnl import Refused, Rtnl
from services.nsmanager.launcher import engine, place, records, session
from services.nsmanager.launcher.loop import Loop
from services.nsmanager.launcher.namespace import Incarnation, Namespaces

_GRACE_S = 5.0
_log = logging.getLogger(__name__)


def run(layout: Layout) -> None:
    """Processes first, so that nobody works against it; then cards back, namespaces, marks in `default`, files."""
    if not layout.launcher_dir.exists():
        return
    _end(place.launcher_record(layout))
    place.engine_config(layout).unlink(missing_ok=True)
    engine.end_members(records.read(place.engine_record(layout), records.Process), layout.uid("haproxy"))
    _end(place.engine_record(layout))
    for record in place.agent_records(layout).iterdir() if place.agent_records(layout).exists() else ():
        _end(record)
    namespaces = Namespaces(layout)
    namespaces.recover()
    own = Rtnl(session.Tally())
    for incarnation in namespaces.all():
        _return_cards(own, incarnation)
        namespaces.destroy(incarnation)
    _clean(own)
    own.close()
    place.remove(layout)


def _end(record: Path) -> None:
    """End the process of a record and wait until it is gone."""
    found = records.find(record)
    if found is None:
        return
    _, fd = found
    for number in (signal.SIGTERM, signal.SIGKILL):
        pidfd.send(fd, number)
        if select.select([fd], [], [], _GRACE_S)[0]:
            break
    os.close(fd)


def _return_cards(default: Rtnl, incarnation: Incarnation) -> None:
    """A card would come back by itself when the namespace ends, but under a name of the kernel's choice; a veth would not."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    fd = os.open(incarnation.path, os.O_RDONLY | os.O_CLOEXEC)
    there = netns.inside(fd, lambda: Rtnl(default.tally))
    try:
        for link in observe.links(there):
            if link.was or not link.kind:
                _return(there, default, link, home)
    finally:
        there.close()
        os.close(fd)
        os.close(home)


def _return(there: Rtnl, default: Rtnl, link: operation.Link, home: int) -> None:
    wanted = link.was or link.name
    # Somebody may have that name by now; the altname goes on saying what it was.
    name = wanted if observe.link(default, wanted) is None else f"dev{link.index}"
    try:
        links.change(there, link.index, [("IFLA_IFNAME", name), ("IFLA_NET_NS_FD", home)])
    except Refused as refused:
        _log.error("cannot return %s to default: %s", link.name, refused.explained())
        return
    if name == wanted:
        returned = links.required(default, name)
        links.drop_names(default, returned.index, links.own_names(returned))


def _clean(default: Rtnl) -> None:
    """Take what is ours out of the namespace that stays."""
    throwaway.sweep(default)
    _lift_budget(default)
    found = observe.links(default)
    by_index = {link.index: link.name for link in found}
    for rule in entries.rules(default):
        rules.remove(default, entry.RemoveRule(rule=rule))
    for neighbor in entries.neighbors(default, by_index):
        neighbors.remove(default, entry.RemoveNeighbor(neighbor=neighbor))
    for route in observe.routes(default, by_index):
        routes.remove(default, operation.RemoveRoute(route=route))
    for address in observe.addresses(default, by_index):
        if address.protocol in {operation.ADDRESS_PROTOCOL, operation.VIP_PROTOCOL}:
            removal = operation.RemoveAddress(link=address.link, prefix=address.prefix, protocol=address.protocol)
            addresses.remove(default, removal)
    for link in found:
        if link.was:
            links.mark(default, operation.MarkLink(name=link.name, mark=""))
        elif link.mark:
            links.delete(default, operation.DeleteLink(name=link.name, mark=link.mark))


def _lift_budget(default: Rtnl) -> None:
    loop = Loop()
    budgets = Budgets(loop, default.tally, lambda: None)
    try:
        budgets.remove()
    except errors.PermanentError as error:
        _log.error("%s", error.message)
    budgets.close()
    loop.close()


def main() -> int:
    configured = settings.from_environ(os.environ)
    telemetry.setup_logging("teardown", configured.log_level)
    try:
        run(configured.layout)
    except errors.CrossnsError as error:
        print(f"crossns-launcher --down: {error.message}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
