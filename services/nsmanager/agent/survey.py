"""A look at the whole device: every network namespace with its links, where each link leads, and who holds what elsewhere.

Forked by the zygote at the launcher's request, with the launcher's power to look into every process, and gone when it has
written what it saw. It reads and changes nothing. Many tables cost as often as one: which namespace a link leads to is asked of
those only that have a link which fits. Whatever cannot be looked at is told, and holds up nothing else.
"""

import dataclasses
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
from pyroute2.netlink import nlmsg
from pyroute2.netlink.rtnl import RTM_GETNSID
from pyroute2.netlink.rtnl.nsidmsg import nsidmsg

from crossns import errors, netns, proof
from crossns.layout import Layout
from services.nsmanager.agent import holders, observe
from services.nsmanager.agent.processes import Process, processes
from services.nsmanager.agent.rtnl import Refused, Rtnl
from services.nsmanager.launcher import confined, place, records, session

# Kinds whose IFLA_LINK says where their frames come out. Of others, such as tunnels, it is what the packets around them take, and
# that matters only where IFLA_LINK_NETNSID says that these leave in another namespace.
_JOINED = frozenset(("veth", "netkit", "macvlan", "macvtap", "ipvlan", "ipvtap", "vlan"))
_PAIRED = frozenset(("veth", "netkit"))
# Of the calling thread's namespace.
_CONF = Path("/proc/sys/net")


@dataclass(frozen=True, slots=True)
class _Link:
    """As one namespace shows it. `lower`: an index, in the namespace that this one knows by the number `nsid` (None: itself)."""

    shown: proof.Link
    lower: int
    nsid: int | None

    @property
    def is_joined(self) -> bool:
        return self.shown.kind in _JOINED and self.lower != 0


@dataclass(frozen=True, slots=True)
class _View:
    """`dark`: why its links are not known, "" where they are."""

    inode: int
    path: Path
    tables: tuple[str, ...]
    place: str
    links: tuple[_Link, ...] = ()
    forwards: bool = False
    dark: str = ""


def write(out: int, layout: Layout) -> None:
    """Survey the device, the answer as MessagePack to the file descriptor `out`."""
    content = msgspec.msgpack.encode(survey(layout))
    with open(out, "wb") as file:
        file.write(content)


def survey(layout: Layout) -> proof.Surveyed:
    found = list(processes())
    own = _own(layout)
    views: dict[int, _View] = {}
    _add(views, _places(layout, found))
    held = holders.look(found, own, views.keys(), layout)
    _add(views, _kept(held))
    return proof.Surveyed(
        namespaces=tuple(_resolved(views)),
        holders=tuple(told for each in found if (told := holders.holder(each, held)) is not None),
        processes=len(found),
        own=sum(each.pid in own for each in found),
        unseen=tuple(held.unseen.values()),
    )


def _own(layout: Layout) -> set[int]:
    """The privileged tree (launcher, zygote, agents, this process) and the engine, by what they were recorded as."""
    paths = [place.launcher_record(layout), *place.agent_records(layout).iterdir()]
    found = (records.read(path, records.Process) for path in paths)
    engine = records.read(place.engine_record(layout), records.Process)
    members = confined.session_members(engine, layout.uid("haproxy")) if engine else ()
    return {os.getpid(), os.getppid(), *(each.pid for each in (*found, *members) if each is not None)}


def _add(views: dict[int, _View], places: Iterable[tuple[Path, str, str]]) -> None:
    """Each namespace by its inode, under the best of its names."""
    for path, table, where in places:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            # It ended meanwhile.
            continue
        try:
            inode = os.fstat(fd).st_ino
            if inode in views:
                view = views[inode]
                views[inode] = dataclasses.replace(view, tables=(*view.tables, *filter(None, (table,))))
            elif netns.is_namespace(path):
                views[inode] = _looked_at(fd, _View(inode, path, tuple(filter(None, (table,))), where))
        finally:
            os.close(fd)


def _looked_at(fd: int, view: _View) -> _View:
    try:
        links, forwards = netns.inside(fd, lambda: (_links(), _forwards()))
        return dataclasses.replace(view, links=links, forwards=forwards)
    except (OSError, ValueError, errors.CrossnsError) as error:
        # Such as a link with a name that is no text.
        return dataclasses.replace(view, dark=str(error))


def _places(layout: Layout, found: list[Process]) -> Iterator[tuple[Path, str, str]]:
    """Path, table and place of every namespace that has a name or somebody who lives in it; tables come first."""
    for path in sorted(layout.incarnations.iterdir()):
        yield path, path.name.rpartition(".")[0], str(path)
    for path, where in _mounted(found):
        yield path, "", where
    told: set[int] = set()
    for each in found:
        for thread in each.threads:
            if thread.namespace not in told:
                told.add(thread.namespace)
                yield Path(f"/proc/{each.pid}/task/{thread.id}/ns/net"), "", f"of process {each.pid} ({each.name})"


def _kept(held: holders.Held) -> Iterator[tuple[Path, str, str]]:
    """Those that only something held by a process keeps."""
    for fd, pid in held.namespaces.values():
        yield Path(f"/proc/self/fd/{fd}"), "", f"held by process {pid}"


