"""What the access log says: the formats in which HAProxy tells of a connection or request, and the record that a line means.

The renderer puts TCP_FORMAT or HTTP_FORMAT into the file, the driver parses what HAProxy sends. Invariant: what a client chooses
(method and path) stands last and is matched last, so that it is never taken for another field, whatever it is. Pure.
"""

import re
from dataclasses import dataclass

# `log-format` (HAProxy 2.6 configuration manual, 8.2.4). `fc_dst`, not `%fi`: a header of the PROXY protocol changes the latter.
_BOTH = "|%f|%[so_name]|%ci|%cp|%[fc_dst]|%[fc_dst_port]|%b|%s|%si|%sp|%Tw|%Tc|%U|%B|%ts"
TCP_FORMAT = f"tcp{_BOTH}|%Tt"
# A method is a token (RFC 9110, 5.6.2), which may have a bar in it, but no comma.
HTTP_FORMAT = f"http{_BOTH}|%Ta|%Tr|%ST|%HM,%HPO"
# For `log ... len`: the longest names and addresses, and a path of 1024 bytes (tune.http.logurilen). What is longer is cut.
LINE_MAX_BYTES = 2048

_ID = r"[a-z][a-z0-9-]{0,62}"
_SLOT = rf"({_ID}|_[0-9]{{1,9}})"
_NAMESPACE = rf"({_ID})\.[0-9]{{1,20}}"
# An address, or what HAProxy says where there is none; a header of the PROXY protocol may tell of a client without one.
_ADDRESS = r"(?:([0-9a-f.:]{2,45})|[a-z<>-]{1,15})"
_NUMBER = r"(?:([0-9]{1,19})|-[0-9]{0,18}|)"
_LINE = re.compile(
    rf"(?:tcp|(?P<http>http))\|vs\.({_ID})\.fe\.({_ID})\|{_NAMESPACE}\|{_ADDRESS}\|{_NUMBER}\|{_ADDRESS}\|{_NUMBER}"
    rf"\|vs\.{_ID}\.(?:po\.({_ID})|fe\.{_ID})\|(?:{_SLOT}\.{_NAMESPACE}|<[A-Z]{{1,15}}>)\|{_ADDRESS}\|{_NUMBER}"
    rf"\|{_NUMBER}\|{_NUMBER}\|{_NUMBER}\|{_NUMBER}\|([A-Za-z-]{{2}})"
    rf"\|{_NUMBER}(?(http)\|{_NUMBER}\|{_NUMBER}\|([^,]{{1,1024}}),(.*))",
    re.ASCII | re.DOTALL,
)
# Stands for the method and the path of what was no request.
_BAD_REQUEST = "<BADREQ>"


@dataclass(frozen=True, slots=True)
class Record:
    """One connection (TCP) or request (HTTP), when it is over. None: there was none, or it is not told.

    `v_service` and the route tables are resource names; `client` is the one that the PROXY protocol told, where it did; `member`
    is what one was connected to. `queue_ms` and `connect_ms` are what was waited for a place on the member and for it to accept,
    `answer_ms` for the head of its answer, `total_ms` is everything. Bytes are seen from the client. `ended` has HAProxy's two
    letters for how (configuration manual, 8.5): `--` is well.
    """

    v_service: str
    frontend: str
    route_table: str
    client_address: str | None
    client_port: int | None
    vip: str | None
    vip_port: int | None
    pool: str | None
    member: str | None
    member_route_table: str | None
    member_address: str | None
    member_port: int | None
    queue_ms: int | None
    connect_ms: int | None
    total_ms: int | None
    received_bytes: int | None
    sent_bytes: int | None
    ended: str
    answer_ms: int | None = None
    status: int | None = None
    method: str | None = None
    path: str | None = None

    def shown(self) -> dict[str, str | int]:
        """What there is, by field."""
        return {name: value for name in self.__slots__ if (value := getattr(self, name)) is not None}


def parse(line: bytes) -> Record | None:
    """None for what is no record, such as HAProxy's notices of its own."""
    found = _LINE.fullmatch(line.decode(errors="replace").removesuffix("\n"))
    if found is None:
        return None
    fields = found.groups()[1:]
    service, frontend, table, client, client_port, vip, vip_port, pool = fields[:8]
    slot, member_table, member_address, member_port, queue, connect, received, sent, ended = fields[8:17]
    total, answer, status, method, path = fields[17:]
    is_connected = connect is not None
    is_request = method != _BAD_REQUEST
    return Record(
        v_service=f"vServices/{service}",
        frontend=frontend,
        route_table=f"routeTables/{table}",
        client_address=client,
        client_port=_number(client_port),
        vip=vip,
        vip_port=_number(vip_port),
        pool=pool,
        member=slot if is_connected and slot and not slot.startswith("_") else None,
        member_route_table=f"routeTables/{member_table}" if is_connected and member_table else None,
        member_address=member_address if is_connected else None,
        member_port=_number(member_port) if is_connected else None,
        queue_ms=_number(queue),
        connect_ms=_number(connect),
        total_ms=_number(total),
        received_bytes=_number(received),
        sent_bytes=_number(sent),
        ended=ended,
        answer_ms=_number(answer),
        status=_number(status),
        method=method if is_request else None,
        path=path or None if is_request else None,
    )


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)
