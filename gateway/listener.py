"""Everything that clients connect to: the unix socket, TCP on loopback, TLS beyond it; and what stands behind each.

Every identity has a gRPC server of its own on a socket that only this process can open; the relay leads each client to the one
that is his. TLS ends in gRPC, which knows the certificate.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from crossns import rpc
from gateway import auth
from gateway.relay import Relay
from gateway.settings import Settings, Tls

# Running calls may take this long to end before they are cancelled; watches never end by themselves.
STOP_GRACE_S = 1.0


@asynccontextmanager
async def listening(path: Path, wanted: Settings, services: Mapping[str, rpc.Service]) -> AsyncIterator[list[int]]:
    """Serve on the unix socket `path` and all of `wanted.listen` while the block runs, which is told the TCP ports, those on
    loopback first. Leaving it ends in order: no new clients, running calls their grace, then the connections."""
    uids = auth.Uids(wanted.admin_uids)
    private = path.parent / "private"
    private.mkdir(mode=0o700, exist_ok=True)
    servers = [_of_identity(who, f"unix:{private / who.name}", services) for who in uids.identities]
    exposed = [str(address) for address in wanted.listen if not address.host.is_loopback]
    if wanted.tls is not None and exposed:
        servers.append(_of_certificates(wanted.tls, exposed, services))
    relay = Relay(uids, lambda who: private / who.name)
    try:
        for server in servers:
            await server.start()
        relay.listen_unix(path)
        ports = [relay.listen_tcp(address) for address in wanted.listen if address.host.is_loopback]
        async with asyncio.TaskGroup() as tasks:
            accepting = tasks.create_task(relay.run())
            yield ports + [port for server in servers for port in server.ports]
            accepting.cancel()
    finally:
        await asyncio.gather(*(server.stop(STOP_GRACE_S) for server in servers))
        relay.close()


def _of_identity(who: rpc.Identity, address: str, services: Mapping[str, rpc.Service]) -> rpc.Server:
    return rpc.Server(address, services, rpc.by_role, ready=_is_ready, identify=lambda _context: who)


def _of_certificates(tls: Tls, addresses: list[str], services: Mapping[str, rpc.Service]) -> rpc.Server:
    credentials = auth.credentials(tls)
    return rpc.Server(addresses, services, rpc.by_role, ready=_is_ready, credentials=credentials, identify=auth.by_certificate)


def _is_ready() -> bool:
    """Who is asked is there; what stands behind answers for itself."""
    return True
