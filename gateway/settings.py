"""What the gateway alone is set by: flags of `python -m gateway`, or the variables that stand in for them under a supervisor.

Read once, by `__main__`. What would open the device to strangers is refused here: no address beyond loopback without TLS.
"""

import argparse
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from crossns import errors, names

UID_MAX = 2**32 - 2


@dataclass(frozen=True, slots=True)
class Address:
    """Where TCP is listened for; port 0 lets the kernel choose. `table` is a route table's id, "" the gateway's own namespace."""

    host: ipaddress.IPv4Address | ipaddress.IPv6Address
    port: int
    table: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if self.host.version == 6 else str(self.host)
        return ":".join((*filter(None, [self.table]), host, str(self.port)))


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files: the gateway's certificate and key, and who signs the certificates of its clients."""

    cert: Path
    key: Path
    client_ca: Path


@dataclass(frozen=True, slots=True)
class Settings:
    # Beside root and the gateway's own uid: who may change the device from the device itself.
    admin_uids: frozenset[int] = frozenset()
    listen: tuple[Address, ...] = ()
    tls: Tls | None = None
    # Where Prometheus finds the metrics; nowhere unless asked.
    metrics: Address | None = None


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Settings from flags, else from variables; InvalidSpec says which is wrong and what to do. `--help` exits by itself."""
    given = _parser(environ).parse_args(argv)
    listen = tuple(_address_in_table("--listen", text) for text in given.listen)
    metrics = _address("--metrics", given.metrics) if given.metrics else None
    files: list[Path | None] = [given.tls_cert, given.tls_key, given.client_ca]
    if any(files) and None in files:
        raise errors.InvalidSpec("--tls-cert", "belongs with --tls-key and --client-ca: give all three, or none")
    cert, key, client_ca = files
    tls = Tls(cert, key, client_ca) if cert and key and client_ca else None
    if tls is None:
        for flag, address in (*(("--listen", each) for each in listen), *((("--metrics", metrics),) if metrics else ())):
            _check_loopback(flag, address)
    return Settings(frozenset(_uid(text) for text in given.admin_uid), listen, tls, metrics)


def _check_loopback(flag: str, address: Address) -> None:
    if not address.host.is_loopback:
        message = (
            f"{address} can be reached from other machines: give --tls-cert, --tls-key and --client-ca, so that clients show"
            " certificates; or listen on 127.0.0.1 or [::1]"
        )
        raise errors.InvalidSpec(flag, message, address=address)


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m gateway",
        description="One gRPC address for all services of the device. Always listens on its unix socket, where callers are known"
        " by their uid: root, the gateway's own uid and those of --admin-uid are admins, all others are refused.",
        epilog="Shared settings (CROSSNS_DEVICE, CROSSNS_RUN_DIR, CROSSNS_ETCD...) and telemetry: gateway/README.md."
        " Exit status: 0 stopped, 1 failed, 2 wrong settings.",
    )
    for flag, metavar, text in (
        ("--admin-uid", "UID", "one more uid that may do everything; repeatable"),
        ("--listen", "[TABLE:]ADDRESS:PORT", "listen on TCP too, in a route table if one is named; repeatable"),
    ):
        variable = _variable(flag)
        default = [part.strip() for part in environ.get(variable, "").split(",") if part.strip()]
        parser.add_argument(flag, metavar=metavar, action="append", default=default, help=f"{text} [{variable}, with commas]")
    variable = _variable("--metrics")
    text = f"tell Prometheus there, over HTTP at /metrics, what is counted [{variable}]"
    parser.add_argument("--metrics", metavar="ADDRESS:PORT", default=environ.get(variable, ""), help=text)
    for flag, text in (
        ("--tls-cert", "certificate that the gateway shows beyond loopback, PEM"),
        ("--tls-key", "its key"),
        ("--client-ca", "who signs the clients' certificates; a client's common name is who it is, and it is an admin"),
    ):
        variable = _variable(flag)
        default_path = Path(environ[variable]) if environ.get(variable) else None
        parser.add_argument(flag, metavar="FILE", type=Path, default=default_path, help=f"{text} [{variable}]")
    return parser


def _variable(flag: str) -> str:
    return f"CROSSNS_GATEWAY_{flag.removeprefix('--').replace('-', '_').upper()}"


def _uid(text: str) -> int:
    if not text.isdecimal() or int(text) > UID_MAX:
        raise errors.InvalidSpec("--admin-uid", f"{errors.bounded(text)!r} is not a uid: give a number, such as 1000")
    return int(text)


def _address_in_table(flag: str, text: str) -> Address:
    table, colon, rest = text.partition(":")
    # Of an address alone, the first part is that of an IPv4 one, or begins an IPv6 one.
    if not colon or ":" not in rest or text.startswith("["):
        return _address(flag, text)
    return replace(_address(flag, rest), table=names.check_id(table, flag))


def _address(flag: str, text: str) -> Address:
    host, _, port = text.rpartition(":")
    try:
        address = Address(ipaddress.ip_address(host.removeprefix("[").removesuffix("]")), int(port))
    except ValueError:
        address = None
    if address is None or not 0 <= address.port <= 65535 or (address.host.version == 6) != host.startswith("["):
        message = f"{errors.bounded(text)!r} is not ADDRESS:PORT: give one such as 127.0.0.1:7443 or [::1]:7443"
        raise errors.InvalidSpec(flag, message)
    return address