def _mounted(found: list[Process]) -> Iterator[tuple[Path, str]]:
    """Namespaces with a name in any file system of the device (proc_pid_mountinfo(5): field 4 is `net:[inode]`, 5 where)."""
    for task in {thread.mounts: f"{each.pid}/task/{thread.id}" for each in reversed(found) for thread in each.threads}.values():
        try:
            lines = Path(f"/proc/{task}/mountinfo").read_bytes().splitlines()
        except OSError:
            continue
        for line in lines:
            fields = line.split(b" ")
            if fields[3].startswith(b"net:["):
                where = re.sub(rb"\\([0-7]{3})", lambda code: bytes([int(code[1], 8)]), fields[4])
                yield Path(f"/proc/{task}/root{os.fsdecode(where)}"), where.decode(errors="replace")


def _links() -> tuple[_Link, ...]:
    rtnl = Rtnl(session.Tally())
    try:
        return tuple(_link(message) for message in observe.dumped_links(rtnl))
    finally:
        rtnl.close()


def _forwards() -> bool:
    """IPv4 asks the link by which a packet comes in; IPv6 all of the namespace, or (since Linux 6.17) that link."""
    found = [path for path in _CONF.glob("ipv4/conf/*/forwarding") if path.parent.name not in {"all", "default", "lo"}]
    found += [*_CONF.glob("ipv6/conf/all/forwarding"), *_CONF.glob("ipv6/conf/*/force_forwarding")]
    return any(_is_set(path) for path in found)


def _is_set(path: Path) -> bool:
    try:
        return path.read_text(encoding="ascii").strip() != "0"
    except FileNotFoundError:
        # The link went meanwhile.
        return False


def _link(message: nlmsg) -> _Link:
    information = message.get_attr("IFLA_LINKINFO")
    kind = (information.get_attr("IFLA_INFO_KIND") if information else None) or ""
    content = information.get_attr("IFLA_INFO_DATA") if information else None
    nsid = message.get_attr("IFLA_LINK_NETNSID")
    shown = proof.Link(
        index=message["index"],
        name=message.get_attr("IFLA_IFNAME"),
        kind=kind,
        marks=tuple(observe.altnames(message)),
        master=message.get_attr("IFLA_MASTER") or 0,
        vlan_id=(content.get_attr("IFLA_VLAN_ID") or 0) if kind == "vlan" and content else 0,
    )
    return _Link(shown, message.get_attr("IFLA_LINK") or 0, nsid)


def _resolved(views: dict[int, _View]) -> Iterator[proof.Namespace]:
    """Every namespace, with the ends of its links in whatever namespace they are."""
    candidates: defaultdict[tuple[int, int], list[_View]] = defaultdict(list)
    for view in views.values():
        for link in view.links:
            # Of a veth both ends name each other; anything can be what a macvlan sits on.
            candidates[link.shown.index, 0].append(view)
            candidates[link.shown.index, link.lower].append(view)
    # A tunnel names no link of the other side, and many mostly lead into one namespace: that is asked of first.
    entered = dict(views)
    for view in views.values():
        numbers: dict[int, int] = {}
        links = []
        for link in view.links:
            fitting = candidates[link.lower, link.shown.index if link.shown.kind in _PAIRED else 0]
            links.append(shown := _with_lower(view, link, fitting if link.is_joined else entered.values(), numbers))
            if not link.is_joined and shown.lower is not None and shown.lower.namespace not in {0, next(iter(entered))}:
                entered = {shown.lower.namespace: views[shown.lower.namespace], **entered}
        yield proof.Namespace(
            inode=view.inode, tables=view.tables, place=view.place, links=tuple(links), forwards=view.forwards, dark=view.dark
        )


def _with_lower(view: _View, link: _Link, fitting: Iterable[_View], numbers: dict[int, int]) -> proof.Link:
    """`numbers`: what is known by now of how `view` numbers other namespaces."""
    if not link.is_joined and link.nsid is None:
        return link.shown
    inode = view.inode if link.nsid is None else numbers.get(link.nsid, 0)
    if not inode and link.nsid is not None:
        inode = numbers[link.nsid] = _numbered(view, link.nsid, fitting)
    return msgspec.structs.replace(link.shown, lower=proof.End(inode, link.lower if link.is_joined else 0))


def _numbered(view: _View, number: int, fitting: Iterable[_View]) -> int:
    """The one of `fitting` that `view` knows by that number, by its inode; 0 where it is none (RTM_GETNSID)."""
    try:
        fd = os.open(view.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        return netns.inside(fd, lambda: _asked(number, fitting))
    finally:
        os.close(fd)


def _asked(number: int, fitting: Iterable[_View]) -> int:
    rtnl = Rtnl(session.Tally())
    try:
        return next((each.inode for each in fitting if _number(rtnl, each.path) == number), 0)
    finally:
        rtnl.close()


def _number(rtnl: Rtnl, path: Path) -> int:
    """Below 0 where there is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -2
    request = nsidmsg()
    request["attrs"] = [("NETNSA_FD", fd)]
    try:
        (answer,) = rtnl.get(RTM_GETNSID, request)
    except Refused:
        return -2
    finally:
        os.close(fd)
    number = answer.get_attr("NETNSA_NSID")
    return int(number) if number is not None and number < 1 << 31 else -2
