"""Who a caller is: by the uid behind a socket of this device, by the certificate beyond it.

The kernel says whose a unix socket is (SO_PEERCRED) and, in /proc/net/tcp, whose a TCP socket on loopback is. gRPC shows
neither, so `relay` asks here as it accepts and hands the connection to the private listener of that identity.
"""

import ipaddress
import os
import socket
import struct
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import grpc

from crossns import rpc
from gateway.settings import Tls

_UCRED = struct.Struct("3i")
_ESTABLISHED = "01"
NET = Path("/proc/net")
_TABLES = ("tcp", "tcp6")


class Uids:
    """The identities of this device's users. Beside root and the gateway's own uid, `admins` may do everything."""

    def __init__(self, admins: Collection[int]) -> None:
        self._known = {uid: rpc.Identity(f"uid:{uid}", "admin") for uid in (0, os.geteuid(), *admins)}

    @property
    def identities(self) -> tuple[rpc.Identity, ...]:
        return (*self._known.values(), rpc.ANONYMOUS)

    def identify(self, connection: socket.socket, net: Path = NET) -> tuple[int | None, rpc.Identity]:
        """The uid at the other end (None: the kernel cannot tell) and who that is. `net` is /proc/net as a process in the
        connection's namespace sees it."""
        uid = peer_uid(connection, net)
        return uid, rpc.ANONYMOUS if uid is None else self._known.get(uid, rpc.ANONYMOUS)


def peer_uid(connection: socket.socket, net: Path) -> int | None:
    """Whose the other end of an accepted unix or loopback TCP connection is."""
    if connection.family == socket.AF_UNIX:
        return int(_UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))[1])
    try:
        client, server = connection.getpeername()[:2], connection.getsockname()[:2]
    except OSError:
        # Gone already.
        return None
    return find_uid((row for table in _TABLES for row in _rows(net / table)), client, server)


def _rows(table: Path) -> Sequence[str]:
    try:
        return table.read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        # The kernel has no IPv6, or the process whose view this is has ended.
        return ()


def find_uid(rows: Iterator[str], client: tuple[str, int], server: tuple[str, int]) -> int | None:
    """The uid in the row of /proc/net/tcp or tcp6 (proc(5)) that is the client's end of the connection.

    Only of an established socket that a process holds: the kernel shows uid 0 for one that was closed (inode 0), and nobody
    shall become root by hanging up.
    """
    wanted = {(local, remote) for local, remote in zip(_spellings(*client), _spellings(*server), strict=True)}
    for row in rows:
        fields = row.split()
        if (fields[1], fields[2]) in wanted and fields[3] == _ESTABLISHED and fields[9] != "0":
            return int(fields[7])
    return None


def _spellings(host: str, port: int) -> Iterator[str]:
    """An address as those tables have it: words of 32 bits in the machine's byte order. An IPv4 one also as IPv6 knows it."""
    address = ipaddress.ip_address(host)
    forms = [address.packed, b"\0" * 10 + b"\xff\xff" + address.packed] if address.version == 4 else [address.packed]
    for packed in forms:
        words = struct.unpack(f"={len(packed) // 4}I", packed)
        yield "".join(f"{word:08X}" for word in words) + f":{port:04X}"


def credentials(tls: Tls) -> grpc.ServerCredentials:
    """Of a listener that only takes clients with a certificate."""
    pair = (tls.key.read_bytes(), tls.cert.read_bytes())
    return grpc.ssl_server_credentials([pair], root_certificates=tls.client_ca.read_bytes(), require_client_auth=True)


def by_certificate(context: rpc.Context) -> rpc.Identity:
    """The caller by the common name of the certificate that TLS has verified."""
    names = tuple(context.auth_context().get("x509_common_name", ()))
    return rpc.Identity(f"cert:{names[0].decode(errors='replace')}", "admin") if names else rpc.ANONYMOUS
