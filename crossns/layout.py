"""Where everything lives on the device and under which uid it runs: the one table that supervisor, services and tests share.

Pure. The uids are numeric, from a configurable block: no system user has to exist. A uid's primary gid is the same number.
"""

from dataclasses import dataclass
from pathlib import Path

# Offsets in the uid block. Engines come behind the services.
_UID_OFFSETS = {"etcd": 0, "nsmanager": 1, "proxy": 2, "gateway": 3, "haproxy": 16}
# The groups of those who may open the agents' sockets, and etcd's.
_AGENTS_GROUP_OFFSET, _STORE_GROUP_OFFSET = 30, 31
DEFAULT_UID_BASE = 64100


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths below three roots. `netns` is where `ip netns` looks."""

    run: Path = Path("/run/crossns")
    state: Path = Path("/var/lib/crossns")
    netns: Path = Path("/run/netns")
    uid_base: int = DEFAULT_UID_BASE

    def uid(self, process: str) -> int:
        return self.uid_base + _UID_OFFSETS[process]

    @property
    def agents_gid(self) -> int:
        return self.uid_base + _AGENTS_GROUP_OFFSET

    @property
    def store_gid(self) -> int:
        return self.uid_base + _STORE_GROUP_OFFSET

    def process_of(self, uid: int) -> str | None:
        """The process that runs under `uid`; None for a uid outside the table."""
        return next((name for name, offset in _UID_OFFSETS.items() if self.uid_base + offset == uid), None)

    @property
    def launcher_socket(self) -> Path:
        return self.run / "launcher.sock"

    @property
    def launcher_dir(self) -> Path:
        """The launcher's records, root only."""
        return self.run / "launcher"

    def agent_socket(self, table: str) -> Path:
        """`table` is the route table's id."""
        return self.run / "agents" / f"{table}.sock"

    @property
    def fence_dir(self) -> Path:
        return self.run / "fence"

    @property
    def incarnations(self) -> Path:
        """One nsfs mount per namespace that the launcher made, named `<table>.<cookie>`: its record, and what engines see."""
        return self.run / "netns"

    def service_socket(self, service: str) -> Path:
        """Where a service's gRPC listens; the directory lets only the gateway's uid in."""
        return self.run / "services" / service / "grpc.sock"

    def peer_socket(self, service: str) -> Path:
        """Where a service tells nsmanager its part of an impact; the directory lets only nsmanager's uid in."""
        return self.run / "peers" / service / "grpc.sock"

    @property
    def gateway_socket(self) -> Path:
        return self.run / "gateway" / "gateway.sock"

    @property
    def etcd_dir(self) -> Path:
        """etcd's working directory: it takes no path in a unix URL, only `unix://name:port`, a file there."""
        return self.run / "etcd"

    @property
    def etcd_socket(self) -> Path:
        return self.etcd_dir / "client:0"

    def engine_dir(self, engine: str) -> Path:
        """Its control sockets. Owned by the engine's uid, open to the group of the service that drives it."""
        return self.run / "engines" / engine

    @property
    def haproxy_master(self) -> Path:
        return self.engine_dir("haproxy") / "master.sock"
