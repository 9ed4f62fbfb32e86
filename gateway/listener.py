"""Everything that clients connect to: the unix socket, TCP on loopback, TLS beyond it, all this in route tables too; and what
stands behind each.

Every identity has a gRPC server of its own on a socket that only this process can open; the relay leads each client to the one
that is his. TLS ends in gRPC, which knows the certificate.
"""

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from crossns import rpc
from crossns.layout import Layout
from gateway import auth
from gateway.outpost import Outpost
from gateway.relay import Guide, Relay
from gateway.settings import Address, Settings, Tls

# Running calls may take this long to end before they are cancelled; watches never end by themselves.
STOP_GRACE_S = 1.0
# The private listener of those whom TLS identifies.
_TLS = "tls"


@asynccontextmanager
async def listening(layout: Layout, wanted: Settings, services: Mapping[str, rpc.Service]) -> AsyncIterator[list[int]]:
    """Serve on the unix socket and all of `wanted.listen` while the block runs, which is told the TCP ports, those on loopback
    first and those in route tables not at all. Leaving it ends in order: no new clients, running calls their grace, then the
    connections."""
    uids = auth.Uids(wanted.admin_uids)
    private = layout.gateway_socket.parent / "private"
    private.mkdir(mode=0o700, exist_ok=True)
    servers = [_of_identity(who, f"unix:{private / who.name}", services) for who in uids.identities]
    exposed = list(_behind_tls(wanted.listen, private))
    if wanted.tls is not None and exposed:
        servers.append(_of_certificates(wanted.tls, exposed, services))
    guides = _Guides(uids, private)
    relay = Relay()
    outposts = [Outpost(layout, addresses, relay, guides.in_table) for addresses in _by_table(wanted.listen)]
    try:
        for server in servers:
            await server.start()
        relay.listen_unix(layout.gateway_socket, guides.by_uid)
        ports = [relay.listen_tcp(each, guides.by_uid) for each in wanted.listen if not each.table and each.host.is_loopback]
        async with asyncio.TaskGroup() as tasks:
            accepting = [tasks.create_task(relay.run()), *(tasks.create_task(each.run()) for each in outposts)]
            yield ports + [port for server in servers for port in server.ports]
            for task in accepting:
                task.cancel()
    finally:
        await asyncio.gather(*(server.stop(STOP_GRACE_S) for server in servers))
        relay.close()


class _Guides:
    def __init__(self, uids: auth.Uids, private: Path) -> None:
        self._uids, self._private = uids, private

    def by_uid(self, client: socket.socket, net: Path = auth.NET) -> tuple[str, Path]:
        uid, identity = self._uids.identify(client, net)
        return f"uid {uid}", self._private / identity.name

    def in_table(self, address: Address, net: Callable[[], Path]) -> Guide:
        """The same rules in a table: on loopback the uid says who it is, beyond it the certificate."""
        if address.host.is_loopback:
            return lambda client: self.by_uid(client, net())
        return lambda client: (_host(client), self._private / _TLS)


def _host(client: socket.socket) -> str:
    try:
        return str(client.getpeername()[0])
    except OSError:
        return "somebody who has gone already"


def _by_table(addresses: Iterable[Address]) -> Iterable[list[Address]]:
    """Each once: an agent has one session with this process."""
    inside = sorted({each for each in addresses if each.table}, key=str)
    return [list(group) for _, group in itertools.groupby(inside, lambda each: each.table)]


def _behind_tls(addresses: Iterable[Address], private: Path) -> Iterable[str]:
    exposed = [each for each in addresses if not each.host.is_loopback]
    yield from (str(each) for each in exposed if not each.table)
    if any(each.table for each in exposed):
        yield f"unix:{private / _TLS}"


def _of_identity(who: rpc.Identity, address: str, services: Mapping[str, rpc.Service]) -> rpc.Server:
    return rpc.Server(address, services, rpc.by_role, ready=_is_ready, identify=lambda _context: who)


def _of_certificates(tls: Tls, addresses: list[str], services: Mapping[str, rpc.Service]) -> rpc.Server:
    credentials = auth.credentials(tls)
    return rpc.Server(addresses, services, rpc.by_role, ready=_is_ready, credentials=credentials, identify=auth.by_certificate)


def _is_ready() -> bool:
    """Who is asked is there; what stands behind answers for itself."""
    return True
