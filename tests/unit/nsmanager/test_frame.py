"""Frames of a trial: as the RFCs have them, by examples worked out elsewhere; and read as they were meant."""

import ipaddress

import pytest

from services.nsmanager.agent import frame

MACS = (frame.numbered_mac(7), bytes.fromhex("026372000001"))
V4 = (ipaddress.ip_address("169.254.96.2"), ipaddress.ip_address("169.254.96.1"))
V6 = (ipaddress.ip_address("fe80::2"), ipaddress.ip_address("fe80::1"))


def summed(content: bytes) -> int:
    """The one's complement sum, which is all ones over whatever carries its right checksum (RFC 1071 1)."""
    content += b"\0" * (len(content) % 2)
    total = sum(int.from_bytes(content[at : at + 2], "big") for at in range(0, len(content), 2))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@pytest.mark.parametrize("payload", [b"", b"odd", b"even"])
def test_datagrams_carry_the_right_checksums(payload: bytes) -> None:
    four = frame.datagram(MACS, *V4, 29200, payload)
    assert (four[:6], four[6:12], four[12:14]) == (MACS[1], MACS[0], b"\x08\x00")
    assert summed(four[14:34]) == 0xFFFF
    udp = four[34:]
    assert summed(four[26:34] + b"\0\x11" + len(udp).to_bytes(2, "big") + udp) == 0xFFFF
    six = frame.datagram(MACS, *V6, 29200, payload)
    udp = six[54:]
    assert six[12:14] == b"\x86\xdd"
    assert summed(six[22:54] + len(udp).to_bytes(4, "big") + b"\0\0\0\x11" + udp) == 0xFFFF
    assert udp[8:] == four[42:] == payload


def test_solicitation_goes_to_the_group_of_what_is_asked_for() -> None:
    asked = frame.question(MACS[0], *V6)
    assert asked[:6] == bytes.fromhex("3333ff000001")
    content = asked[54:]
    assert asked[21] == 255
    assert summed(asked[22:54] + len(content).to_bytes(4, "big") + b"\0\0\0\x3a" + content) == 0xFFFF


def test_question_is_no_answer_and_an_answer_says_for_whom() -> None:
    for addresses in (V4, V6):
        assert frame.answered(frame.question(MACS[0], *addresses)) is None
    asked = frame.question(MACS[0], *V4)
    answer = MACS[0] + MACS[1] + asked[12:20] + b"\0\x02" + asked[22:]
    assert frame.answered(answer) == 7
    assert frame.answered(MACS[1] + answer[6:]) is None
    assert frame.answered(b"") is None


def test_seal_tells_trials_apart() -> None:
    assert frame.unsealed(frame.sealed(5, 9), 5) == 9
    assert frame.unsealed(frame.sealed(5, 9), 6) is None
    assert frame.unsealed(b"x", 5) is None
