"""What a table shows of a trial, whoever's it is: found by the trial's marks, not by what this table put there.

Called by `trial`.
"""

import socket
import struct
from collections.abc import Iterator

from pyroute2.netlink.rtnl import RTM_GETNEIGH, RTM_GETROUTE
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from crossns import netns, proof
from services.nsmanager.agent import frame, holding, throwaway
from services.nsmanager.agent.holding import Trial
from services.nsmanager.agent.rtnl import Rtnl

_FRAME_MAX = 2048
# linux/if_packet.h: what others on this side have sent.
_PACKET_OUTGOING = 4
_NDA_LLADDR = 2


def read(rtnl: Rtnl, trial: Trial | None) -> proof.Traces:
    """`trial` is the table's own, None where it has ended."""
    counted = _counted(trial) if trial is not None else None
    return proof.Traces(
        cookie=netns.cookie(),
        links=throwaway.shown(rtnl),
        routes=tuple(_routes(rtnl)),
        rules=tuple(rule.get_attr("FRA_FWMARK") or 0 for rule in throwaway.rules(rtnl)),
        neighbors=tuple(_neighbors(rtnl)),
        arp_answers=tuple(_answers(trial)) if trial is not None else (),
        datagrams=tuple(_datagrams(trial)) if trial is not None else (),
        counted=counted,
        sent=trial.sent if trial is not None else 0,
    )


def is_settled(trial: Trial) -> bool:
    """Whether as much has come through the firewall as was sent, with the number and without."""
    counted = _counted(trial)
    return counted is None or sum(counted) >= 2 * trial.sent


def _counted(trial: Trial) -> tuple[int, int] | None:
    """What its rules let pass and what they dropped; None where it has none."""
    rules = trial.ruleset
    return None if rules is None else (rules.counted(holding.PASSED), rules.counted(holding.DROPPED))


def _routes(rtnl: Rtnl) -> Iterator[int]:
    request = rtmsg()
    request["family"], request["proto"] = socket.AF_UNSPEC, proof.TRIAL_PROTOCOL
    for message in rtnl.dump(RTM_GETROUTE, request):
        if message["proto"] == proof.TRIAL_PROTOCOL:
            yield holding.number_of(message.get_attr("RTA_DST"))


def _neighbors(rtnl: Rtnl) -> Iterator[int]:
    """On whatever link: the attribute begins with what all MAC addresses of trials begin with."""
    held = struct.pack("HH", 10, _NDA_LLADDR) + frame.numbered_mac(0)[:4]
    for message in rtnl.dump(RTM_GETNEIGH, ndmsg(), held):
        number = frame.number_of(bytes.fromhex((message.get_attr("NDA_LLADDR") or "").replace(":", "")))
        if number is not None:
            yield number


def _answers(trial: Trial) -> Iterator[int]:
    while trial.wire is not None:
        try:
            received, sender = trial.wire.recvfrom(_FRAME_MAX)
        except OSError:
            # Nothing more, or somebody took the link.
            return
        number = frame.answered(received)
        if number is not None and sender[2] != _PACKET_OUTGOING:
            yield number


def _datagrams(trial: Trial) -> Iterator[int]:
    for listener in trial.listeners:
        while listener.type == socket.SOCK_DGRAM:
            try:
                received = listener.recv(_FRAME_MAX)
            except BlockingIOError:
                break
            number = frame.unsealed(received, trial.wanted.seal)
            if number is not None:
                yield number
