"""Settings that every process of the suite shares, read once from the environment by `__main__` modules.

Variables: CROSSNS_DEVICE, CROSSNS_RUN_DIR, CROSSNS_STATE_DIR, CROSSNS_NETNS_DIR, CROSSNS_UID_BASE, CROSSNS_ETCD,
CROSSNS_ETCD_CA, CROSSNS_ETCD_CERT, CROSSNS_ETCD_KEY, CROSSNS_LOG. OTEL_EXPORTER_OTLP_ENDPOINT is read by `telemetry`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from crossns import errors, names
from crossns.layout import DEFAULT_UID_BASE, Layout


@dataclass(frozen=True, slots=True)
class Etcd:
    """How to reach etcd. `endpoints` are gRPC targets: `host:port`, several for a cluster; `unix:PATH` for the embedded one."""

    endpoints: tuple[str, ...]
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    # Begins every etcd key, so that one cluster can carry many devices.
    device: str = "local"
    layout: Layout = field(default_factory=Layout)
    etcd: Etcd = Etcd(("unix:/run/crossns/etcd/client:0",))
    # DEBUG, INFO, WARNING or ERROR.
    log_level: str = "INFO"


def from_environ(environ: Mapping[str, str]) -> Settings:
    """Settings from CROSSNS_* variables; InvalidSpec names the variable that is wrong."""

    def path(variable: str) -> Path | None:
        return Path(environ[variable]) if environ.get(variable) else None

    uid_base = environ.get("CROSSNS_UID_BASE") or str(DEFAULT_UID_BASE)
    if not uid_base.isdecimal() or not 0 < int(uid_base) < 2**31:
        raise errors.InvalidSpec("CROSSNS_UID_BASE", "must be the first of a block of 32 unused uids, such as 64100")
    default = Layout()
    layout = Layout(
        run=path("CROSSNS_RUN_DIR") or default.run,
        state=path("CROSSNS_STATE_DIR") or default.state,
        netns=path("CROSSNS_NETNS_DIR") or default.netns,
        uid_base=int(uid_base),
    )
    endpoints = tuple(part.strip() for part in environ.get("CROSSNS_ETCD", "").split(",") if part.strip())
    etcd = Etcd(
        endpoints=endpoints or (f"unix:{layout.etcd_socket}",),
        ca=path("CROSSNS_ETCD_CA"),
        cert=path("CROSSNS_ETCD_CERT"),
        key=path("CROSSNS_ETCD_KEY"),
    )
    return Settings(
        device=names.check_id(environ.get("CROSSNS_DEVICE") or "local", "CROSSNS_DEVICE"),
        layout=layout,
        etcd=etcd,
        log_level=environ.get("CROSSNS_LOG") or "INFO",
    )
