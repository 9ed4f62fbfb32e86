"""A device in memory: it takes nsmanager's operations as launcher and agents do, refuses as they do, and can be observed.

For tests of the plan room alone; what the kernel really does is for tests/kernel.
"""

import ipaddress
from dataclasses import dataclass, field

import msgspec

from crossns import entry, sysctl
from crossns import operation as op
from services.nsmanager.plan import At, Observed, Privileged


class Refused(Exception):
    pass


@dataclass
class Space:
    """One namespace."""

    cookie: int
    links: dict[str, op.Link] = field(default_factory=dict)
    addresses: list[op.Address] = field(default_factory=list)
    routes: list[op.Route] = field(default_factory=list)
    sysctls: dict[str, str] = field(default_factory=dict)
    rules: list[entry.Rule] = field(default_factory=list)
    neighbors: list[entry.Neighbor] = field(default_factory=list)

    def by_mark(self, mark: str) -> op.Link | None:
        return next((link for link in self.links.values() if link.mark == mark), None)


class Device:
    def __init__(self) -> None:
        self.spaces = {"default": Space(1, {"lo": op.Link(index=1, name="lo")})}
        self.counter = 1

    def card(self, name: str, mac: str = "") -> None:
        self.spaces["default"].links[name] = op.Link(index=self._next(), name=name, mac=mac)

    def observe(self, table: str) -> Observed:
        marked = {link.mark: (name, link) for name, space in self.spaces.items() for link in space.links.values() if link.mark}
        cards = tuple(link for link in self.spaces["default"].links.values() if not link.mark and link.name != "lo")
        space = self.spaces.get(table)
        if space is None:
            return Observed(marked=marked, cards=cards)
        snapshot = op.Snapshot(
            cookie=space.cookie,
            links=tuple(space.links.values()),
            addresses=tuple(space.addresses),
            routes=tuple(space.routes),
            sysctls=dict(space.sysctls),
            rules=tuple(space.rules),
            neighbors=tuple(space.neighbors),
        )
        return Observed(op.Namespace(table=table, cookie=space.cookie, attached=True), snapshot, "boot", marked, cards)

    def apply(self, step: At | Privileged) -> None:
        match step:
            case Privileged(operation=op.CreateNamespace(table=table)):
                self.spaces.setdefault(table, Space(self._next(), {"lo": op.Link(index=1, name="lo", up=True)}))
            case Privileged(operation=op.DestroyNamespace(table=table)):
                assert not any(link.was for link in self.spaces[table].links.values()), "a card would be lost"
                del self.spaces[table]
            case At(table=table) if table not in self.spaces:
                raise Refused(f"no agent in {table}")
            case At(table=table, operation=inner):
                getattr(self, type(inner).__name__)(self.spaces[table], inner)

    def CreateLink(self, space: Space, o: op.CreateLink) -> None:
        if o.table and o.table not in self.spaces:
            raise Refused(f"no namespace {o.table}")
        target = self.spaces[o.table] if o.table else space
        if o.parent and o.parent not in space.links:
            raise Refused(f"no parent {o.parent}")
        self._check_free(target, o.name)
        target.links[o.name] = op.Link(
            index=self._next(), name=o.name, kind=o.kind, mark=o.mark, mtu=1500, attributes=o.attributes, sysctls=_begun(target)
        )

    def DeleteLink(self, space: Space, o: op.DeleteLink) -> None:
        if o.name in space.links:
            assert space.links[o.name].mark == o.mark, "a foreign link would be deleted"
            self._take_out(space, o.name)

    def MoveLink(self, space: Space, o: op.MoveLink) -> None:
        if o.name not in space.links:
            raise Refused(f"no link {o.name}")
        link = space.links[o.name]
        assert link.mark or space is self.spaces["default"], "a foreign link would be moved"
        self._check_free(self.spaces[o.table], o.new_name)
        self._take_out(space, o.name)
        was = "" if not o.mark else link.was or link.name
        self.spaces[o.table].links[o.new_name] = msgspec.structs.replace(
            link,
            name=o.new_name,
            mark=o.mark,
            was=was,
            up=False,
            master="",
            index=self._next(),
            sysctls=_begun(self.spaces[o.table]),
        )

    def MarkLink(self, space: Space, o: op.MarkLink) -> None:
        link = space.links[o.name]
        space.links[o.name] = msgspec.structs.replace(link, mark=o.mark, was=(link.was or link.name) if o.mark else "")

    def SetLink(self, space: Space, o: op.SetLink) -> None:
        if o.name not in space.links:
            raise Refused(f"no link {o.name}")
        link = space.links[o.name]
        given = {key: getattr(o, key) for key in ("mtu", "up", "master") if getattr(o, key) is not None}
        if o.master and o.master not in space.links:
            raise Refused(f"no master {o.master}")
        space.links[o.name] = msgspec.structs.replace(link, **given, attributes={**link.attributes, **o.attributes})
        if link.up and o.up is False:
            space.neighbors = [each for each in space.neighbors if each.link != o.name]
        if o.new_name is not None:
            self._check_free(space, o.new_name)
            space.links[o.new_name] = msgspec.structs.replace(space.links.pop(o.name), name=o.new_name)
            space.addresses = [
                msgspec.structs.replace(each, link=o.new_name) if each.link == o.name else each for each in space.addresses
            ]
            space.neighbors = [
                msgspec.structs.replace(each, link=o.new_name) if each.link == o.name else each for each in space.neighbors
            ]

    def AddAddress(self, space: Space, o: op.AddAddress) -> None:
        if o.link not in space.links:
            raise Refused(f"no link {o.link}")
        if not any((each.link, each.prefix) == (o.link, o.prefix) for each in space.addresses):
            space.addresses.append(op.Address(link=o.link, prefix=o.prefix, protocol=o.protocol))

    def RemoveAddress(self, space: Space, o: op.RemoveAddress) -> None:
        space.addresses = [
            each for each in space.addresses if (each.link, each.prefix, each.protocol) != (o.link, o.prefix, o.protocol)
        ]

    def PutRoute(self, space: Space, o: op.PutRoute) -> None:
        hops = tuple(self._hop(space, hop) for hop in o.route.next_hops)
        self.RemoveRoute(space, op.RemoveRoute(route=o.route))
        space.routes.append(msgspec.structs.replace(o.route, next_hops=hops))

    def RemoveRoute(self, space: Space, o: op.RemoveRoute) -> None:
        def key(each: op.Route) -> tuple[str, int, int]:
            return each.destination, each.kernel_table, each.metric

        space.routes = [each for each in space.routes if key(each) != key(o.route)]

    def SetSysctl(self, space: Space, o: sysctl.SetSysctl) -> None:
        space.sysctls[o.name] = o.value

    def SetLinkSysctl(self, space: Space, o: sysctl.SetLinkSysctl) -> None:
        if o.link in space.links:
            link = space.links[o.link]
            sysctls = {name: value for name, value in {**link.sysctls, o.name: o.value}.items() if value != "0"}
            space.links[o.link] = msgspec.structs.replace(link, sysctls=sysctls)

    def PutRule(self, space: Space, o: entry.PutRule) -> None:
        if o.rule not in space.rules:
            space.rules.append(o.rule)

    def RemoveRule(self, space: Space, o: entry.RemoveRule) -> None:
        space.rules = [each for each in space.rules if each != o.rule]

    def PutNeighbor(self, space: Space, o: entry.PutNeighbor) -> None:
        if o.neighbor.link not in space.links:
            raise Refused(f"no link {o.neighbor.link}")
        self.RemoveNeighbor(space, entry.RemoveNeighbor(neighbor=o.neighbor))
        space.neighbors.append(o.neighbor)

    def RemoveNeighbor(self, space: Space, o: entry.RemoveNeighbor) -> None:
        def key(each: entry.Neighbor) -> tuple[str, str, bool]:
            return each.link, each.address, each.proxy

        space.neighbors = [each for each in space.neighbors if key(each) != key(o.neighbor)]

    def _hop(self, space: Space, hop: op.NextHop) -> op.NextHop:
        if hop.link:
            if not space.links[hop.link].up:
                raise Refused("network is down")
            return hop
        for each in space.addresses:
            if space.links[each.link].up and ipaddress.ip_address(hop.gateway) in ipaddress.ip_interface(each.prefix).network:
                return msgspec.structs.replace(hop, link=each.link)
        raise Refused("network is unreachable")

    def _check_free(self, space: Space, name: str) -> None:
        if name in space.links:
            raise Refused(f"{name} exists")

    def _take_out(self, space: Space, name: str) -> None:
        """A link goes: so do its addresses and the routes over it, and its ports lose their master."""
        del space.links[name]
        space.addresses = [each for each in space.addresses if each.link != name]
        space.routes = [each for each in space.routes if all(hop.link != name for hop in each.next_hops)]
        space.neighbors = [each for each in space.neighbors if each.link != name]
        for other in list(space.links.values()):
            if other.master == name:
                space.links[other.name] = msgspec.structs.replace(other, master="")

    def _next(self) -> int:
        self.counter += 1
        return self.counter


def _begun(space: Space) -> dict[str, str]:
    """What a link begins with in a namespace."""
    prefix = "net.ipv4.conf.default."
    return {name.removeprefix(prefix): value for name, value in space.sysctls.items() if name.startswith(prefix) and value != "0"}
