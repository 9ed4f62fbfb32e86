"""Whose a loopback connection is, from rows as the kernel writes them: nobody becomes root by hanging up."""

import pytest

from gateway import auth

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"
CLIENT, SERVER = ("127.0.0.1", 0xC350), ("127.0.0.1", 0x1D13)


def _row(local: str, remote: str, uid: int, state: str = "01", inode: int = 77) -> str:
    return f"   0: {local} {remote} {state} 00000000:00000000 00:00000000 00000000 {uid:5d}        0 {inode} 1 0000 20 4 30 10 -1"


THEIRS = _row("0100007F:C350", "0100007F:1D13", 1000)
OURS = _row("0100007F:1D13", "0100007F:C350", 64103)


def test_uid_is_that_of_the_row_whose_local_address_is_the_clients() -> None:
    assert auth.find_uid(iter([OURS, THEIRS]), CLIENT, SERVER) == 1000


@pytest.mark.parametrize(
    "row",
    [
        _row("0100007F:C350", "0100007F:1D13", 0, inode=0),
        _row("0100007F:C350", "0100007F:1D13", 0, state="06"),
        _row("0100007F:C350", "0100007F:1D13", 0, state="05"),
        _row("0100007F:C351", "0100007F:1D13", 0),
        _row("0200007F:C350", "0100007F:1D13", 0),
        _row("0100007F:C350", "0100007F:1D14", 0),
    ],
    ids=["closed, held by nobody", "time-wait", "fin-wait", "another port", "another address", "to another server"],
)
def test_uid_of_what_is_not_that_living_connection_is_not_taken(row: str) -> None:
    assert auth.find_uid(iter([row]), CLIENT, SERVER) is None
    assert auth.find_uid(iter([row, THEIRS]), CLIENT, SERVER) == 1000


def test_ipv6_is_found_by_words_in_the_machines_byte_order() -> None:
    loopback = "00000000000000000000000001000000"
    row = _row(f"{loopback}:C350", f"{loopback}:1D13", 5)
    assert auth.find_uid(iter([row]), ("::1", 0xC350), ("::1", 0x1D13)) == 5


def test_ipv4_client_on_an_ipv6_socket_is_found() -> None:
    mapped = "0000000000000000FFFF00000100007F"
    row = _row(f"{mapped}:C350", f"{mapped}:1D13", 6)
    assert auth.find_uid(iter([row]), CLIENT, SERVER) == 6


def test_only_named_uids_are_somebody() -> None:
    uids = auth.Uids([1000])
    assert {who.name for who in uids.identities} >= {"uid:0", "uid:1000", "anonymous"}
    assert [who.role for who in uids.identities if who.name == "anonymous"] == ["anonymous"]
